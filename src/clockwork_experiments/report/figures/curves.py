"""Draw scores against FLOPs (Figures 4, 6, 7 and S9)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from clockwork_experiments.base import storage
from clockwork_experiments.cost.formulas import run_flops
from clockwork_experiments.report.figures.style import COLOURS, MARKERS, new_figure
from clockwork_experiments.report.kinds import Given, Kind, Known, Needs
from clockwork_experiments.score.names import SCORES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.transforms import Bbox

STYLES: dict[str, tuple[Any, str]] = {
    "baseline": ("-", "full"),
    "clockwork": ((0, (4, 1.6)), "none"),
    "comparison": ((0, (1.2, 1.2)), "left"),
}
"""Line style, and which part of a marker is filled, by style of a series."""


@dataclass(frozen=True)
class Panel:
    """One set of axes.

    Attributes:
        score: A key of `clockwork_experiments.score.names.SCORES`; of edited runs
            after the set, ``<edit_set>/<score>``.
        label: What the reader sees, if not the score's own name.
        heading: What stands above it, such as the data that it is about.
    """

    score: str
    label: str = ""
    heading: str = ""

    def __post_init__(self) -> None:
        """Reject unknown scores."""
        name = self.score.rpartition("/")[2]
        if name not in SCORES:
            raise ValueError(f"score {name!r} is not one of {', '.join(SCORES)}")

    @property
    def y_label(self) -> str:
        """Label, and which way is better."""
        score = SCORES[self.score.rpartition("/")[2]]
        better = {1: " (higher is better)", -1: " (lower is better)", 0: ""}
        return (self.label or score.prose or score.label) + better[score.sign]


@dataclass(frozen=True)
class CurvePoint:
    """A point of a curve.

    Attributes:
        run: Id of the run.
        label: What is written beside it, such as the number of steps.
    """

    run: str
    label: str = ""


@dataclass(frozen=True)
class Series:
    """A curve.

    Attributes:
        label: What the reader sees.
        group: Series of one group, such as a backbone, share colour and marker.
        style: A key of `STYLES`.
        points: The points, in the order that the line visits them.
    """

    label: str
    group: str
    style: str
    points: tuple[CurvePoint, ...]

    def __post_init__(self) -> None:
        """Reject unknown styles and empty curves."""
        if self.style not in STYLES:
            raise ValueError(f"style {self.style!r} is not one of {', '.join(STYLES)}")
        if not self.points:
            raise ValueError(f"series {self.label!r} has no points")


@dataclass(frozen=True)
class CurvesSpec(Kind):
    """Scores against cost, a panel per score.

    Attributes:
        x_label: What the horizontal axes show, with its unit.
        panels: The panels, from left to right, then from top to bottom.
        series: The curves, which all panels share.
        note: What the labels at the points mean; below the heading.
        paired: Show the interval of the paired difference to a run's teacher instead
            of the score's own, which holds what all runs share: their prompts.
        columns: Panels in a row; 0 puts all of them in one.
        log_x: Whether the horizontal axes are logarithmic.
    """

    kind: ClassVar[str] = "curves"
    x_label: str
    panels: tuple[Panel, ...]
    series: tuple[Series, ...]
    note: str = ""
    paired: bool = False
    columns: int = 0
    log_x: bool = False

    def __post_init__(self) -> None:
        """Reject figures that are empty or whose series look alike."""
        if not self.panels or not self.series:
            raise ValueError("curves need a panel and a series at least")
        if not 0 <= self.columns <= len(self.panels):
            raise ValueError(
                f"columns {self.columns} is not 0 (all) or 1 to the "
                f"{len(self.panels)} panels"
            )
        groups = self.groups()
        if len(groups) > len(COLOURS):
            raise ValueError(
                f"{len(groups)} groups are more than the {len(COLOURS)} colours"
            )
        looks = [(series.group, series.style) for series in self.series]
        for look in looks:
            if looks.count(look) > 1:
                raise ValueError(
                    f"group {look[0]!r} has more than one series of style {look[1]!r}"
                )

    def groups(self) -> list[str]:
        """Return the groups in order of appearance."""
        return list(dict.fromkeys(series.group for series in self.series))

    @property
    def width(self) -> int:
        """Return how many panels stand side by side."""
        return self.columns or len(self.panels)

    @property
    def shown(self) -> list[str]:
        """Return the runs, once each."""
        points = [point for series in self.series for point in series.points]
        return list(dict.fromkeys(point.run for point in points))

    def needs(self, known: Known) -> Needs:
        """Return the counts and the scores of the runs."""
        models = dict.fromkeys(known.run(name)["model"] for name in self.shown)
        return {
            "flops": [f"{known.base}/flops/{model}.json" for model in models],
            "scores": known.scores(self.scored),
        }

    @property
    def scored(self) -> list[str]:
        """Return the runs by the names that they are scored by."""
        return self.shown

    def run_settings(self, known: Known) -> dict[str, dict[str, Any]]:
        """Return what decides the runs' FLOPs."""
        return {name: known.run(name) for name in self.shown}

    def scores(self, given: Given) -> dict[str, dict[str, Any]]:
        """Return the scores by run and key."""
        return {name: each["scores"] for name, each in given.each("scores").items()}

    def make(self, given: Given) -> Figure:
        """Draw it."""
        counts = given.each("flops")
        scale = {"TFLOPs": 1e-12, "GFLOPs": 1e-9}
        (unit,) = [unit for unit in scale if unit in self.x_label]
        cost = {
            name: scale[unit] * run_flops(run, counts[run["model"]], "flops")
            for name, run in given.runs.items()
        }
        scores = self.scores(given)
        if self.paired:
            scores = {run: paired_intervals(of) for run, of in scores.items()}
        return draw_curves(self, cost, scores)


