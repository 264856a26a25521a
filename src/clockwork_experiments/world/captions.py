"""Say of a scene what a caption says, and leave the rest open.

Every attribute may be missing: a caption mostly names kinds and colours, sometimes
sizes, textures, places, the ground, the hour, and now and then a relation of two
objects or the light. What is said comes with the words, so that a judge can check it.

What is said of a scene follows from a `Plan`, drawn from a seed without a look at the
scene's values: the same plan words a scene and its edit alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from clockwork_experiments.world.scenes import (
    COLOURS,
    SIZES,
    TEXTURES,
    Scene,
    Thing,
    sample_scene,
    split_seeds,
    visible_shares,
)
from clockwork_experiments.world.shapes import KINDS

GROUND_WORDS: dict[str, tuple[str, ...]] = {
    "beach": ("on the beach", "on sand"),
    "sea": ("on the sea", "on blue water"),
    "meadow": ("in a meadow", "on the grass"),
    "snow": ("in the snow", "on a field of snow"),
    "wall": ("on a brick wall", "before a wall of bricks"),
}
HOUR_WORDS: dict[str, tuple[str, ...]] = {
    "day": ("by day", "in daylight"),
    "dusk": ("at dusk", "at sunset"),
    "night": ("at night", "in the dark"),
}
LIGHT_WORDS = {
    "left": "from the left",
    "right": "from the right",
    "above": "from above",
    "below": "from below",
}
PLACES: dict[str, str] = {
    "left": "on the left",
    "right": "on the right",
    "top": "at the top",
    "bottom": "at the bottom",
    "top left": "in the top left",
    "top right": "in the top right",
    "bottom left": "in the bottom left",
    "bottom right": "in the bottom right",
    "middle": "in the middle",
}
RELATIONS: dict[str, str] = {
    "left of": "left of",
    "right of": "right of",
    "above": "above",
    "below": "below",
    "behind": "behind",
    "in front of": "in front of",
    "same colour": "of the same colour",
}
_PLURALS = {"fish": "fish", "cross": "crosses"}
LOW, HIGH = 24.0, 40.0
INNER = 6.0
_CLEARLY_HIDDEN = 0.93


@dataclass(frozen=True)
class Mention:
    """What a caption says of one object, or of two twins.

    Attributes:
        count: How many objects it speaks of.
        kind: Their kind, or None where the caption leaves it open; and so on.
        colour: Their colour.
        texture: Their texture.
        size: Their size.
        place: A key of `PLACES`.
    """

    count: int = 1
    kind: str | None = None
    colour: str | None = None
    texture: str | None = None
    size: str | None = None
    place: str | None = None


@dataclass(frozen=True)
class Caption:
    """A caption, and what it says.

    Attributes:
        text: The words.
        mentions: What it says of objects.
        relation: A key of `RELATIONS` that the first mention has to the second.
        ground: The ground, if named.
        hour: The hour, if named.
        light: The light, if named.
    """

    text: str
    mentions: tuple[Mention, ...]
    relation: str | None = None
    ground: str | None = None
    hour: str | None = None
    light: str | None = None


@dataclass(frozen=True)
class Plan:
    """What a caption is to say, as far as the scene allows.

    Attributes:
        parts: Attributes to name, of each object in the scene's order.
        order: The objects' order in words.
        omitted: An object that is not mentioned, if there are two or more.
        relate: Say how the first two objects stand to each other, if it can be said.
        ground: Name the ground.
        hour: Name the hour.
        light: Name the light.
        words: Numbers that choose between phrasings.
    """

    parts: tuple[frozenset[str], ...]
    order: tuple[int, ...]
    omitted: int | None
    relate: bool
    ground: bool
    hour: bool
    light: bool
    words: tuple[int, ...]


_SAID = {"kind": 0.93, "colour": 0.8, "texture": 0.55, "size": 0.3, "place": 0.25}


def draw_plan(seed: int, count: int) -> Plan:
    """Draw a plan for a scene of ``count`` objects."""
    rng = np.random.default_rng((seed, 1))
    parts = []
    for _ in range(3):
        said = {name for name, share in _SAID.items() if rng.random() < share}
        parts.append(frozenset(said if said & {"kind", "colour"} else said | {"kind"}))
    order = tuple(int(i) for i in rng.permutation(3) if i < count)
    omitted = int(rng.integers(count)) if rng.random() < 0.12 and count > 1 else None
    relate, ground, hour, light = (
        bool(rng.random() < share) for share in (0.4, 0.55, 0.35, 0.12)
    )
    words = tuple(int(number) for number in rng.integers(1000, size=4))
    return Plan(
        tuple(parts[:count]), order, omitted, relate, ground, hour, light, words
    )


def without_layout(plan: Plan) -> Plan:
    """Return a plan that leaves places, sizes and relations to the picture.

    As ImageNet-R-TI2I's prompts do: what tells the layout needs no editing method to
    keep it.
    """
    parts = tuple(said - {"place", "size"} for said in plan.parts)
    return replace(plan, parts=parts, relate=False, light=False)


def caption_of(scene: Scene, seed: int) -> Caption:
    """Return one of a scene's many captions, that of a seed."""
    return say(scene, draw_plan(seed, len(scene.things)))


