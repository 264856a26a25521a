"""Draw the open world's kinds of objects: signed distances, some made of parts.

Every kind is a list of parts, drawn one over the other. A part is a signed distance in
pixels, negative inside, for a kind of radius r, and a tone: None for the object's own
colour, a factor for a lighter or darker one, or a colour of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.floating]
Distance = Callable[[Field, Field, float], Field]
Tone = float | tuple[int, int, int]

BROWN, CREAM, GOLD, LEAF = (
    (122, 84, 52),
    (244, 236, 214),
    (248, 206, 72),
    (64, 138, 70),
)


@dataclass(frozen=True)
class Part:
    """A part of an object.

    Attributes:
        distance: Its signed distance.
        tone: A factor of the object's colour, or a colour of its own.
        textured: Whether the object's texture covers it.
    """

    distance: Distance
    tone: Tone = 1.0
    textured: bool = True


def _disc(cx: float = 0.0, cy: float = 0.0, radius: float = 1.0) -> Distance:
    def distance(x: Field, y: Field, r: float) -> Field:
        return np.hypot(x - cx * r, y - cy * r) - radius * r

    return distance


def _ellipse(cx: float, cy: float, a: float, b: float) -> Distance:
    def distance(x: Field, y: Field, r: float) -> Field:
        u, v = (x - cx * r) / (a * r), (y - cy * r) / (b * r)
        length = np.hypot(u, v)
        # First order: exact on the outline, which is all that antialiasing looks at.
        slope = np.hypot(u / (a * r), v / (b * r)) + 1e-6
        return (length - 1) * length / slope

    return distance


def _box(cx: float, cy: float, a: float, b: float, corner: float = 0.0) -> Distance:
    def distance(x: Field, y: Field, r: float) -> Field:
        qx = np.abs(x - cx * r) - (a - corner) * r
        qy = np.abs(y - cy * r) - (b - corner) * r
        outside = np.hypot(np.maximum(qx, 0), np.maximum(qy, 0))
        return outside + np.minimum(np.maximum(qx, qy), 0) - corner * r

    return distance


def _polygon(points: Iterable[tuple[float, float]]) -> Distance:
    """Return the exact signed distance to a closed polygon given at radius 1."""
    corners = np.array(list(points))

    def distance(x: Field, y: Field, r: float) -> Field:
        best = np.full(x.shape, np.inf, dtype=np.float32)
        inside = np.zeros(x.shape, dtype=bool)
        for (ax, ay), (bx, by) in zip(
            corners * r, np.roll(corners, -1, axis=0) * r, strict=True
        ):
            ex, ey = bx - ax, by - ay
            wx, wy = x - ax, y - ay
            t = np.clip((wx * ex + wy * ey) / (ex * ex + ey * ey), 0, 1)
            best = np.minimum(best, np.hypot(wx - t * ex, wy - t * ey))
            crosses = ((ay <= y) & (by > y)) | ((by <= y) & (ay > y))
            inside ^= crosses & ((ex * wy - ey * wx > 0) == (by > ay))
        return np.where(inside, -best, best)

    return distance


def _ngon(radii: Iterable[float], lift: float = 0.0) -> list[tuple[float, float]]:
    radius = np.array(list(radii))
    angle = np.arange(len(radius)) * 2 * np.pi / len(radius)
    xs, ys = radius * np.sin(angle), -radius * np.cos(angle) + lift
    return [(float(x), float(y)) for x, y in zip(xs, ys, strict=True)]


def _ring(x: Field, y: Field, r: float) -> Field:
    return np.abs(np.hypot(x, y) - 0.7 * r) - 0.3 * r


def _union(*parts: Distance) -> Distance:
    def distance(x: Field, y: Field, r: float) -> Field:
        return np.minimum.reduce([part(x, y, r) for part in parts])

    return distance


def _cross(x: Field, y: Field, r: float) -> Field:
    arm = 0.34 * r
    ax, ay = np.abs(x), np.abs(y)
    long, short = np.maximum(ax, ay), np.minimum(ax, ay)
    qx, qy = long - r, short - arm
    outside = np.hypot(np.maximum(qx, 0), np.maximum(qy, 0))
    return outside + np.minimum(np.maximum(qx, qy), 0)


def _heart(x: Field, y: Field, r: float) -> Field:
    lobes = _union(_disc(-0.46, -0.34, 0.54), _disc(0.46, -0.34, 0.54))
    tip = _polygon([(-0.96, -0.1), (0.96, -0.1), (0.0, 1.02)])
    middle = _box(0, -0.2, 0.5, 0.3)
    return np.minimum(lobes(x, y, r), np.minimum(tip(x, y, r), middle(x, y, r)))


_FISH_TAIL = _polygon([(0.45, 0.0), (1.12, -0.58), (0.95, 0.0), (1.12, 0.58)])
_PETALS = _union(
    *(
        _disc(0.55 * float(np.sin(angle)), -0.55 * float(np.cos(angle)), 0.45)
        for angle in np.arange(5) * 2 * np.pi / 5
    )
)

KINDS: dict[str, tuple[Part, ...]] = {
    "circle": (Part(_disc()),),
    "square": (Part(_box(0, 0, 0.88, 0.88, 0.1)),),
    "triangle": (Part(_polygon(_ngon([1.18] * 3, lift=0.22))),),
    "star": (Part(_polygon(_ngon([1.16, 0.52] * 5, lift=0.06))),),
    "ring": (Part(_ring),),
    "cross": (Part(_cross),),
    "heart": (Part(_heart),),
    "house": (
        Part(_box(0, 0.42, 0.78, 0.58)),
        Part(_polygon([(-1.05, -0.1), (0.0, -1.0), (1.05, -0.1)]), 0.5, textured=False),
        Part(_box(0.0, 0.66, 0.2, 0.34), CREAM, textured=False),
    ),
    "tree": (
        Part(_box(0, 0.72, 0.15, 0.36), BROWN, textured=False),
        Part(
            _union(_disc(0, -0.42, 0.58), _disc(-0.42, 0.1, 0.5), _disc(0.42, 0.1, 0.5))
        ),
    ),
    "boat": (
        Part(_polygon([(0.05, -1.0), (0.05, 0.2), (0.86, 0.2)]), CREAM, textured=False),
        Part(_polygon([(-0.05, -0.75), (-0.05, 0.2), (-0.62, 0.2)]), CREAM, False),
        Part(_polygon([(-1.05, 0.3), (1.05, 0.3), (0.62, 0.92), (-0.62, 0.92)])),
    ),
    "fish": (
        Part(_FISH_TAIL, 0.72, textured=False),
        Part(_ellipse(-0.18, 0, 0.88, 0.6)),
        Part(_disc(-0.62, -0.14, 0.13), (24, 24, 32), textured=False),
    ),
    "flower": (
        Part(_PETALS),
        Part(_disc(0, 0, 0.3), GOLD, textured=False),
    ),
}
"""Kinds of objects: their parts from back to front."""

FACING = ("fish",)
"""Kinds that look another way when mirrored, as a judge can tell."""


def silhouette(kind: str, x: Field, y: Field, r: float) -> Field:
    """Return the signed distance to a whole object, in pixels, negative inside."""
    parts = [part.distance(x, y, r) for part in KINDS[kind]]
    return np.minimum.reduce(parts).astype(np.float32)
