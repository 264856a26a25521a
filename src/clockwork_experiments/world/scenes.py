"""Generate the open world: scenes that hang together as a whole.

A scene is one to three objects at free places on a ground with a horizon, lit from one
side at an hour of the day. What no caption has to say is still decided once for the
whole picture: all shadows fall away from one light, towards which the ground brightens;
the hour tints everything; and two objects of one kind are twins, alike in colour,
texture and size and mirrored. So there is something for low-resolution features and for
early sampling steps to decide. Everything follows from an integer seed.

Images are float32 RGB arrays of shape ``(64, 64, 3)`` in ``[0, 1]``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from clockwork_experiments.world.shapes import KINDS, silhouette

Image = npt.NDArray[np.floating]

SIZE = 64
"""Height and width of a scene in pixels."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (218, 40, 44),
    "orange": (246, 140, 28),
    "yellow": (252, 222, 60),
    "green": (46, 164, 72),
    "blue": (40, 92, 226),
    "purple": (136, 56, 184),
    "pink": (250, 134, 188),
    "white": (250, 250, 248),
}
TEXTURES = ("plain", "striped", "dotted")
SIZES: dict[str, tuple[float, float]] = {"small": (10.0, 11.5), "large": (15.0, 17.0)}
"""Radii in pixels, from and to."""

LIGHTS: dict[str, tuple[float, float]] = {
    "left": (-1.0, 0.0),
    "right": (1.0, 0.0),
    "above": (0.0, -1.0),
    "below": (0.0, 1.0),
}
"""Where the light stands, as seen from the middle; shadows fall the other way."""

HOURS: dict[str, tuple[float, float, float]] = {
    "day": (1.0, 1.0, 1.0),
    "dusk": (1.0, 0.84, 0.72),
    "night": (0.62, 0.68, 0.86),
}
"""Tint of everything but the sky."""

HOUR_SHARES = (0.5, 0.25, 0.25)
HORIZONS = (14, 34)
"""Heights of the horizon in pixels from the top, from and to."""

GROUNDS = ("beach", "sea", "meadow", "snow", "wall")
SPLITS: dict[str, range] = {
    "train": range(0, 1_000_000),
    "validation": range(1_000_000, 1_100_000),
    "test": range(1_100_000, 1_200_000),
}
"""Seeds of each split; a seed belongs to exactly one."""

_Y, _X = np.meshgrid(
    np.arange(SIZE, dtype=np.float32) + 0.5,
    np.arange(SIZE, dtype=np.float32) + 0.5,
    indexing="ij",
)
_SHADOW = {"day": 2.6, "dusk": 4.6, "night": 2.6}
_SKY = {
    "day": ((112, 176, 236), (206, 230, 248)),
    "dusk": ((112, 78, 148), (252, 168, 104)),
    "night": ((14, 16, 44), (40, 48, 96)),
}


@dataclass(frozen=True)
class Thing:
    """One object of a scene.

    Attributes:
        kind: A key of `KINDS`.
        colour: A key of `COLOURS`.
        texture: A member of `TEXTURES`.
        size: A key of `SIZES`.
        x: Its centre, in pixels from the left.
        y: And from the top.
        radius: In pixels, within those of its size.
        mirrored: Looks the other way.
        light: The light that it is lit by, where that is not the scene's: only for
            judges to learn from, which must read each object by itself.
    """

    kind: str
    colour: str
    texture: str
    size: str
    x: float
    y: float
    radius: float
    mirrored: bool = False
    light: str | None = None

    def __post_init__(self) -> None:
        """Reject attributes outside the registries."""
        for name, legal in THING_VALUES.items():
            value = getattr(self, name)
            if value not in legal:
                raise ValueError(f"{name} {value!r} is not one of {', '.join(legal)}")


THING_VALUES: dict[str, tuple[str, ...]] = {
    "kind": tuple(KINDS),
    "colour": tuple(COLOURS),
    "texture": TEXTURES,
    "size": tuple(SIZES),
}
"""What an attribute of an object may be, by its name."""
SCENE_VALUES: dict[str, tuple[str, ...]] = {
    "ground": GROUNDS,
    "hour": tuple(HOURS),
    "light": tuple(LIGHTS),
}
"""The same of a scene's own."""