def phrasings(seed: int, count: int) -> list[str]:
    """Return several captions of the scene of a seed."""
    scene = sample_scene(seed)
    # Seeds far apart: neighbours of a scene's seed word its neighbours.
    return [caption_of(scene, seed + 10_000_000 * k).text for k in range(count)]


def say(scene: Scene, plan: Plan) -> Caption:
    """Word a scene by a plan."""
    shown = [i for i in plan.order if i != plan.omitted]
    things = scene.things
    twins = [i for i in shown if i < 2] if _twins(scene) else []
    mentions: list[Mention] = []
    for index in shown:
        said, thing = plan.parts[index], things[index]
        if len(twins) == 2:
            if index == twins[1]:
                continue
            if index == twins[0]:
                mentions.append(_mention(thing, said - {"place"}, count=2))
                continue
        mentions.append(_mention(thing, said))
    relation = None
    if plan.relate and len(twins) < 2 and len(shown) >= 2:
        relation = _relation(scene, shown[0], shown[1])
    if relation is not None:
        first, second = (
            replace(mentions[0], place=None),
            replace(mentions[1], place=None),
        )
        if relation == "same colour":
            first, second = (
                replace(m, colour=None, kind=things[i].kind)
                for m, i in zip((first, second), shown, strict=False)
            )
        mentions = [first, second, *mentions[2:]]
    if len(mentions) > 2:
        # More than one place, or one and the light, do not fit the text encoder.
        most = 0 if plan.light else 1
        placed = [i for i, mention in enumerate(mentions) if mention.place][:most]
        mentions = [
            mention if i in placed else replace(mention, place=None)
            for i, mention in enumerate(mentions)
        ]
    ground = scene.ground if plan.ground else None
    hour = scene.hour if plan.hour else None
    light = scene.light if plan.light else None
    caption = Caption("", tuple(mentions), relation, ground, hour, light)
    return replace(caption, text=_words(caption, plan.words))


def _twins(scene: Scene) -> bool:
    return len(scene.things) > 1 and scene.things[0].kind == scene.things[1].kind


def _mention(thing: Thing, said: frozenset[str], count: int = 1) -> Mention:
    plain = thing.texture == "plain"
    return Mention(
        count,
        thing.kind if "kind" in said else None,
        thing.colour if "colour" in said else None,
        thing.texture if "texture" in said and not plain else None,
        thing.size if "size" in said else None,
        place_of(thing.x, thing.y) if "place" in said else None,
    )


def place_of(x: float, y: float) -> str | None:
    """Name a place, or None where it could be called one or the other."""
    column = "left" if x < LOW else "right" if x > HIGH else ""
    row = "top" if y < LOW else "bottom" if y > HIGH else ""
    middle = abs(x - 32) < INNER and abs(y - 32) < INNER
    return " ".join(filter(None, (row, column))) or ("middle" if middle else None)


def _relation(scene: Scene, first: int, second: int) -> str | None:
    """Name the relation of one object to another, if it is clear."""
    one, other = scene.things[first], scene.things[second]
    if one.colour == other.colour:
        return "same colour"
    dx, dy = one.x - other.x, one.y - other.y
    if np.hypot(dx, dy) < 0.95 * (one.radius + other.radius):
        if visible_shares(scene)[min(first, second)] > _CLEARLY_HIDDEN:
            return None
        return "behind" if first < second else "in front of"
    if abs(dx) > 10 and abs(dx) > 1.2 * abs(dy):
        return "left of" if dx < 0 else "right of"
    if abs(dy) > 10 and abs(dy) > 1.2 * abs(dx):
        return "above" if dy < 0 else "below"
    return None


def plural(noun: str) -> str:
    """Return the plural of a kind of object."""
    return _PLURALS.get(noun, f"{noun}s")


def _one_of(name: str, words: Iterable[str]) -> str:
    # The longest first: "in the top left" before "in the top".
    return f"(?P<{name}>{'|'.join(sorted(words, key=len, reverse=True))})"


