"""Draw quality against cost of a clock, depth-skip and time steps, and their front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from clockwork_experiments.report.figures.style import COLOURS, new_figure
from clockwork_experiments.report.kinds import Given, Kind, Known, Needs
from clockwork_experiments.report.tables.joint import (
    PSNR,
    SCORES,
    UNIFORM,
    UNITS,
    JointModel,
    Point,
    combined_needs,
    combined_settings,
    front,
    model_points,
)
from clockwork_experiments.report.tables.table import Results, results_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

PLAIN, OTHERS = "#333333", (COLOURS[0], COLOURS[2], COLOURS[1], COLOURS[3], COLOURS[4])
"""Colours of the plain sampler, and of one combination after the other."""

FRONT = "#FBE28A"

WIDE, TALL = 3.0, 2.5
"""Inches of a panel."""


@dataclass(frozen=True)
class JointParetoSpec(Kind):
    """Quality against cost; a row per model, a panel per score and cost.

    Attributes:
        models: The models, from top to bottom.
        unit: A key of `clockwork_experiments.report.tables.joint.UNITS`.
        method: The method whose steps are drawn beside the uniform ones.
    """

    kind: ClassVar[str] = "joint_pareto"
    models: tuple[JointModel, ...]
    unit: str = "GFLOPs"
    method: str = "bracketed"

    def __post_init__(self) -> None:
        """Reject more combinations than colours."""
        if not self.models or not all(model.scores for model in self.models):
            raise ValueError("the figure needs a model at least, and a score of each")
        if len(self.labels) > 1 + len(OTHERS):
            raise ValueError(
                f"{len(self.labels)} combinations are more than the "
                f"{1 + len(OTHERS)} colours"
            )

    @property
    def labels(self) -> list[str]:
        """What is combined, in order of appearance; of one colour in all rows."""
        return list(
            dict.fromkeys(
                combination.label
                for model in self.models
                for combination in model.combinations
            )
        )

    def needs(self, known: Known) -> Needs:
        """Return searches, counts and timings of what is combined."""
        return combined_needs(known, self.models)

    def run_settings(self, known: Known) -> dict[str, dict[str, Any]]:
        """Return what decides the cost of each search."""
        return combined_settings(known, self.models)

    def make(self, given: Given) -> Figure:
        """Draw it."""
        return draw_joint_pareto(self, results_of(given))


def draw_joint_pareto(spec: JointParetoSpec, found: Results) -> Figure:
    """Draw the scores of all combinations against FLOPs, and latency where it is timed.

    Args:
        spec: The figure.
        found: All that is known of the models.

    Raises:
        ValueError: As `clockwork_experiments.report.tables.joint.model_points`.
    """
    shown = [model_points(model, found, spec.method) for model in spec.models]
    timed = any(point.ms is not None for points in shown for point in points)
    costs = ("flops", "ms") if timed else ("flops",)
    left, right, bottom, over, head = 0.66, 0.1, 0.5, 0.3, 0.62
    columns = 2 * len(costs)
    width = columns * (left + WIDE + right)
    height = head + len(shown) * (over + TALL + bottom)
    figure = new_figure(figsize=(width, height))
    figure.text(
        0.1 / width, 1 - 0.1 / height, spec.title, va="top", weight="bold", size=11
    )
    figure.legend(
        handles=_handles(spec),
        loc="upper left",
        bbox_to_anchor=(0.1 / width, 1 - 0.32 / height),
        ncols=len(spec.labels) + 3,
        frameon=False,
        borderaxespad=0,
        borderpad=0,
        fontsize=8.5,
        handlelength=2.4,
        columnspacing=1.8,
    )
    for row, (model, points) in enumerate(zip(spec.models, shown, strict=True)):
        base = height - head - (row + 1) * (over + TALL + bottom) + bottom
        panels = [(score, cost) for score in (PSNR, model.scores[0]) for cost in costs]
        for column, (score, cost) in enumerate(panels):
            x = column * (left + WIDE + right) + left
            axes = figure.add_axes(
                (x / width, base / height, WIDE / width, TALL / height)
            )
            _draw_panel(axes, spec, model, points, score, cost)
            if column == 0:
                y = (base + TALL + 0.1) / height
                figure.text(x / width, y, model.label, weight="bold", size=9.5)
    return figure


def _draw_panel(
    axes: Axes,
    spec: JointParetoSpec,
    model: JointModel,
    points: Sequence[Point],
    score: str,
    cost: str,
) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    factor = UNITS[spec.unit] if cost == "flops" else 1.0

    def place(some: Sequence[Point]) -> tuple[list[float], list[float]]:
        known = [(each.cost(cost), each.scores[score].value) for each in some]
        drawn = [(factor * x, y) for x, y in known if x is not None]
        return [x for x, _ in drawn], [y for _, y in drawn]

    best = front(points, cost, score)
    x, y = place(best)
    axes.plot(x, y, **_FRONT)
    for combination in model.combinations:
        for method in (UNIFORM, spec.method):
            some = [
                point
                for point in points
                if (point.combination, point.method) == (combination, method)
            ]
            look = _look(spec, combination.label, method == UNIFORM)
            x, y = place(sorted(some, key=lambda each: each.steps))
            axes.plot(x, y, **look)
            ink = look["color"] if method == UNIFORM else "white"
            for point in some:
                for at in zip(*place([point]), strict=True):
                    axes.annotate(str(point.steps), at, color=ink, size=5.2, **_CENTRED)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.margins(x=0.07, y=0.09)
    axes.set_xlabel(
        f"{spec.unit} per image" if cost == "flops" else "ms per image", size=8.5
    )
    axes.set_ylabel(SCORES[score].name, size=8.5, labelpad=3)
    axes.tick_params(labelsize=7.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#EBEBEB", linewidth=0.6)
    axes.set_axisbelow(True)


_CENTRED: dict[str, Any] = {
    "ha": "center",
    "va": "center_baseline",
    "weight": "bold",
    "zorder": 4,
}
_FRONT: dict[str, Any] = {
    "color": FRONT,
    "drawstyle": "steps-post",
    "linewidth": 2.2,
    "marker": "o",
    "markersize": 14,
    "markeredgewidth": 0,
    "zorder": 1.5,
}


def _look(spec: JointParetoSpec, label: str, uniform: bool) -> dict[str, Any]:
    """Return how a line looks: what is combined by colour, hollow if uniform."""
    colour = (PLAIN, *OTHERS)[spec.labels.index(label)]
    return {
        "color": colour,
        "linestyle": (0, (3, 1.6)) if uniform else "-",
        "linewidth": 0.9 if uniform else 1.5,
        "marker": "o",
        "markersize": 8.4,
        "markeredgewidth": 1.0,
        "markerfacecolor": "white" if uniform else colour,
        "zorder": 2 if uniform else 3,
    }


def _handles(spec: JointParetoSpec) -> list[Line2D]:
    """Return the legend's entries: colours, then shapes, then the front."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            label=label,
            **{**_look(spec, label, False), "marker": "", "linewidth": 3},
        )
        for label in spec.labels
    ]
    grey = {"color": "#777777"}
    for uniform in (True, False):
        look = {**_look(spec, spec.labels[0], uniform), **grey}
        look["markerfacecolor"] = "white" if uniform else "#777777"
        label = "n uniform steps" if uniform else "n steps by our search for γ"
        handles.append(Line2D([], [], label=label, **look))
    return [*handles, Line2D([], [], label="Pareto front", **_FRONT)]