@dataclass(frozen=True)
class Scene:
    """A scene.

    Attributes:
        things: Its objects from back to front.
        ground: A member of `GROUNDS`.
        hour: A key of `HOURS`.
        light: A key of `LIGHTS`.
        horizon: Height of the horizon in pixels from the top; of no matter to a wall.
        phase: Where the ground's pattern starts, two numbers in ``[0, 1]``.
    """

    things: tuple[Thing, ...]
    ground: str
    hour: str
    light: str
    horizon: float
    phase: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        """Reject what is not in the registries, and empty or crowded scenes."""
        for name, legal in SCENE_VALUES.items():
            value = getattr(self, name)
            if value not in legal:
                raise ValueError(f"{name} {value!r} is not one of {', '.join(legal)}")
        if not 1 <= len(self.things) <= 3:
            raise ValueError(f"a scene has 1 to 3 objects, not {len(self.things)}")


def sample_scene(seed: int, *, own_lights: bool = False) -> Scene:
    """Return the scene of a seed.

    Args:
        seed: Any non-negative integer; `SPLITS` says which belong to which split.
        own_lights: Light each object from a side of its own, and let equal kinds
            differ: what no scene of the world does, for judges to learn from.
    """
    rng = np.random.default_rng((seed, 7 if own_lights else 0))
    count = int(rng.choice([1, 2, 3], p=(0.35, 0.45, 0.2)))
    twins = count > 1 and rng.random() < 0.4
    things = [draw_thing(rng, count)]
    overlap = count > 1 and rng.random() < 0.2
    for index in range(1, count):
        new = draw_thing(rng, count)
        if twins and index == 1:
            first = things[0]
            new = replace(first, mirrored=not first.mirrored)
        elif not own_lights:
            taken = {thing.kind for thing in things}
            free = [kind for kind in KINDS if kind not in taken]
            new = replace(new, kind=str(rng.choice(free)))
            if index == 1 and rng.random() < 0.2:
                new = replace(new, colour=things[0].colour)
        placed = place(rng, new, things, overlap=overlap and index == 1)
        if placed is not None:
            things.append(placed)
    if own_lights:
        things = [replace(t, light=str(rng.choice(list(LIGHTS)))) for t in things]
    return Scene(
        tuple(things),
        str(rng.choice(GROUNDS)),
        str(rng.choice(list(HOURS), p=HOUR_SHARES)),
        str(rng.choice(list(LIGHTS))),
        float(rng.uniform(*HORIZONS)),
        (float(rng.random()), float(rng.random())),
    )


def draw_thing(rng: np.random.Generator, count: int) -> Thing:
    """Draw one of ``count`` objects, at a free place."""
    large = rng.random() < (0.5, 0.4, 0.15)[count - 1]
    size = "large" if large else "small"
    radius = float(rng.uniform(*SIZES[size]))
    margin = radius + 1.0
    return Thing(
        kind=str(rng.choice(list(KINDS))),
        colour=str(rng.choice(list(COLOURS))),
        texture=str(rng.choice(TEXTURES, p=(0.5, 0.25, 0.25))),
        size=size,
        x=float(rng.uniform(margin, SIZE - margin)),
        y=float(rng.uniform(margin, SIZE - margin)),
        radius=radius,
        mirrored=bool(rng.random() < 0.5),
    )


def place(
    rng: np.random.Generator, new: Thing, others: list[Thing], *, overlap: bool
) -> Thing | None:
    """Find a free place for an object, or one in front of the last; None if none is."""
    margin = new.radius + 1.0
    for _ in range(40):
        x, y = rng.uniform(margin, SIZE - margin, size=2)
        gaps = [
            float(np.hypot(x - o.x, y - o.y)) / (new.radius + o.radius) for o in others
        ]
        if overlap:
            if 0.8 < gaps[-1] < 0.94 and min(gaps[:-1], default=2.0) > 1.02:
                return replace(new, x=float(x), y=float(y))
        elif min(gaps) > 1.05:
            return replace(new, x=float(x), y=float(y))
    return None


# The ground and the sky


def _mix(low: tuple[int, ...], high: tuple[int, ...], weight: Image) -> Image:
    a, b = np.array(low, np.float32) / 255, np.array(high, np.float32) / 255
    return np.asarray(a + (b - a) * weight[..., None], dtype=np.float32)


