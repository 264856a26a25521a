"""Draw the benchmark: distance against FLOPs and time; masks as sums predict them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from clockwork_experiments.benchmark.comparison import (
    Row,
    front,
    joint,
    row_with,
    share,
)
from clockwork_experiments.report.figures.style import COLOURS, MARKERS, new_figure
from clockwork_experiments.report.kinds import Given, Kind, Known, Needs
from clockwork_experiments.report.tables.benchmark import Compared, ShownMethod

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FAMILIES = (
    "plain, its own time steps",
    "plain, chosen time steps",
    "reuse, nothing trained",
    "reuse, fitted or trained",
    "attention, tokens or depth",
    "reuse and time steps",
    "joint plan",
)
LOOKS = dict(
    zip(
        FAMILIES,
        zip((*COLOURS, "#000000"), (*MARKERS, "*"), strict=True),
        strict=True,
    )
)
NAMED = 9
"""Most methods of the front that are named beside their marker."""


def family(row: Row) -> str:
    """Return what a method is drawn as."""
    if joint(row):
        return FAMILIES[6]
    if row.axes == ("time steps",):
        return FAMILIES[1] if row.chosen else FAMILIES[0]
    if "time steps" in row.axes:
        return FAMILIES[5]
    if row.axes == ("reuse",):
        return FAMILIES[3] if row.trained else FAMILIES[2]
    return FAMILIES[4]


@dataclass(frozen=True)
class BenchmarkParetoSpec(Kind):
    """Quality against cost of every method, and their front.

    Attributes:
        task: The task.
        methods: The methods.
        plain: The method that costs refer to.
        budgets: Shares of its FLOPs; not drawn.
        timed: Whether timings are shown.
    """

    kind: ClassVar[str] = "benchmark_pareto"
    task: str
    methods: tuple[ShownMethod, ...]
    plain: str
    budgets: tuple[float, ...] = ()
    timed: bool = True

    def needs(self, known: Known) -> Needs:
        """Return the measurements and timings of all methods."""
        return self._table.needs(known)

    @property
    def _table(self) -> Compared:
        return Compared(
            **{
                name: getattr(self, name)
                for name in ("title", "caption", "task", "methods")
            },
            plain=self.plain,
            budgets=self.budgets,
            timed=self.timed,
        )

    def make(self, given: Given) -> Figure:
        """Draw it."""
        rows = self._table.rows(given)
        return draw_pareto(rows, row_with(rows, self.plain), self.title)


def draw_pareto(rows: Sequence[Row], plain: Row, title: str) -> Figure:
    """Draw the quality of all methods against FLOPs, and against time if known."""
    timed = all(row.ratio is not None for row in rows)
    figure = new_figure(figsize=(9.6 if timed else 5.4, 4.6))
    panels = figure.subplots(1, 2 if timed else 1, squeeze=False)[0]
    best = front(rows)
    for axes, by_time in zip(panels, (False, True), strict=False):
        _draw_methods(axes, rows, plain, best, by_time)
    panels[0].set_ylabel("PSNR to the image of many steps, dB")
    figure.suptitle(title, size=10, weight="bold", x=0.01, ha="left")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="lower center", ncols=4, frameon=False, fontsize=7.5
    )
    figure.subplots_adjust(
        left=0.07 if timed else 0.12, right=0.98, top=0.9, bottom=0.23, wspace=0.12
    )
    return figure


def _draw_methods(
    axes: Axes, rows: Sequence[Row], plain: Row, best: Sequence[Row], by_time: bool
) -> None:
    def cost(row: Row) -> float:
        if by_time:
            assert row.ratio is not None
            return 100 * row.ratio.value
        return 100 * share(row, plain)

    for name in FAMILIES:
        members = [row for row in rows if family(row) == name]
        if not members:
            continue
        colour, marker = LOOKS[name]
        for row in members:
            mean = row.mean()
            assert mean is not None
            axes.plot(
                [cost(row)] * 2, [mean.low, mean.high], color=colour, lw=0.6, alpha=0.5
            )
        axes.plot(
            [cost(row) for row in members],
            [row.quality for row in members],
            ls="",
            color=colour,
            marker=marker,
            ms=7 if marker == "*" else 4.5,
            label=name,
        )
    if not by_time:
        axes.plot(
            [cost(row) for row in best],
            [row.quality for row in best],
            color="#555555",
            lw=1,
            drawstyle="steps-post",
            zorder=1,
            label="front",
        )
        axes.margins(x=0.1)
        for row in _spread(best):
            first = row is best[0]
            axes.annotate(
                row.label,
                (cost(row), row.quality),
                xytext=(-4, 5),
                textcoords="offset points",
                size=6,
                ha="left" if first else "right",
            )
    what = "time" if by_time else "FLOPs"
    axes.set_xlabel(f"{what}, % of {plain.label}")
    axes.grid(color="#EBEBEB", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _spread(best: Sequence[Row]) -> list[Row]:
    """Return so many of the front, evenly, its ends among them."""
    if len(best) <= NAMED:
        return list(best)
    step = (len(best) - 1) / (NAMED - 1)
    return [best[round(index * step)] for index in range(NAMED)]


@dataclass(frozen=True)
class BenchmarkMasksSpec(Kind):
    """What every mask costs against what sums predict, a panel per predictor.

    Attributes:
        task: The task.
        predictors: The predictors.
        steps: The number of steps.
    """

    kind: ClassVar[str] = "benchmark_mask_sums"
    task: str
    predictors: tuple[str, ...] = field(default=())
    steps: int = 8

    def needs(self, known: Known) -> Needs:
        """Return every predictor's masks."""
        folder = f"{known.base}/benchmark/{self.task}/masks"
        return {"masks": [f"{folder}/{name}.json" for name in self.predictors]}

    def make(self, given: Given) -> Figure:
        """Draw it."""
        found = given.each("masks")
        count = len(self.predictors)
        figure = new_figure(figsize=(0.6 + 2.3 * count, 2.9))
        panels = figure.subplots(1, count, squeeze=False, sharey=True)[0]
        for axes, name in zip(panels, self.predictors, strict=True):
            _draw_masks(axes, name, found[name])
        panels[0].set_ylabel("measured squared distance")
        panels[0].legend(frameon=False, fontsize=6.5, loc="upper left")
        figure.suptitle(self.title, size=9, weight="bold", x=0.01, ha="left")
        left = 0.55 / (0.6 + 2.3 * count)
        figure.subplots_adjust(left=left, right=0.98, top=0.82, bottom=0.17)
        return figure


def _draw_masks(axes: Axes, name: str, found: dict[str, Any]) -> None:
    masks = [mask for mask in found["errors"] if "0" in mask]
    measured = [found["errors"][mask] for mask in masks]
    for index, by in enumerate(("steps", "spans")):
        sums = [found["predicted"][by][mask] for mask in masks]
        r2 = found["sums"][by]["prediction"]["r2"]
        axes.plot(
            sums,
            measured,
            ls="",
            marker=MARKERS[index],
            ms=2.5,
            color=COLOURS[index],
            alpha=0.7,
            label=f"sums of {by}",
        )
        axes.text(
            0.97,
            0.05 + 0.09 * index,
            f"{by}: R² {r2:.2f}",
            transform=axes.transAxes,
            ha="right",
            size=6.5,
            color=COLOURS[index],
        )
    low, high = min(measured), max(measured)
    axes.plot([low, high], [low, high], color="#999999", lw=0.8, zorder=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_title(name, size=8)
    axes.set_xlabel("predicted", size=7.5)
