"""Draw what Plug-and-Play keeps of a source, and what it could keep (Figure S8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from clockwork_experiments.report.figures.pieces import (
    FAINT,
    INK,
    PANEL,
    arrow,
    box,
    canvas,
    text,
)
from clockwork_experiments.report.figures.style import COLOURS
from clockwork_experiments.report.kinds import Given, Kind

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EDITED, CONV, ATTENTION, KEPT = COLOURS[0], COLOURS[1], COLOURS[2], "#D6EAF6"
"""Colours of the rows that are edited, of both kinds of features, and of latents."""

SOURCE = "#B8B8B8"

PILL = 0.17
"""Height of a row of a batch, in inches."""


@dataclass(frozen=True)
class PnpCachingSpec(Kind):
    """The schematic of Plug-and-Play's caches.

    Attributes:
        steps: Steps of the example, of inversion and of generation.
        tau_f: Share of the steps that take the source's features after a convolution.
        tau_a: Share of the steps that take its queries and keys.
    """

    kind: ClassVar[str] = "pnp_caching"
    steps: int = 10
    tau_f: float = 0.8
    tau_a: float = 0.5

    def __post_init__(self) -> None:
        """Reject examples that cannot be drawn."""
        if not 4 <= self.steps <= 12:
            raise ValueError(f"steps {self.steps} is not 4 to 12")
        for name, share in (("tau_f", self.tau_f), ("tau_a", self.tau_a)):
            if not 1 <= int(share * self.steps) <= self.steps:
                raise ValueError(
                    f"{name} {share} of {self.steps} steps is not 1 to {self.steps}"
                )

    @property
    def conv_steps(self) -> int:
        """Return how many steps, from the first, take features."""
        return int(self.tau_f * self.steps)

    @property
    def attention_steps(self) -> int:
        """Return how many steps, from the first, take queries and keys."""
        return int(self.tau_a * self.steps)

    @property
    def injected_steps(self) -> int:
        """Return how many steps, from the first, need the source at all."""
        return max(self.conv_steps, self.attention_steps)

    def make(self, given: Given) -> Figure:
        """Draw it."""
        return draw_pnp_caching(self)


def draw_pnp_caching(spec: PnpCachingSpec) -> Figure:
    """Draw Plug-and-Play as it is, and below it both ways to spare it work."""
    figure, axes = canvas(7.2, 5.34, spec.title)
    box(axes, 0.1, 1.96, 7.0, 3.0, "", face="white", edge="#BBBBBB")
    _published(axes, spec)
    for left, draw in ((0.1, _activations), (3.65, _dropped)):
        box(axes, left, 0.1, 3.45, 1.74, "", face=PANEL, edge=PANEL)
        draw(axes, spec, left)
    return figure


# --- as published -----------------------------------------------------------------


def _published(axes: Axes, spec: PnpCachingSpec) -> None:
    """Draw inversion, the latents that it leaves, and generation, step below step."""
    steps = spec.steps
    first, last = 1.5, 6.3
    pitch = (last - first) / steps
    x = [first + index * pitch for index in range(steps + 1)]
    half = min(0.16, 0.34 * pitch)
    frame = half + 0.04
    inversion, store, rows = 4.66, 4.13, (3.58, 3.21, 2.84)
    text(axes, 0.2, inversion, "Inversion", weight="bold", ha="left")
    _picture(axes, x[0], inversion, "source", INK)
    for index in range(1, steps + 1):
        place = (x[index] - half, inversion - 0.14, 2 * half, 0.28)
        box(axes, *place, f"$x_{{{index}}}$", face="white", edge=INK, size=8)
        start = x[index - 1] + (half if index > 1 else PICTURE)
        arrow(axes, (start, inversion), (x[index] - half, inversion), head=5)
    text(axes, last + half + 0.1, inversion, "batch 1", ha="left", colour=FAINT)

    text(axes, 0.2, store, "Kept: latents", weight="bold", ha="left")
    band = (x[1] - frame, store - 0.14, last - x[1] + 2 * frame, 0.28)
    box(axes, *band, "", face=KEPT)
    for index in range(1, steps + 1):
        text(axes, x[index], store, f"$x_{{{index}}}$", size=8)
        arrow(axes, (x[index], inversion - 0.14), (x[index], store + 0.14), head=5)

    middle = (rows[1] + rows[2]) / 2
    text(axes, 0.2, rows[1], "Generation", weight="bold", ha="left")
    text(axes, 0.2, rows[1] - 0.16, "batch 3", ha="left", colour=FAINT, size=7)
    for index in range(1, steps + 1):
        step = steps - index  # of generation, from 0
        low, high = rows[2] - PILL / 2 - 0.06, rows[0] + PILL / 2 + 0.06
        outline = (x[index] - frame, low, 2 * frame, high - low)
        box(axes, *outline, "", face="#F7F7F7", edge="#BBBBBB")
        _batch(axes, spec, x[index], half, rows, step)
        ends = (x[index], store - 0.14), (x[index], rows[0] + PILL / 2)
        arrow(axes, *ends, head=5)
        stop = x[index - 1] + (frame if index > 1 else PICTURE)
        arrow(axes, (x[index] - frame, middle), (stop, middle), head=5)
    _names(axes, last + frame + 0.07, rows)
    _picture(axes, x[0], middle, "edit", EDITED)

    text(axes, 0.2, 2.37, "Injected", weight="bold", ha="left")
    text(axes, 0.2, 2.21, "from the source's row", ha="left", colour=FAINT, size=7)
    bars = (
        (2.38, CONV, "features after a convolution", spec.conv_steps),
        (2.15, ATTENTION, "queries and keys", spec.attention_steps),
    )
    for y, colour, what, count in bars:
        start, stop = x[steps - count + 1] - frame, last + frame
        share = f"first {100 * count / steps:.0f} % of the steps"
        box(axes, start, y - 0.09, stop - start, 0.18, "", face=colour)
        label = f"{what}: {share}"
        if 0.052 * len(label) < stop - start:
            text(axes, (start + stop) / 2, y, label, colour="white", size=7)
        else:
            text(axes, start - 0.07, y, label, colour=colour, size=7, ha="right")


def _batch(
    axes: Axes,
    spec: PnpCachingSpec,
    x: float,
    half: float,
    rows: Sequence[float],
    step: int,
    *,
    source: bool = True,
    width: float = 1.4,
) -> None:
    """Draw a step's rows of a batch, and what the first gives to the others."""
    for y, face in zip(rows, (SOURCE, "white", EDITED), strict=True):
        if source or y != rows[0]:
            edge = EDITED if face == "white" else face
            box(axes, x - half, y - PILL / 2, 2 * half, PILL, "", face=face, edge=edge)
    for shift, colour, taken in _taken(spec, half, step):
        for above, below in zip(rows[:-1], rows[1:], strict=True):
            if taken:
                ends = (x + shift, above - PILL / 2), (x + shift, below + PILL / 2)
                arrow(axes, *ends, colour=colour, width=width, head=5)


