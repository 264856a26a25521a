"""Generate the mini world: small captioned scenes, and exact edits of them.

The mini scale needs an image world that a laptop can learn, with the property that
makes Clockwork work on photographs: layout lives in low spatial frequencies, texture
in high ones. A scene is one or two coloured, textured shapes on a textured ground,
described by a caption from a small grammar. Everything follows from an integer seed.

Images are float32 RGB arrays of shape ``(64, 64, 3)`` in ``[0, 1]``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.floating]

SIZE = 64
"""Height and width of a scene in pixels."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (222, 45, 48),
    "orange": (246, 140, 28),
    "yellow": (252, 218, 56),
    "green": (52, 178, 78),
    "blue": (44, 104, 232),
    "purple": (140, 62, 190),
    "pink": (250, 138, 184),
    "white": (248, 248, 244),
}
TEXTURES = ("plain", "striped", "dotted")
SIZES: dict[str, float] = {"small": 9.5, "large": 14.0}
POSITIONS: dict[str, tuple[float, float]] = {
    "top left": (17.0, 17.0),
    "top": (32.0, 17.0),
    "top right": (47.0, 17.0),
    "left": (17.0, 32.0),
    "centre": (32.0, 32.0),
    "right": (47.0, 32.0),
    "bottom left": (17.0, 47.0),
    "bottom": (32.0, 47.0),
    "bottom right": (47.0, 47.0),
}
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


# --- shapes: signed distance in pixels, negative inside, for a radius r ------------


def _circle(x: Image, y: Image, r: float) -> Image:
    return np.hypot(x, y) - r


def _square(x: Image, y: Image, r: float) -> Image:
    half, corner = 0.86 * r, 0.12 * r
    qx, qy = np.abs(x) - half + corner, np.abs(y) - half + corner
    outside = np.hypot(np.maximum(qx, 0), np.maximum(qy, 0))
    return outside + np.minimum(np.maximum(qx, qy), 0) - corner


def _polygon(
    points: npt.NDArray[np.float64],
) -> Callable[[Image, Image, float], Image]:
    """Return the exact signed distance to a closed polygon given at radius 1."""

    def distance(x: Image, y: Image, r: float) -> Image:
        best = np.full(x.shape, np.inf, dtype=np.float32)
        inside = np.zeros(x.shape, dtype=bool)
        for (ax, ay), (bx, by) in zip(
            points * r, np.roll(points, -1, axis=0) * r, strict=True
        ):
            ex, ey = bx - ax, by - ay
            wx, wy = x - ax, y - ay
            t = np.clip((wx * ex + wy * ey) / (ex * ex + ey * ey), 0, 1)
            best = np.minimum(best, np.hypot(wx - t * ex, wy - t * ey))
            crosses = ((ay <= y) & (by > y)) | ((by <= y) & (ay > y))
            inside ^= crosses & ((ex * wy - ey * wx > 0) == (by > ay))
        return np.where(inside, -best, best).astype(np.float32)

    return distance


def _ngon(radii: Iterable[float], lift: float = 0.0) -> npt.NDArray[np.float64]:
    radius = np.array(list(radii))
    angle = np.arange(len(radius)) * 2 * np.pi / len(radius)
    return np.stack([radius * np.sin(angle), -radius * np.cos(angle) + lift], axis=1)


def _ring(x: Image, y: Image, r: float) -> Image:
    return np.abs(np.hypot(x, y) - 0.72 * r) - 0.28 * r


def _cross(x: Image, y: Image, r: float) -> Image:
    arm = 0.33 * r
    ax, ay = np.abs(x), np.abs(y)
    long, short = np.maximum(ax, ay), np.minimum(ax, ay)
    qx, qy = long - r, short - arm
    outside = np.hypot(np.maximum(qx, 0), np.maximum(qy, 0))
    return outside + np.minimum(np.maximum(qx, qy), 0)


SHAPES: dict[str, Callable[[Image, Image, float], Image]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _polygon(_ngon([1.15] * 3, lift=0.2)),
    "star": _polygon(_ngon([1.12, 0.5] * 5)),
    "ring": _ring,
    "cross": _cross,
}


