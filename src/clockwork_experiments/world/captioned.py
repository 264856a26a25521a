"""Draw scenes that a caption is true of, as varied as what it leaves open.

What a caption does not say is drawn as the world draws it. So the renderings of one
caption's scenes are what a faultless model would make of it: the reference, and the
floor, of scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from clockwork_experiments.world import captions, judge, scenes, shapes
from clockwork_experiments.world.data import Pixels, eight_bit, images_of
from clockwork_experiments.world.scenes import Scene, Thing

_TRIES = 2000
_UNMENTIONED = {1: 0.13, 2: 0.06, 3: 0.0}
"""How likely a scene has an object more than a caption of so many speaks of."""
_UNSAID_TEXTURE = (0.69, 0.155, 0.155)
"""Textures where none is said: plain ones never are, others in about half."""
_OVERLAPPING = ("behind", "in front of")


def scene_for(caption: captions.Caption, seed: int) -> Scene:
    """Return a scene of a seed that a caption is true of.

    Raises:
        ValueError: If none is found: the caption contradicts itself or the world.
    """
    rng = np.random.default_rng((seed, 11))
    for _ in range(_TRIES):
        scene = _draw(caption, rng)
        if scene is None:
            continue
        if all(judge.as_captioned(caption, judge.truth(scene)).values()):
            return scene
    raise ValueError(f"no scene is found that {caption.text!r} is true of")


def rendering_for(caption: captions.Caption, seed: int) -> Pixels:
    """Return the rendering of `scene_for`, uint8, ``(64, 64, 3)``."""
    return eight_bit(scenes.render(scene_for(caption, seed)))


def redrawn(
    split: str, count: int, offset: int, number: int, rows: Sequence[int]
) -> torch.Tensor:
    """Draw scenes anew for the captions of a split, repetition by repetition.

    Args:
        split: The split.
        count: How many captions there are.
        offset: Scenes to skip before the first's.
        number: Number of the first repetition's scenes; the next have the next.
        rows: Row r shows caption r mod ``count`` in repetition r // ``count``.

    Returns:
        Images, uint8, ``(len(rows), 3, 64, 64)``.
    """
    seeds = scenes.split_seeds(split, count, offset)
    return images_of(partial(_row, seeds, number), rows)


def _row(seeds: Sequence[int], number: int, row: int) -> Pixels:
    repetition, index = divmod(row, len(seeds))
    seed = seeds[index]
    caption = captions.caption_of(scenes.sample_scene(seed), seed)
    # Far apart, so that no two captions draw from the same seed.
    return rendering_for(caption, seed + 10_000_000 * (number + repetition))


def _draw(caption: captions.Caption, rng: np.random.Generator) -> Scene | None:
    wanted: list[tuple[captions.Mention, bool]] = []
    for mention in caption.mentions:
        wanted += [(mention, twin > 0) for twin in range(mention.count)]
    if rng.random() < _UNMENTIONED[len(wanted)]:
        wanted.append((captions.Mention(), False))
    if caption.relation == "in front of":
        # From back to front.
        wanted[:2] = wanted[1::-1]
    elif caption.relation not in _OVERLAPPING and not any(twin for _, twin in wanted):
        wanted = [wanted[i] for i in rng.permutation(len(wanted))]
    overlap = caption.relation in _OVERLAPPING or (
        caption.relation is None and rng.random() < 0.2
    )
    said = {mention.kind for mention in caption.mentions}
    things: list[Thing] = []
    for index, (mention, twin) in enumerate(wanted):
        if twin:
            new = replace(things[-1], mirrored=not things[-1].mirrored)
        else:
            new = _thing(mention, len(wanted), rng)
            if mention.kind is None:
                taken = said | {thing.kind for thing in things}
                free = [kind for kind in shapes.KINDS if kind not in taken]
                new = replace(new, kind=str(rng.choice(free)))
        if caption.relation == "same colour" and index == 1:
            new = replace(new, colour=things[0].colour)
        if mention.place is not None:
            x, y = _somewhere(mention.place, new.radius, rng)
            new = replace(new, x=x, y=y)
            if any(
                np.hypot(x - t.x, y - t.y) < 1.05 * (new.radius + t.radius)
                for t in things
            ):
                return None
        elif things:
            placed = scenes.place(rng, new, things, overlap=overlap and index == 1)
            if placed is None:
                return None
            new = placed
        things.append(new)
    ground, hour, light = (
        said_of or str(rng.choice(legal, p=shares))
        for said_of, legal, shares in (
            (caption.ground, scenes.GROUNDS, None),
            (caption.hour, list(scenes.HOURS), scenes.HOUR_SHARES),
            (caption.light, list(scenes.LIGHTS), None),
        )
    )
    phase = (float(rng.random()), float(rng.random()))
    horizon = float(rng.uniform(*scenes.HORIZONS))
    return Scene(tuple(things), ground, hour, light, horizon, phase)


def _thing(mention: captions.Mention, count: int, rng: np.random.Generator) -> Thing:
    new = scenes.draw_thing(rng, count)
    texture = mention.texture or str(rng.choice(scenes.TEXTURES, p=_UNSAID_TEXTURE))
    new = replace(
        new,
        kind=mention.kind or new.kind,
        colour=mention.colour or new.colour,
        texture=texture,
    )
    if mention.size is not None:
        radius = float(rng.uniform(*scenes.SIZES[mention.size]))
        margin = radius + 1
        x, y = (float(v) for v in rng.uniform(margin, scenes.SIZE - margin, size=2))
        new = replace(new, size=mention.size, radius=radius, x=x, y=y)
    return new


def _somewhere(
    place: str, radius: float, rng: np.random.Generator
) -> tuple[float, float]:
    near, far = radius + 1, scenes.SIZE - radius - 1
    low, high = captions.LOW, captions.HIGH
    inner = captions.INNER if place == "middle" else scenes.SIZE / 2 - low
    words = place.split()
    spans = []
    for first, last in (("left", "right"), ("top", "bottom")):
        if first in words:
            spans.append((near, low))
        elif last in words:
            spans.append((high, far))
        else:
            spans.append((scenes.SIZE / 2 - inner, scenes.SIZE / 2 + inner))
    x, y = (float(rng.uniform(*span)) for span in spans)
    return x, y