def _beach(u: float, v: float) -> Image:
    ripple = np.sin((_X * 0.35 + _Y + 3 * np.sin((_X + 9 * u) / 11) + 8 * v) * 0.8)
    return _mix((196, 170, 128), (216, 192, 152), 0.5 + 0.5 * ripple)


def _sea(u: float, v: float) -> Image:
    swell = np.sin((_Y + 2.2 * np.sin((_X + 16 * u) * np.pi / 8) + 8 * v) * 0.78)
    return _mix((24, 92, 116), (48, 126, 146), 0.5 + 0.5 * swell)


def _meadow(u: float, v: float) -> Image:
    blades = np.sin(_X * 1.9 + 6 * u + 2 * np.sin(_Y * 0.5 + 6 * v)) * np.sin(_Y * 0.9)
    return _mix((92, 128, 58), (124, 156, 76), 0.5 + 0.5 * blades)


def _snow(u: float, v: float) -> Image:
    drift = np.sin(_Y * 0.32 + 1.4 * np.sin(_X * 0.11 + 6 * u) + 6 * v)
    return _mix((196, 206, 222), (224, 230, 238), 0.5 + 0.5 * drift)


def _wall(u: float, v: float) -> Image:
    row = np.floor((_Y + 8 * v) / 8)
    ex = np.abs((_X + 16 * u + 8 * (row % 2)) % 16 - 8) - 6.6
    ey = np.abs((_Y + 8 * v) % 8 - 4) - 2.9
    return _mix((122, 92, 84), (162, 142, 132), np.clip(np.maximum(ex, ey), 0, 1))


_PATTERNS: dict[str, Callable[[float, float], Image]] = {
    "beach": _beach,
    "sea": _sea,
    "meadow": _meadow,
    "snow": _snow,
    "wall": _wall,
}


def _toward(light: str) -> Image:
    """Return how near each pixel is to the light, from -1 to 1."""
    lx, ly = LIGHTS[light]
    return lx * (_X / 32 - 1) + ly * (_Y / 32 - 1)


def _backdrop(scene: Scene) -> Image:
    ground = _PATTERNS[scene.ground](*scene.phase)
    ground = ground * np.array(HOURS[scene.hour], np.float32)
    if scene.ground != "wall":
        sky = _mix(*_SKY[scene.hour], np.clip(_Y / scene.horizon, 0, 1) ** 1.5)
        if scene.hour == "night":
            u, v = scene.phase
            px = (_X + 14 * u) % 14 - 7
            py = (_Y + 5 * np.floor((_X + 14 * u) / 14) + 11 * v) % 11 - 5.5
            stars = np.exp(-(px**2 + py**2) / 0.9)
            sky = sky + 0.6 * stars[..., None]
        below = np.clip(_Y - scene.horizon + 0.5, 0, 1)[..., None]
        ground = sky * (1 - below) + ground * below
    return np.asarray(ground * (1 + 0.24 * _toward(scene.light))[..., None])


def render(scene: Scene) -> Image:
    """Draw a scene, antialiased.

    Returns:
        RGB image, float32, shape ``(64, 64, 3)``, values in ``[0, 1]``.
    """
    image = _backdrop(scene)
    for thing in scene.things:
        lx, ly = LIGHTS[thing.light or scene.light]
        length = _SHADOW[scene.hour]
        fallen = _silhouette(thing, -lx * length, -ly * length)
        shadow = 0.5 * np.clip(0.5 - (fallen - 0.5) / 2.4, 0, 1)
        image = image * (1 - shadow[..., None])
        image = _draw(image, thing, scene.hour, (lx, ly))
    return np.clip(image, 0, 1).astype(np.float32)


def _local(thing: Thing, dx: float = 0.0, dy: float = 0.0) -> tuple[Image, Image]:
    x, y = _X - thing.x - dx, _Y - thing.y - dy
    return (-x if thing.mirrored else x), y


def _silhouette(thing: Thing, dx: float = 0.0, dy: float = 0.0) -> Image:
    return silhouette(thing.kind, *_local(thing, dx, dy), thing.radius)