def _taken(
    spec: PnpCachingSpec, half: float, step: int
) -> tuple[tuple[float, str, bool], ...]:
    """Return both kinds of features: where, in which colour, and whether it is used."""
    return (
        (-0.45 * half, CONV, step < spec.conv_steps),
        (0.45 * half, ATTENTION, step < spec.attention_steps),
    )


def _names(axes: Axes, x: float, rows: Sequence[float], first: str = "source") -> None:
    for y, name in zip(rows, (first, "negative", "target"), strict=True):
        text(axes, x, y, name, size=7, ha="left", colour=FAINT)


PICTURE = 0.19
"""Half the width of a picture, in inches."""


def _picture(axes: Axes, x: float, y: float, label: str, colour: str) -> None:
    """Draw an image: hills and a sun."""
    from matplotlib.patches import Circle, Polygon

    half = PICTURE
    box(axes, x - half, y - half, 2 * half, 2 * half, "", face="white", edge=colour)
    hills = ((-0.85, -0.7), (-0.3, 0.3), (0.05, -0.2), (0.4, 0.1), (0.85, -0.7))
    corners = [(x + half * dx, y + half * dy) for dx, dy in hills]
    axes.add_patch(Polygon(corners, facecolor=colour, linewidth=0))
    sun = (x + 0.45 * half, y + 0.5 * half)
    axes.add_patch(Circle(sun, 0.17 * half, facecolor=colour, linewidth=0))
    text(axes, x - half - 0.05, y, label, ha="right", size=7, colour=FAINT)