_SINGULARS: dict[str, str | None] = {plural(kind): kind for kind in KINDS}
_KINDS: dict[str, str | None] = {kind: kind for kind in KINDS}
_PLACED = {words: place for place, words in PLACES.items()}
_MENTION = re.compile(
    "(?P<article>two|an|a) "
    f"(?:{_one_of('size', SIZES)} )?(?:{_one_of('texture', TEXTURES)} )?"
    f"(?:{_one_of('colour', COLOURS)} )?"
    f"{_one_of('noun', [*KINDS, *_SINGULARS, 'thing', 'things'])}"
    f"(?: {_one_of('place', _PLACED)})?"
)
_SAME = RELATIONS["same colour"]
_RELATED = {words: relation for relation, words in RELATIONS.items()}
_LINK = re.compile(
    f"(?: (?P<same>{_SAME}))?(?:, | and |$)|"
    f" {_one_of('relation', [w for w in RELATIONS.values() if w != _SAME])} "
)


def _noun(mention: Mention) -> str:
    noun = mention.kind or "thing"
    if mention.count == 2:
        noun = plural(noun)
    words = [mention.size, mention.texture, mention.colour, noun]
    phrase = " ".join(filter(None, words))
    if mention.count == 2:
        return f"two {phrase}"
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _words(caption: Caption, numbers: tuple[int, ...]) -> str:
    phrases = [
        " ".join(filter(None, (_noun(m), PLACES[m.place] if m.place else None)))
        for m in caption.mentions
    ]
    if caption.relation == "same colour":
        pair = f"{phrases[0]} and {phrases[1]} of the same colour"
        phrases = [pair, *phrases[2:]]
    elif caption.relation is not None:
        pair = f"{phrases[0]} {RELATIONS[caption.relation]} {phrases[1]}"
        phrases = [pair, *phrases[2:]]
    objects = " and ".join(filter(None, (", ".join(phrases[:-1]), phrases[-1])))
    where = []
    if caption.ground is not None:
        options = GROUND_WORDS[caption.ground]
        where.append(options[numbers[0] % len(options)])
    if caption.hour is not None:
        options = HOUR_WORDS[caption.hour]
        where.append(options[numbers[1] % len(options)])
    text = " ".join([objects, *where])
    if caption.light is not None:
        text += f", lit {LIGHT_WORDS[caption.light]}"
    return f"a picture of {text}" if numbers[2] % 5 == 0 else text


def read(text: str) -> Caption:
    """Return what a caption says: the inverse of its wording.

    Args:
        text: The words of a caption of the world.

    Raises:
        ValueError: If it is none, naming the part that is not understood.
    """
    rest = text.removeprefix("a picture of ")
    rest, light = _ending(rest, {k: (f", lit {v}",) for k, v in LIGHT_WORDS.items()})
    rest, hour = _ending(rest, _spaced(HOUR_WORDS))
    rest, ground = _ending(rest, _spaced(GROUND_WORDS))
    mentions: list[Mention] = []
    relation = None
    while True:
        found = _MENTION.match(rest)
        if found is None:
            raise ValueError(f"{text!r} is no caption of the world: at {rest!r}")
        mentions.append(_read_mention(found))
        rest = rest[found.end() :]
        if not rest:
            break
        link = _LINK.match(rest)
        if link is None:
            raise ValueError(f"{text!r} is no caption of the world: at {rest!r}")
        relation = relation or _RELATED.get(link["relation"] or link["same"] or "")
        rest = rest[link.end() :]
        if link["same"] and not rest:
            break
    return Caption(text, tuple(mentions), relation, ground, hour, light)


def _spaced(words: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return {key: tuple(f" {option}" for option in some) for key, some in words.items()}


def _ending(text: str, words: dict[str, tuple[str, ...]]) -> tuple[str, str | None]:
    """Take one of these endings off a text, and return what it stands for."""
    for key, options in words.items():
        for option in options:
            if text.endswith(option):
                return text.removesuffix(option), key
    return text, None


def _read_mention(found: re.Match[str]) -> Mention:
    noun, many = found["noun"], found["article"] == "two"
    nouns = {**_SINGULARS, "things": None} if many else {**_KINDS, "thing": None}
    if noun not in nouns:
        raise ValueError(f"{noun!r} does not go with {found['article']!r}")
    return Mention(
        count=2 if many else 1,
        kind=nouns[noun],
        colour=found["colour"],
        texture=found["texture"],
        size=found["size"],
        place=_PLACED.get(found["place"] or ""),
    )


def captions_of(split: str, count: int, offset: int = 0) -> list[Caption]:
    """Return one caption of each of a split's scenes, with what it says."""
    return [
        caption_of(sample_scene(seed), seed)
        for seed in split_seeds(split, count, offset)
    ]


def captions(split: str, count: int, offset: int = 0) -> list[str]:
    """Return the words of `captions_of`."""
    return [caption.text for caption in captions_of(split, count, offset)]
