"""Edit scenes exactly: what to say, and the scene that doing so gives.

An edit keeps the world's rules: twins change together, shadows turn with the light.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from clockwork_experiments.world import captions, scenes, shapes
from clockwork_experiments.world.scenes import Scene, Thing


@dataclass(frozen=True)
class Edit:
    """An exact edit.

    Attributes:
        kind: A key of `EDITS`.
        value: What changes to what: a member of `VALUES` of the kind.
        instruction: What to say.
        scene: What doing so gives.
    """

    kind: str
    value: str
    instruction: str
    scene: Scene


def _subjects(scene: Scene) -> tuple[int, ...]:
    """Return the objects that an edit changes: the first, or both twins."""
    things = scene.things
    return (0, 1) if len(things) > 1 and things[0].kind == things[1].kind else (0,)


def _name(scene: Scene) -> str:
    thing, count = scene.things[0], len(_subjects(scene))
    noun = captions.plural(thing.kind) if count == 2 else thing.kind
    return " ".join(["the", *(["two"] if count == 2 else []), thing.colour, noun])


def _changed(scene: Scene, **values: Any) -> Scene:
    subjects = _subjects(scene)
    things = tuple(
        replace(thing, **values) if index in subjects else thing
        for index, thing in enumerate(scene.things)
    )
    return replace(scene, things=things)


def _recolour(scene: Scene, value: str) -> Edit:
    return Edit(
        "recolour", value, f"make {_name(scene)} {value}", _changed(scene, colour=value)
    )


def _retexture(scene: Scene, value: str) -> Edit:
    return Edit(
        "retexture",
        value,
        f"make {_name(scene)} {value}",
        _changed(scene, texture=value),
    )


def _reshape(scene: Scene, value: str) -> Edit:
    two = len(_subjects(scene)) == 2
    new = captions.plural(value) if two else f"a {value}"
    return Edit(
        "reshape", value, f"turn {_name(scene)} into {new}", _changed(scene, kind=value)
    )


def _resize(scene: Scene, value: str) -> Edit:
    radius = float(np.mean(scenes.SIZES[value]))
    return Edit(
        "resize",
        value,
        f"make {_name(scene)} {value}",
        _changed(scene, size=value, radius=radius),
    )


def _move(scene: Scene, value: str) -> Edit:
    x, y = _anchor(value, scene.things[0].radius)
    return Edit(
        "move",
        value,
        f"move {_name(scene)} to the {value}",
        replace(scene, things=(replace(scene.things[0], x=x, y=y), *scene.things[1:])),
    )


def _anchor(place: str, radius: float) -> tuple[float, float]:
    near, far = max(17.0, radius + 1), min(47.0, scenes.SIZE - radius - 1)
    x = near if "left" in place else far if "right" in place else scenes.SIZE / 2
    y = near if "top" in place else far if "bottom" in place else scenes.SIZE / 2
    return x, y


def _background(scene: Scene, value: str) -> Edit:
    where = captions.GROUND_WORDS[value][0]
    return Edit("background", value, f"put it {where}", replace(scene, ground=value))


def _hour(scene: Scene, value: str) -> Edit:
    return Edit("hour", value, f"make it {value}", replace(scene, hour=value))


def _light(scene: Scene, value: str) -> Edit:
    words = captions.LIGHT_WORDS[value]
    return Edit("light", value, f"light it {words}", replace(scene, light=value))


EDITS: dict[str, Callable[[Scene, str], Edit]] = {
    "recolour": _recolour,
    "retexture": _retexture,
    "reshape": _reshape,
    "resize": _resize,
    "move": _move,
    "background": _background,
    "hour": _hour,
    "light": _light,
}
"""Edit by name: ``(scene, new value) → Edit``."""

VALUES: dict[str, tuple[str, ...]] = {
    "recolour": tuple(scenes.COLOURS),
    "retexture": scenes.TEXTURES,
    "reshape": tuple(shapes.KINDS),
    "resize": tuple(scenes.SIZES),
    "move": tuple(captions.PLACES),
    "background": scenes.GROUNDS,
    "hour": tuple(scenes.HOURS),
    "light": tuple(scenes.LIGHTS),
}
"""What each edit may change something to."""

KEEP_LAYOUT = ("recolour", "retexture", "background", "hour")
"""Edits that a method which keeps the layout should keep it under."""

_SAYS = {
    "recolour": "colour",
    "retexture": "texture",
    "reshape": "kind",
    "resize": "size",
    "move": "place",
}


def choices(scene: Scene, kind: str) -> list[str]:
    """Return the values to which an edit can change a scene; none if it cannot.

    Raises:
        ValueError: If ``kind`` is not a key of `EDITS`.
    """
    if kind not in EDITS:
        raise ValueError(f"edit {kind!r} is not one of {', '.join(EDITS)}")
    first = scene.things[0]
    if kind == "move":
        return _free_places(scene)
    taken = {
        "recolour": {first.colour},
        "retexture": {first.texture},
        "reshape": {thing.kind for thing in scene.things},
        "resize": {first.size, *_sizes_that_do_not_fit(scene)},
        "background": {scene.ground},
        "hour": {scene.hour},
        "light": {scene.light},
    }
    return [value for value in VALUES[kind] if value not in taken[kind]]


def _clear(scene: Scene, new: Thing, index: int = 0) -> bool:
    """Tell whether a changed object touches neither border nor other objects."""
    inside = new.radius <= min(new.x, new.y, scenes.SIZE - new.x, scenes.SIZE - new.y)
    return inside and all(
        np.hypot(new.x - o.x, new.y - o.y) > 1.02 * (new.radius + o.radius)
        for i, o in enumerate(scene.things)
        if i != index
    )


def _sizes_that_do_not_fit(scene: Scene) -> tuple[str, ...]:
    large = float(np.mean(scenes.SIZES["large"]))
    fits = all(
        _clear(scene, replace(scene.things[i], radius=large), i)
        for i in _subjects(scene)
    )
    # Twins grow together.
    return () if fits and len(_subjects(scene)) == 1 else ("large",)


def _free_places(scene: Scene) -> list[str]:
    if len(_subjects(scene)) == 2:
        return []
    first = scene.things[0]
    found = []
    for place in captions.PLACES:
        x, y = _anchor(place, first.radius)
        far = np.hypot(x - first.x, y - first.y) > 10
        if far and _clear(scene, replace(first, x=x, y=y)):
            found.append(place)
    return found


def subject(scene: Scene, kind: str) -> Thing | None:
    """Return the object that an edit of this kind speaks of; None if of the picture."""
    return scene.things[0] if kind in _SAYS else None


def sample_edit(scene: Scene, seed: int, kind: str | None = None) -> Edit:
    """Draw an edit that changes the scene.

    Args:
        scene: The scene to edit.
        seed: Chooses the edit.
        kind: A key of `EDITS`; drawn among those that can be done if left out.

    Raises:
        ValueError: If ``kind`` is not a key of `EDITS`, or cannot be done here.
    """
    rng = np.random.default_rng((seed, 2))
    if kind is None:
        kind = str(rng.choice([each for each in EDITS if choices(scene, each)]))
    values = choices(scene, kind)
    if not values:
        raise ValueError(f"scene {seed}: {kind} cannot be done")
    return EDITS[kind](scene, str(rng.choice(values)))


def prompts(
    scene: Scene, made: Sequence[Edit], seed: int
) -> tuple[str, tuple[str, ...]]:
    """Return a source and, for each edit, a target prompt, worded alike.

    As ImageNet-R-TI2I's, they name the object and what the edits change, and leave the
    layout open: no places, sizes or relations, but for an edit of one of those.
    """
    plan = captions.without_layout(captions.draw_plan(seed, len(scene.things)))
    kinds = {edit.kind for edit in made}
    said = {"kind", "colour"} | {_SAYS[kind] for kind in kinds & _SAYS.keys()}
    changed = _subjects(scene)
    parts = [p | said if i in changed else p for i, p in enumerate(plan.parts)]
    plan = replace(
        plan,
        parts=tuple(parts),
        omitted=None,
        ground=plan.ground or "background" in kinds,
        hour=plan.hour or "hour" in kinds,
        light="light" in kinds,
    )
    source, *targets = (
        captions.say(each, plan).text for each in (scene, *(e.scene for e in made))
    )
    return source, tuple(targets)