# --- grounds: quiet patterns, darker or paler than every object colour -------------


def _sand(u: float, v: float) -> Image:
    ripple = np.sin((_X * 0.35 + _Y + 3 * np.sin((_X + 9 * u) / 11) + 8 * v) * 0.8)
    return _blend((214, 190, 150), (196, 170, 128), ripple)


def _sea(u: float, v: float) -> Image:
    swell = np.sin((_Y + 2.2 * np.sin((_X + 16 * u) * 2 * np.pi / 16) + 8 * v) * 0.78)
    return _blend((24, 92, 116), (44, 122, 142), swell)


def _night(u: float, v: float) -> Image:
    px, py = (
        (_X + 12 * u) % 12 - 6,
        (_Y + 6 * np.floor((_X + 12 * u) / 12) + 12 * v) % 12 - 6,
    )
    glow = 2 * np.exp(-(px**2 + py**2) / 1.6) - 1
    return _blend((24, 24, 48), (150, 150, 170), glow)


def _brick(u: float, v: float) -> Image:
    row = np.floor((_Y + 8 * v) / 8)
    ex = np.abs((_X + 16 * u + 8 * (row % 2)) % 16 - 8) - 6.6
    ey = np.abs((_Y + 8 * v) % 8 - 4) - 2.9
    mortar = np.clip(np.maximum(ex, ey), 0, 1) * 2 - 1
    return _blend((122, 92, 84), (166, 146, 136), mortar)


def _blend(low: tuple[int, ...], high: tuple[int, ...], wave: Image) -> Image:
    weight = (0.5 + 0.5 * wave)[..., None].astype(np.float32)
    a, b = np.array(low, np.float32) / 255, np.array(high, np.float32) / 255
    return np.asarray(a + (b - a) * weight, dtype=np.float32)


BACKGROUNDS: dict[str, Callable[[float, float], Image]] = {
    "sand": _sand,
    "sea": _sea,
    "night": _night,
    "brick": _brick,
}
_GROUND_WORDS: dict[str, tuple[str, ...]] = {
    "sand": ("the sand", "a sandy beach"),
    "sea": ("the sea", "blue water"),
    "night": ("the night sky", "a starry sky"),
    "brick": ("a brick wall", "the bricks"),
}


# --- scenes -------------------------------------------------------------------------


@dataclass(frozen=True)
class SceneObject:
    """One shape of a scene; every attribute is a key of this module's registries.

    Attributes:
        shape: A key of `SHAPES`.
        colour: A key of `COLOURS`.
        texture: A member of `TEXTURES`.
        size: A key of `SIZES`.
        position: A key of `POSITIONS`.
        jitter: Offset of the centre in pixels, (x, y).
    """

    shape: str
    colour: str
    texture: str
    size: str
    position: str
    jitter: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        """Reject attributes outside the registries."""
        for name, legal in _ATTRIBUTES.items():
            value = getattr(self, name)
            if value not in legal:
                raise ValueError(f"{name} {value!r} is not one of {', '.join(legal)}")


_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shape": tuple(SHAPES),
    "colour": tuple(COLOURS),
    "texture": TEXTURES,
    "size": tuple(SIZES),
    "position": tuple(POSITIONS),
}


@dataclass(frozen=True)
class Scene:
    """A scene: its objects from back to front, its ground, and the ground's phase."""

    objects: tuple[SceneObject, ...]
    background: str
    phase: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        """Reject unknown grounds and scenes without one or two objects."""
        if self.background not in BACKGROUNDS:
            raise ValueError(
                f"background {self.background!r} is not one of {', '.join(BACKGROUNDS)}"
            )
        if not 1 <= len(self.objects) <= 2:
            raise ValueError(f"a scene has 1 or 2 objects, not {len(self.objects)}")