# --- what could be kept, and left out ---------------------------------------------


def _activations(axes: Axes, spec: PnpCachingSpec, left: float) -> None:
    """Draw generation from kept activations."""
    from matplotlib.patches import Circle

    x, half, rows = _columns(spec, left)
    _heading(axes, left, "1   Keep activations, not latents")
    kept = x[spec.steps - spec.injected_steps :]
    ends = kept[0] - half - 0.04, kept[-1] + half + 0.04
    box(axes, ends[0], rows[0] - PILL / 2, ends[1] - ends[0], PILL, "", face=KEPT)
    for index, place in enumerate(x):
        step = spec.steps - 1 - index
        for shift, colour, taken in _taken(spec, half, step):
            if taken:
                dot = (place + shift, rows[0])
                axes.add_patch(Circle(dot, 0.035, facecolor=colour, linewidth=0))
        _batch(axes, spec, place, half, rows, step, source=False, width=1.1)
        text(axes, place, BATCH, "2", size=7)
    _names(axes, x[-1] + half + 0.12, rows, "kept once")
    text(axes, x[-1] + half + 0.12, BATCH, "batch", size=7, ha="left", colour=FAINT)
    rows_before, rows_after = 3 * spec.steps, 2 * spec.steps
    note = (
        f"{rows_after} rows through the UNet instead of {rows_before}, and "
        f"{spec.injected_steps} passes\nof the source, "
        "which all its target prompts share"
    )
    _note(axes, left, note)


def _dropped(axes: Axes, spec: PnpCachingSpec, left: float) -> None:
    """Draw generation that ends without the source."""
    x, half, rows = _columns(spec, left)
    _heading(axes, left, "2   Drop the source once nothing is injected")
    for index, place in enumerate(x):
        step = spec.steps - 1 - index
        source = step < spec.injected_steps
        _batch(axes, spec, place, half, rows, step, source=source, width=1.1)
        text(axes, place, BATCH, "3" if source else "2", size=7)
    _names(axes, x[-1] + half + 0.12, rows)
    text(axes, x[-1] + half + 0.12, BATCH, "batch", size=7, ha="left", colour=FAINT)
    rows_before = 3 * spec.steps
    rows_after = 2 * spec.steps + spec.injected_steps
    note = (
        f"{rows_after} rows through the UNet instead of {rows_before};\n"
        "the image stays the same"
    )
    _note(axes, left, note)


BATCH = 0.59
"""Where the size of each step's batch is written, in inches."""


def _columns(
    spec: PnpCachingSpec, left: float
) -> tuple[list[float], float, tuple[float, float, float]]:
    """Return the centre of each column, half its width, and where its rows lie."""
    pitch = 2.45 / spec.steps
    x = [left + 0.12 + (index + 0.5) * pitch for index in range(spec.steps)]
    return x, min(0.09, 0.36 * pitch), (1.42, 1.11, 0.8)


def _heading(axes: Axes, left: float, label: str) -> None:
    text(axes, left + 0.1, 1.7, label, weight="bold", ha="left")


def _note(axes: Axes, left: float, label: str) -> None:
    text(axes, left + 0.1, 0.3, label, ha="left", size=7, colour=FAINT)
