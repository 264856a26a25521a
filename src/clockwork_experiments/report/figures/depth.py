"""Draw quality against level, with the thresholds and the level that they choose."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from clockwork_experiments.report.figures.style import COLOURS, new_figure
from clockwork_experiments.report.kinds import Given, Kind, Known, Needs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVE, LIMIT, CHOSEN = COLOURS[0], COLOURS[1], COLOURS[2]
"""Colours of what is measured, of thresholds, and of the level that is chosen."""


@dataclass(frozen=True)
class DepthPanel:
    """One metric of one search.

    Attributes:
        search: Id of the search.
        metric: Name of the metric.
        label: What the reader sees at the axis.
        heading: What stands above.
        published: The level that the paper chose; 0 if it did not.
    """

    search: str
    metric: str
    label: str
    heading: str
    published: int = 0


@dataclass(frozen=True)
class DepthCurvesSpec(Kind):
    """Quality against level, a panel per search and metric.

    Attributes:
        panels: The panels, from left to right, then from top to bottom.
        columns: Panels in a row.
    """

    kind: ClassVar[str] = "depth_curves"
    panels: tuple[DepthPanel, ...]
    columns: int

    def __post_init__(self) -> None:
        """Reject figures without a panel."""
        if not self.panels or not 1 <= self.columns <= len(self.panels):
            raise ValueError(
                f"columns {self.columns} is not one of 1 to {len(self.panels)}, the "
                "number of panels"
            )

    def needs(self, known: Known) -> Needs:
        """Return the searches of its panels."""
        names = dict.fromkeys(panel.search for panel in self.panels)
        return {"searches": [f"{known.base}/depth/{name}.json" for name in names]}

    def make(self, given: Given) -> Figure:
        """Draw it."""
        return draw_depth_curves(self, given.each("searches"))


def draw_depth_curves(
    spec: DepthCurvesSpec, searches: Mapping[str, Mapping[str, Any]]
) -> Figure:
    """Draw the scans of searches, from the whole UNet at the left upwards.

    Args:
        spec: The figure.
        searches: By id, as `search_depth` writes them.

    Raises:
        ValueError: If a search or one of its metrics does not exist.
    """
    from matplotlib.lines import Line2D

    wide, tall, left, right, bottom, over = 2.9, 1.7, 0.62, 0.14, 0.52, 0.3
    rows = math.ceil(len(spec.panels) / spec.columns)
    head = 0.5
    width = spec.columns * (left + wide + right)
    height = head + rows * (over + tall + bottom)
    figure = new_figure(figsize=(width, height))
    y = 1 - 0.1 / height
    figure.text(0.1 / width, y, spec.title, va="top", weight="bold", size=9)
    figure.legend(
        handles=[
            Line2D([], [], color=CURVE, marker="o", ms=4, label="measured, 95 %"),
            Line2D([], [], color=LIMIT, ls="--", label="threshold"),
            Line2D([], [], color=CHOSEN, lw=5, alpha=0.35, label="chosen"),
            Line2D(
                [], [], color="#222222", marker="v", ls="", ms=5, label="the paper's"
            ),
        ],
        loc="upper right",
        bbox_to_anchor=(1 - 0.1 / width, 1 - 0.22 / height),
        ncols=4,
        frameon=False,
        borderaxespad=0,
        fontsize=7,
        handlelength=1.8,
    )
    for index, panel in enumerate(spec.panels):
        if panel.search not in searches:
            known = ", ".join(searches) or "none"
            raise ValueError(f"search {panel.search!r} is not one of those: {known}")
        row, column = divmod(index, spec.columns)
        x = column * (left + wide + right) + left
        base = height - head - (row + 1) * (over + tall + bottom) + bottom
        axes = figure.add_axes((x / width, base / height, wide / width, tall / height))
        _draw_panel(axes, panel, searches[panel.search])
    return figure


def _draw_panel(axes: Axes, panel: DepthPanel, found: Mapping[str, Any]) -> None:
    scan, name = found["scan"], panel.metric
    if name not in scan[0]["metrics"]:
        known = ", ".join(scan[0]["metrics"])
        raise ValueError(
            f"search {panel.search!r}: metric {name!r} is not one of {known}"
        )
    places = {entry["level"]: place for place, entry in enumerate(scan)}
    # To the whole UNet's image: its own is the same, and off the scale.
    drawn = [e for e in scan if not (name == "psnr_to_teacher" and e is scan[0])]
    x = [places[entry["level"]] for entry in drawn]
    values = [entry["metrics"][name] for entry in drawn]
    scores = [entry["scores"].get(name) for entry in drawn]
    axes.axvspan(
        places[found["chosen"]] - 0.4,
        places[found["chosen"]] + 0.4,
        color=CHOSEN,
        alpha=0.25,
        lw=0,
    )
    if all(score is not None for score in scores):
        low, high = ([score[end] for score in scores] for end in ("low", "high"))
        axes.fill_between(x, low, high, color=CURVE, alpha=0.18, lw=0)
    axes.plot(x, values, color=CURVE, marker="o", ms=4, lw=1.4)
    if name in found["limits"]:
        axes.axhline(found["limits"][name], color=LIMIT, ls="--", lw=1.2)
    axes.set_xlim(-0.6, len(scan) - 0.4)
    if panel.published:
        axes.plot(
            [places[panel.published]],
            [0.96],
            transform=axes.get_xaxis_transform(),
            marker="v",
            color="#222222",
            ms=5,
            ls="",
        )
    axes.set_xticks(
        range(len(scan)),
        [f"{e['level']}\n{_percent(e['parameters'])}" for e in scan],
        fontsize=6,
    )
    axes.set_xlabel("deepest level kept; parameters kept, %", fontsize=7)
    axes.set_ylabel(panel.label, fontsize=7.5)
    axes.tick_params(axis="y", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#E6E6E6", lw=0.6)
    axes.set_axisbelow(True)
    axes.set_title(panel.heading, fontsize=8, loc="left", weight="bold")


def _percent(value: float) -> str:
    return f"{value:.0f}" if value >= 2 else f"{value:.1f}"