def sample_scene(seed: int, two_objects: float = 0.0) -> Scene:
    """Return the scene of a seed.

    Args:
        seed: Any non-negative integer; `SPLITS` says which belong to which split.
        two_objects: Probability of a second object, in ``[0, 1]``.
    """
    rng = np.random.default_rng(seed)
    count = 1 + int(rng.random() < two_objects)
    places = [int(rng.integers(len(POSITIONS)))]
    if count == 2:
        apart = [place for place in range(len(POSITIONS)) if _apart(places[0], place)]
        places.append(int(rng.choice(apart)))
    objects = tuple(
        SceneObject(
            shape=str(rng.choice(list(SHAPES))),
            colour=str(rng.choice(list(COLOURS))),
            texture=str(rng.choice(TEXTURES, p=(0.5, 0.25, 0.25))),
            # Two large objects would hide each other.
            size="small" if count == 2 else str(rng.choice(list(SIZES))),
            position=list(POSITIONS)[place],
            jitter=(float(rng.uniform(-1, 1)), float(rng.uniform(-1, 1))),
        )
        for place in places
    )
    phase = (float(rng.random()), float(rng.random()))
    return Scene(objects, str(rng.choice(list(BACKGROUNDS))), phase)


def _apart(one: int, other: int) -> bool:
    """Tell whether two small objects at these positions cannot touch."""
    a, b = list(POSITIONS.values())[one], list(POSITIONS.values())[other]
    return bool(np.hypot(a[0] - b[0], a[1] - b[1]) > 21)


def render(scene: Scene) -> Image:
    """Draw a scene, antialiased.

    Returns:
        RGB image, float32, shape ``(64, 64, 3)``, values in ``[0, 1]``.
    """
    image = BACKGROUNDS[scene.background](*scene.phase)
    for item in scene.objects:
        distance = _distance(item)
        # A soft shadow below lifts the shape off the ground, whatever their colours.
        shadow = 0.45 * np.clip(0.5 - (_distance(item, drop=1.6) - 1.0) / 3.0, 0, 1)
        image = image * (1 - shadow[..., None])
        alpha = np.clip(0.5 - distance, 0, 1)[..., None]
        image = image * (1 - alpha) + _fill(item, distance) * alpha
    return np.clip(image, 0, 1).astype(np.float32)


def object_mask(scene: Scene) -> Image:
    """Return how much of each pixel the objects cover, ``(64, 64)`` in ``[0, 1]``."""
    cover = np.zeros((SIZE, SIZE), dtype=np.float32)
    for item in scene.objects:
        cover = np.maximum(cover, np.clip(0.5 - _distance(item), 0, 1))
    return cover


def edge_map(scene: Scene) -> Image:
    """Return the objects' outlines, one to two pixels wide, ``(64, 64)`` in [0, 1]."""
    edges = np.zeros((SIZE, SIZE), dtype=np.float32)
    for item in scene.objects:
        edges = np.maximum(edges, np.clip(1.25 - np.abs(_distance(item)), 0, 1))
    return edges


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


def _distance(item: SceneObject, drop: float = 0.0) -> Image:
    cx, cy = POSITIONS[item.position]
    x, y = _X - cx - item.jitter[0], _Y - cy - item.jitter[1] - drop
    return SHAPES[item.shape](x, y, SIZES[item.size]).astype(np.float32)


def _fill(item: SceneObject, distance: Image) -> Image:
    colour = np.array(COLOURS[item.colour], np.float32) / 255
    cx, cy = POSITIONS[item.position]
    x, y = _X - cx - item.jitter[0], _Y - cy - item.jitter[1]
    # Light from above; the shading is a low frequency, the texture a high one.
    shade = (1.05 - 0.13 * (y / SIZES[item.size]))[..., None]
    if item.texture == "striped":
        wave = np.clip(1.6 * np.sin((x + y) * 2 * np.pi / 7.0), -1, 1)
    elif item.texture == "dotted":
        px, py = (x + 3) % 6 - 3, (y + 3) % 6 - 3
        wave = np.clip(2.2 - 1.3 * np.hypot(px, py), -1, 1)
    else:
        wave = np.full_like(x, -1.0)
    weight = (0.5 + 0.5 * wave)[..., None]
    fill = np.clip(colour * shade, 0, 1)
    return np.asarray(fill * (1 - 0.55 * weight), dtype=np.float32)


# --- language ------------------------------------------------------------------------

_WHERE = {
    name: ("in the centre", "in the middle")
    if name == "centre"
    else (f"at the {name}", f"in the {name}" if " " in name else f"on the {name} side")
    for name in POSITIONS
}


