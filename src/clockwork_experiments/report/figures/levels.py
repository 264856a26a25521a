"""Draw a UNet's levels, and what depth-skip keeps of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from clockwork_experiments.cost.formulas import kept_share
from clockwork_experiments.report.figures.pieces import (
    FAINT,
    INK,
    arrow,
    box,
    canvas,
    text,
)
from clockwork_experiments.report.figures.style import COLOURS
from clockwork_experiments.report.kinds import Given, Kind, Known, Needs
from clockwork_experiments.report.tables.levels import level_name, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KEPT, ZERO = COLOURS[0], COLOURS[1]
"""Colours of what is kept, and of the zeros."""

BAR = "#9DC6E3"
"""A tint of what is kept, for the shares of parameters."""

GONE = "#B4B4B4"
"""What is gone."""

ROW, GAP = 0.3, 0.13
"""Height of a level, and the space below it."""

WIDTH = 1.42
"""Width of a box."""

ZEROS = 0.98
"""Width of the box of the zeros."""

INDENT = 0.24
"""How much further in a resolution lies than the next higher one."""


@dataclass(frozen=True)
class LevelMapSpec(Kind):
    """A map of a UNet's levels.

    Attributes:
        translator: Id of the model.
        level: The level that is kept.
    """

    kind: ClassVar[str] = "level_map"
    translator: str
    level: int

    def needs(self, known: Known) -> Needs:
        """Return the counts of the model's levels."""
        known.entry("translators", self.translator)
        return {"levels": [f"{known.base}/levels/{self.translator}.json"]}

    def make(self, given: Given) -> Figure:
        """Draw it."""
        return draw_level_map(self, given.one("levels"))


def draw_level_map(spec: LevelMapSpec, counts: Mapping[str, Any]) -> Figure:
    """Draw the levels from the input down, the middle block at the bottom.

    Args:
        spec: The figure.
        counts: As `count_levels` writes them.

    Raises:
        ValueError: If there is no such level.
    """
    from matplotlib.patches import Rectangle

    levels = counts["levels"]
    if not 1 <= spec.level <= len(levels):
        raise ValueError(f"level {spec.level} is not one of 1 to {len(levels)}")
    whole = sum(entry["parameters"] for entry in levels)
    largest = max(entry["parameters"] for entry in levels)
    sizes = sorted({entry["resolution"] for entry in levels}, reverse=True)
    left, middle = 1.35, 0.8
    inner = INDENT * (len(sizes) - 1)
    right = left + 2 * (WIDTH + inner) + middle
    bars = right + 0.15 + ZEROS + 0.2
    foot = 0.46
    tall = len(levels) * (ROW + GAP)
    figure, axes = canvas(bars + 2.0, foot + tall + 0.68, spec.title)
    top = foot + tall

    def y_of(index: int) -> float:
        """Return the lower edge of a level."""
        return top - (index + 1) * (ROW + GAP) + GAP

    header = top + 0.2
    for x, label in (
        (0.38, "level"),
        (0.95, "latents"),
        (left + WIDTH / 2, "encoder"),
        (right - WIDTH / 2, "decoder"),
        (bars + 0.7, "parameters"),
    ):
        text(axes, x, header, label, weight="bold")
    middle_of = (left + right) / 2
    text(axes, middle_of, header, "skip, channels", weight="bold")
    for index, entry in enumerate(levels):
        y, kept = y_of(index), entry["level"] <= spec.level
        ink = INK if kept else FAINT
        centre = y + ROW / 2
        name = level_name(entry["level"])
        text(axes, 0.38, centre, name, weight="bold" if kept else "normal", colour=ink)
        size = entry["resolution"]
        if not index or size != levels[index - 1]["resolution"]:
            text(axes, 0.95, centre, f"{size} × {size}", colour=ink)
            if index:
                line = y + ROW + GAP / 2
                axes.plot((0.1, bars + 1.9), (line, line), color="#E2E2E2", lw=0.8)
        indent = INDENT * sizes.index(size)
        down, up = left + indent, right - indent - WIDTH
        if entry["encoder"]:
            _block(axes, down, y, short(entry["encoder"]), kept)
            _block(axes, up, y, short(entry["decoder"]), kept)
            colour, style = (INK, "-") if kept else (GONE, (0, (2, 2)))
            start, end = (down + WIDTH, centre), (up, centre)
            arrow(axes, start, end, colour=colour, width=0.8, head=5, style=style)
            channels = str(entry["skip_channels"])
            text(axes, middle_of, centre, channels, colour=ink, back="white", size=7)
        else:
            _block(axes, middle_of - WIDTH / 2, y, "middle block", kept)
        share = entry["parameters"] / largest
        face, edge = (BAR, KEPT) if kept else ("white", GONE)
        dash = "-" if kept else "--"
        axes.add_patch(
            Rectangle((bars, y), 1.35 * share, ROW, fc=face, ec=edge, lw=0.8, ls=dash)
        )
        percent = f"{100 * entry['parameters'] / whole:.1f} %"
        text(axes, bars + 1.35 * share + 0.06, centre, percent, ha="left", colour=ink)
    if spec.level < len(levels):
        deepest, y = levels[spec.level - 1], y_of(spec.level - 1)
        _cut(axes, deepest, y, sizes, right, bars + 1.9)
    _foot(axes, spec, counts)
    return figure


def _block(axes: Axes, x: float, y: float, label: str, kept: bool) -> None:
    """Draw a level's encoder or decoder."""
    from matplotlib.patches import Rectangle

    if kept:
        box(axes, x, y, WIDTH, ROW, label, face=KEPT, ink="white", size=7.5)
        return
    axes.add_patch(Rectangle((x, y), WIDTH, ROW, fc="white", ec=GONE, lw=0.9, ls="--"))
    text(axes, x + WIDTH / 2, y + ROW / 2, label, colour=FAINT)


def _cut(
    axes: Axes,
    deepest: Mapping[str, Any],
    y: float,
    sizes: list[int],
    right: float,
    end: float,
) -> None:
    """Draw the cut below the deepest level that is kept, and the zeros."""
    line, size = y - GAP / 2, deepest["resolution"]
    axes.plot((0.1, end), (line, line), color=ZERO, lw=1.6, zorder=4)
    label = f"zeros\n{deepest['zero_channels']} × {size} × {size}"
    x = right + 0.15
    box(axes, x, y, ZEROS, ROW, label, face="white", edge=ZERO, ink=ZERO)
    into = right - INDENT * sizes.index(size)
    arrow(axes, (x, y + ROW / 2), (into, y + ROW / 2), colour=ZERO, width=1.6, head=8)


def _foot(axes: Axes, spec: LevelMapSpec, counts: Mapping[str, Any]) -> None:
    share = min(1.0, kept_share(counts, spec.level))
    call, full = (
        counts["levels"][level - 1]["count"]["macs_with_norms"]
        for level in (spec.level, len(counts["levels"]))
    )
    note = (
        f"Kept at {level_name(spec.level)}: {100 * share:.1f} % of the parameters, "
        f"{100 * call / full:.1f} % of the MACs of a call. "
        "Filled: kept. Dashed: gone, the middle block with it."
    )
    text(axes, 0.1, 0.2, note, ha="left", size=7.5)