@dataclass(frozen=True)
class EditCurvesSpec(CurvesSpec):
    """Scores of edited runs against cost; panels show scores ``<set>/<key>``."""

    kind: ClassVar[str] = "edit_curves"

    @property
    def scored(self) -> list[str]:
        """Return the runs of each set whose scores are shown."""
        sets = dict.fromkeys(panel.score.partition("/")[0] for panel in self.panels)
        return [f"{of}/{name}" for of in sets for name in self.shown]

    def scores(self, given: Given) -> dict[str, dict[str, Any]]:
        """Return the scores by run ``<edit>/<setting>``, and by set and key."""
        scores: dict[str, dict[str, Any]] = {}
        for path in given.paths("scores"):
            for edit, scored in storage.read_json(path)["edits"].items():
                of_run = scores.setdefault(f"{edit}/{path.stem}", {})
                for key, score in scored.items():
                    of_run[f"{path.parent.name}/{key}"] = score
        return scores


def draw_curves(
    spec: CurvesSpec,
    cost: Mapping[str, float],
    scores: Mapping[str, Mapping[str, Mapping[str, float | None]]],
) -> Figure:
    """Draw scores against cost.

    Args:
        spec: What to show.
        cost: Horizontal position by run.
        scores: Scores by run and key, each with ``value`` and, where there is an
            interval, ``low`` and ``high``.

    Raises:
        ValueError: If a run lacks its cost or a score, or a value lies outside its
            interval.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    panel_width, panel_height, left, right, bottom = 2.7, 2.1, 0.62, 0.12, 0.46
    heading = 0.2 if any(panel.heading for panel in spec.panels) else 0.0
    between = 0.34 + heading
    rows = math.ceil(len(spec.panels) / spec.width)
    columns, in_legend = _legend(spec)
    legend = 0.17 * math.ceil(len(in_legend) / columns)
    head = 0.36 + heading + legend + (0.16 if spec.note else 0.0)
    width = spec.width * (left + panel_width + right)
    height = bottom + rows * panel_height + (rows - 1) * between + head
    figure = new_figure(figsize=(width, height))
    canvas = FigureCanvasAgg(figure)
    top = 1 - 0.1 / height
    figure.text(0.1 / width, top, spec.title, va="top", weight="bold", size=9)
    if spec.note:
        top -= 0.19 / height
        figure.text(0.1 / width, top, spec.note, va="top", size=7, color="#666666")
    drawn = []
    for index, panel in enumerate(spec.panels):
        row, column = divmod(index, spec.width)
        start = column * (left + panel_width + right) + left
        base = height - head - (row + 1) * panel_height - row * between
        axes = figure.add_axes(
            (start / width, base / height, panel_width / width, panel_height / height)
        )
        drawn.append((axes, _draw_panel(axes, spec, panel, cost, scores)))
        if index + spec.width < len(spec.panels):
            axes.set_xlabel("")
        if panel.heading:
            above = (base + panel_height + 0.05) / height
            figure.text(start / width, above, panel.heading, weight="bold", size=8)
    figure.legend(
        handles=[_handle(spec, series) for series in in_legend],
        loc="lower left",
        bbox_to_anchor=(left / width, 1 - (head - heading - 0.03) / height),
        borderaxespad=0,
        borderpad=0.2,
        ncols=columns,
        frameon=False,
        fontsize=7,
        handlelength=3,
        columnspacing=1.6,
        labelspacing=0.35,
    )
    canvas.draw()
    for axes, points in drawn:
        label_points(axes, points, canvas)
    return figure


@dataclass(frozen=True)
class Shown:
    """A point as drawn."""

    x: float
    y: float
    low: float
    high: float
    label: str
    colour: str
    series: int


def _draw_panel(
    axes: Axes,
    spec: CurvesSpec,
    panel: Panel,
    cost: Mapping[str, float],
    scores: Mapping[str, Mapping[str, Mapping[str, float | None]]],
) -> list[Shown]:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    shown: list[Shown] = []
    for index, series in enumerate(spec.series):
        look = _look(spec, series)
        points = []
        for point in series.points:
            if point.run not in cost:
                raise ValueError(f"run {point.run!r} has no cost")
            score = scores.get(point.run, {}).get(panel.score)
            if score is None or score.get("value") is None:
                raise ValueError(f"run {point.run!r} has no score {panel.score!r}")
            value, low, high = _interval(point.run, score)
            points.append(
                Shown(
                    cost[point.run], value, low, high, point.label, look["color"], index
                )
            )
        x, y = [p.x for p in points], [p.y for p in points]
        errors = np.array([[p.y - p.low, p.high - p.y] for p in points]).T
        axes.errorbar(
            x,
            y,
            yerr=errors if errors.any() else None,
            elinewidth=0.8,
            capsize=CAP,
            **look,
        )
        shown += points
    axes.set_xlabel(spec.x_label)
    axes.set_ylabel(panel.y_label, labelpad=3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#E6E6E6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=7)
    axes.margins(x=0.08, y=0.12)
    if spec.log_x:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    return shown


def _interval(
    run: str, score: Mapping[str, float | None]
) -> tuple[float, float, float]:
    value = score["value"]
    assert value is not None
    low, high = score.get("low"), score.get("high")
    low, high = value if low is None else low, value if high is None else high
    if not low <= value <= high:
        raise ValueError(
            f"run {run!r}: value {value} is outside its interval [{low}, {high}]"
        )
    return value, low, high


def _look(spec: CurvesSpec, series: Series) -> dict[str, Any]:
    """Return how a series' line looks: colour and marker by group, rest by style."""
    group = spec.groups().index(series.group)
    line, filled = STYLES[series.style]
    return {
        "color": COLOURS[group],
        "linestyle": line,
        "linewidth": 1.3,
        "marker": MARKERS[group],
        "markersize": 5,
        "markeredgewidth": 1.1,
        # A white face rather than none, lest the line show through.
        "fillstyle": "full" if filled == "none" else filled,
        "markerfacecolor": "white" if filled == "none" else COLOURS[group],
        "markerfacecoloralt": "white",
    }