def _draw(image: Image, thing: Thing, hour: str, light: tuple[float, float]) -> Image:
    x, y = _local(thing)
    # Light falls from one side: a low frequency. Stripes and dots are high ones.
    across = light[0] * (_X - thing.x) + light[1] * (_Y - thing.y)
    shade = (1.0 + 0.16 * across / thing.radius)[..., None]
    tint = 0.5 + 0.5 * np.array(HOURS[hour], np.float32)
    if thing.texture == "striped":
        wave = np.clip(1.6 * np.sin((x + y) * 2 * np.pi / 7.0), -1, 1)
    elif thing.texture == "dotted":
        px, py = (x + 3) % 6 - 3, (y + 3) % 6 - 3
        wave = np.clip(2.2 - 1.3 * np.hypot(px, py), -1, 1)
    else:
        wave = np.full_like(x, -1.0)
    darker = (1 - 0.55 * (0.5 + 0.5 * wave))[..., None]
    own = np.array(COLOURS[thing.colour], np.float32) / 255
    for part in KINDS[thing.kind]:
        if isinstance(part.tone, tuple):
            colour = np.array(part.tone, np.float32) / 255
        else:
            colour = own * part.tone
        fill = np.clip(colour * shade, 0, 1) * tint
        if part.textured:
            fill = fill * darker
        alpha = np.clip(0.5 - part.distance(x, y, thing.radius), 0, 1)[..., None]
        image = image * (1 - alpha) + fill * alpha
    return image


def object_mask(scene: Scene) -> Image:
    """Return how much of each pixel the objects cover, ``(64, 64)`` in ``[0, 1]``."""
    cover = [np.clip(0.5 - _silhouette(thing), 0, 1) for thing in scene.things]
    return np.maximum.reduce(cover).astype(np.float32)


def kind_map(scene: Scene) -> npt.NDArray[np.uint8]:
    """Return which kind of object each pixel shows, ``(64, 64)``; 0 for the ground.

    Others are numbered from 1, in the order of `KINDS`.
    """
    kinds, shown = list(KINDS), np.zeros((SIZE, SIZE), np.uint8)
    for thing in scene.things:
        shown[_silhouette(thing) < 0] = 1 + kinds.index(thing.kind)
    return shown


def visible_shares(scene: Scene) -> list[float]:
    """Return which share of each object no other hides."""
    covers = [np.clip(0.5 - _silhouette(thing), 0, 1) for thing in scene.things]
    shares = []
    for index, cover in enumerate(covers):
        hidden = np.maximum.reduce([np.zeros_like(cover), *covers[index + 1 :]])
        shares.append(float((cover * (1 - hidden)).sum() / cover.sum()))
    return shares


def split_seeds(split: str, count: int, offset: int = 0) -> list[int]:
    """Return ``count`` seeds of a split, from its ``offset``-th on.

    Raises:
        ValueError: If the split is unknown or holds too few seeds.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is not one of {', '.join(SPLITS)}")
    seeds = SPLITS[split][offset : offset + count]
    if len(seeds) < count:
        raise ValueError(
            f"split {split!r} has {len(SPLITS[split])} seeds, "
            f"not {offset + count} as asked for"
        )
    return list(seeds)


def edge_map(scene: Scene) -> Image:
    """Return the objects' outlines, one to two pixels wide, ``(64, 64)`` in [0, 1]."""
    outlines = [np.clip(1.25 - np.abs(_silhouette(t)), 0, 1) for t in scene.things]
    return np.maximum.reduce(outlines).astype(np.float32)


def degrade(image: Image, seed: int, factor: int = 4, noise: float = 0.03) -> Image:
    """Average ``factor`` × ``factor`` blocks, add noise, and enlarge again.

    Args:
        image: RGB image, ``(64, 64, 3)`` in ``[0, 1]``.
        seed: Seed of the noise.
        factor: Side of a block; a divisor of 64.
        noise: Standard deviation of the noise in the small image.

    Raises:
        ValueError: If ``factor`` does not divide the image's side.
    """
    if factor < 1 or SIZE % factor:
        raise ValueError(f"factor {factor} is not a divisor of {SIZE}")
    small = image.reshape(SIZE // factor, factor, SIZE // factor, factor, 3)
    low = small.mean(axis=(1, 3))
    low = low + np.random.default_rng(seed).normal(0, noise, low.shape)
    large = np.repeat(np.repeat(low, factor, axis=0), factor, axis=1)
    return np.clip(large, 0, 1).astype(np.float32)