def describe(item: SceneObject) -> str:
    """Name an object: size, texture (unless plain), colour, shape."""
    words = [item.size, "" if item.texture == "plain" else item.texture]
    return " ".join(["a", *filter(None, words), item.colour, item.shape])


def caption(scene: Scene, seed: int) -> str:
    """Describe a scene in one of the grammar's phrasings.

    Args:
        scene: The scene.
        seed: Chooses the phrasing; the same scene and seed give the same caption.
    """
    rng = np.random.default_rng((seed, 1))
    ground = str(rng.choice(_GROUND_WORDS[scene.background]))
    things = [
        (describe(item), str(rng.choice(_WHERE[item.position])))
        for item in scene.objects
    ]
    phrasing = int(rng.integers(4))
    joined = " and ".join(f"{name} {where}" for name, where in things)
    if phrasing == 0:
        return f"{joined} of {ground}"
    if phrasing == 1:
        return f"{joined}, on {ground}"
    if phrasing == 2:
        return f"{ground} with {joined}"
    return "a picture of " + joined + f" with {ground} behind"


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


def captions(split: str, count: int, offset: int = 0) -> list[str]:
    """Return the captions of a split's scenes, one phrasing each."""
    return [
        caption(sample_scene(seed), seed) for seed in split_seeds(split, count, offset)
    ]


# --- edits ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Edit:
    """An exact edit: what to say, and the scene that doing so gives."""

    kind: str
    instruction: str
    scene: Scene


def _edit_object(attribute: str, phrase: str) -> Callable[[Scene, str], Edit]:
    def edit(scene: Scene, value: str) -> Edit:
        item = scene.objects[0]
        new = replace(item, **{attribute: value})  # type: ignore[arg-type]
        subject = f"the {item.colour} {item.shape}"
        return Edit(
            attribute,
            phrase.format(subject=subject, value=value),
            replace(scene, objects=(new, *scene.objects[1:])),
        )

    return edit


def _edit_background(scene: Scene, value: str) -> Edit:
    words = _GROUND_WORDS[value][0] if value in _GROUND_WORDS else value
    return Edit(
        "background",
        f"change the background to {words}",
        replace(scene, background=value),
    )


EDITS: dict[str, Callable[[Scene, str], Edit]] = {
    "recolour": _edit_object("colour", "make {subject} {value}"),
    "retexture": _edit_object("texture", "make {subject} {value}"),
    "reshape": _edit_object("shape", "turn {subject} into a {value}"),
    "resize": _edit_object("size", "make {subject} {value}"),
    "move": _edit_object("position", "move {subject} to the {value}"),
    "background": _edit_background,
}
"""Edit by name: ``(scene, new value) → Edit``; each changes the first object only."""

_EDIT_VALUES: dict[str, tuple[str, ...]] = {
    "recolour": tuple(COLOURS),
    "retexture": TEXTURES,
    "reshape": tuple(SHAPES),
    "resize": tuple(SIZES),
    "move": tuple(POSITIONS),
    "background": tuple(BACKGROUNDS),
}


def sample_edit(scene: Scene, seed: int, kind: str | None = None) -> Edit:
    """Draw an edit that changes the scene.

    Args:
        scene: The scene to edit.
        seed: Chooses the edit.
        kind: A key of `EDITS`; drawn too if left out.

    Raises:
        ValueError: If ``kind`` is not a key of `EDITS`.
    """
    rng = np.random.default_rng((seed, 2))
    kind = str(rng.choice(list(EDITS))) if kind is None else kind
    if kind not in EDITS:
        raise ValueError(f"edit {kind!r} is not one of {', '.join(EDITS)}")
    taken = {item.position for item in scene.objects}
    first = scene.objects[0]
    current = {
        "recolour": {first.colour},
        "retexture": {first.texture},
        "reshape": {first.shape},
        "resize": {first.size},
        "move": taken,
        "background": {scene.background},
    }[kind]
    values = [value for value in _EDIT_VALUES[kind] if value not in current]
    return EDITS[kind](scene, str(rng.choice(values)))