def _handle(spec: CurvesSpec, series: Series) -> Line2D:
    from matplotlib.lines import Line2D

    return Line2D([], [], label=series.label, **_look(spec, series))


def _legend(spec: CurvesSpec) -> tuple[int, list[Series]]:
    """Return the legend's columns and its entries, which run down the columns.

    Groups of equal size are columns, or rows where the columns would be too many.
    """
    groups = [[s for s in spec.series if s.group == g] for g in spec.groups()]
    most = 2 if spec.width == 1 else 4
    sizes = {len(group) for group in groups}
    if len(sizes) > 1:
        return min(most, len(spec.series)), list(spec.series)
    entries = [series for group in groups for series in group]
    if len(groups) <= most:
        return len(groups), entries
    if sizes == {1}:
        return math.ceil(len(entries) / math.ceil(len(entries) / most)), entries
    return sizes.pop(), [s for row in zip(*groups, strict=True) for s in row]


def paired_intervals(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's scores with the intervals of their differences to the teacher's.

    A distance to the teacher is paired as it is. Any other score without such a
    difference keeps its value alone.

    Args:
        scores: By key, ``value``, ``low`` and ``high``, as `score_images` writes them;
            differences under ``<key>_minus_teacher``.
    """
    paired = {}
    for key, score in scores.items():
        if key.endswith("_to_teacher"):
            paired[key] = score
            continue
        shift = {"low": 0.0, "high": 0.0}
        difference = scores.get(f"{key}_minus_teacher")
        if difference is not None:
            shift = {end: difference[end] - difference["value"] for end in shift}
        ends = {end: score["value"] + shift[end] for end in shift}
        paired[key] = {**score, **ends}
    return paired


# --- labels at points -------------------------------------------------------------

CAP = 2.0
"""Points from an error bar to either end of its caps."""

DISTANCES = (6.0, 9.0, 12.0, 16.0, 21.0, 27.0)
"""Points between a marker and its label, the nearest first."""

ANGLES = tuple(math.radians(angle) for angle in (60, 120, 300, 240, 90, 270, 0, 180))
"""Where a label may lie around its marker, the best first."""

FURTHER = tuple(
    itertools.product((12.0, 16.0, 20.0, 24.0), map(math.radians, range(15, 375, 15)))
)
"""More such places, where none of the others is free."""

OVERLAP = 100.0
"""Cost of a label that covers another or a marker."""


def label_points(axes: Axes, points: Sequence[Shown], canvas: FigureCanvasAgg) -> None:
    """Write each label where it covers nothing, as near to its point as it can."""
    renderer = canvas.get_renderer()
    unit = canvas.figure.dpi / 72
    at = [axes.transData.transform((p.x, p.y)) for p in points]
    taken = [_around(x, y, 7 * unit, 7 * unit) for x, y in at]
    strokes = _strokes(axes, points, at, unit)
    frame = axes.get_window_extent(renderer)
    for point, (x, y) in zip(points, at, strict=True):
        if not point.label:
            continue
        text = axes.annotate(
            point.label,
            (point.x, point.y),
            (0, 0),
            textcoords="offset points",
            color=point.colour,
            size=7,
            ha="center",
            va="center",
        )
        extent = text.get_window_extent(renderer)
        best: tuple[float, tuple[float, float], Bbox] | None = None
        near = len(DISTANCES) * len(ANGLES)
        places = (*itertools.product(DISTANCES, ANGLES), *FURTHER)
        for tried, (distance, angle) in enumerate(places):
            if tried == near and best is not None and best[0] < OVERLAP:
                break
            shift = (
                math.cos(angle) * (distance + extent.width / unit / 2 - 2),
                math.sin(angle) * distance,
            )
            box = _around(
                x + shift[0] * unit,
                y + shift[1] * unit,
                extent.width + 2 * unit,
                extent.height + unit,
            )
            cost = distance / 10 + _clashes(box, taken, strokes, frame)
            if best is None or cost < best[0]:
                best = (cost, shift, box)
        assert best is not None
        text.set_position(best[1])
        taken.append(best[2])


def _strokes(
    axes: Axes, points: Sequence[Shown], at: Sequence[Any], unit: float
) -> np.ndarray:
    """Return the curves' segments and the error bars as pixels, ``(N, 33, 2)``."""
    cap = np.array([CAP * unit, 0.0])
    strokes = []
    for (first, start), (second, end) in itertools.pairwise(
        zip(points, at, strict=True)
    ):
        if first.series == second.series:
            strokes.append((start, end))
    for point in points:
        if point.low < point.high:
            bar = [(point.x, point.low), (point.x, point.high)]
            ends = axes.transData.transform(bar)
            strokes += [tuple(ends), *((end - cap, end + cap) for end in ends)]
    if not strokes:
        return np.empty((0, 33, 2))
    starts, ends = np.array(strokes).swapaxes(0, 1)
    return np.linspace(starts, ends, 33, axis=1)


def _clashes(
    box: Bbox, taken: Sequence[Bbox], strokes: np.ndarray, frame: Bbox
) -> float:
    """Return how badly a label would lie: text and markers first, then lines."""
    cost = OVERLAP * sum(box.overlaps(other) for other in taken)
    inside = frame.x0 <= box.x0 and box.x1 <= frame.x1
    inside = inside and frame.y0 <= box.y0 and box.y1 <= frame.y1
    cost += 0.0 if inside else 1000.0
    covers = np.all((strokes >= box.min) & (strokes <= box.max), axis=2)
    return float(cost + 10.0 * covers.any(axis=1).sum())


def _around(x: float, y: float, width: float, height: float) -> Bbox:
    from matplotlib.transforms import Bbox

    return Bbox.from_bounds(x - width / 2, y - height / 2, width, height)
