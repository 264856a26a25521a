"""Pieces that schematics are made of, laid out in inches on one canvas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clockwork_experiments.report.figures.style import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, PANEL = "#222222", "#666666", "#ECECEC"


def canvas(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    """Return a figure and axes in inches that fill it."""
    figure = new_figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.set_axis_off()
    text(axes, 0.1, height - 0.1, title, weight="bold", size=9, ha="left", va="top")
    return figure, axes


def box(
    axes: Axes,
    x: float,
    y: float,
    width: float,
    height: float,
    label: str,
    *,
    face: Any,
    edge: Any = None,
    ink: str = INK,
    size: float = 7,
    square: bool = False,
) -> None:
    """Draw a box with a label that must fit in it."""
    from matplotlib.patches import FancyBboxPatch, Rectangle

    edge = face if edge is None else edge
    kind = {"facecolor": face, "edgecolor": edge, "linewidth": 1.0}
    if square:
        axes.add_patch(Rectangle((x, y), width, height, **kind))
    else:
        round_ = "round,pad=0,rounding_size=0.04"
        axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=round_, **kind))
    if label:
        text(axes, x + width / 2, y + height / 2, label, colour=ink, size=size)


def text(
    axes: Axes,
    x: float,
    y: float,
    label: str,
    *,
    colour: str = INK,
    size: float = 7.5,
    ha: str = "center",
    va: str = "center",
    weight: str = "normal",
    back: str | None = None,
) -> None:
    """Write text at a point."""
    behind = (
        None if back is None else {"facecolor": back, "edgecolor": back, "pad": 1.5}
    )
    axes.text(
        x, y, label, color=colour, size=size, ha=ha, va=va, weight=weight, bbox=behind
    )


def arrow(
    axes: Axes,
    *points: tuple[float, float],
    colour: str = INK,
    width: float = 1.0,
    head: float = 6,
    style: Any = "-",
) -> None:
    """Draw a line through points that ends in an arrowhead."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    axes.add_patch(
        FancyArrowPatch(
            path=Path(points),
            arrowstyle="-|>",
            mutation_scale=head,
            color=colour,
            linewidth=width,
            linestyle=style,
            shrinkA=0,
            shrinkB=0,
            joinstyle="miter",
        )
    )
