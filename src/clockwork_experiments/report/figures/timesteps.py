"""Draw time steps, and what searches for them found (Figures S2 and S3).

Searches are those of `search_steps`. Where a figure compares methods, an interval is
that of the paired difference to even steps, which therefore have none: what all methods
share, their pairs, is not in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from clockwork_diffusion.timesteps import LAST, gamma_timesteps
from clockwork_experiments.report.figures.curves import Shown, label_points
from clockwork_experiments.report.figures.pieces import FAINT, INK, canvas, text
from clockwork_experiments.report.figures.style import COLOURS, new_figure
from clockwork_experiments.report.kinds import Given, Kind, Known, Needs
from clockwork_experiments.report.tables.timesteps import METHODS
from clockwork_experiments.score.names import SCORES
from clockwork_experiments.search.answers import Found, answer_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

EVEN = "#666666"
"""Colour of evenly spaced steps."""

NOISE, DETAIL = COLOURS[0], COLOURS[1]
"""Colours of γ < 1 and of γ > 1."""


@dataclass(frozen=True)
class Look:
    """How a method is drawn.

    Attributes:
        label: What the reader sees.
        colour: Its colour.
        marker: Its marker.
        line: Its line style.
    """

    label: str
    colour: str
    marker: str
    line: Any = "-"


LOOKS: dict[str, Look] = {
    "uniform": Look("uniform", EVEN, "o", (0, (4, 1.6))),
    "greedy": Look("optimised, greedy", COLOURS[0], "s"),
    "bracketed": Look("optimised, bracketed (ours)", COLOURS[2], "^"),
    "ending": Look("end and γ apart (ours)", COLOURS[4], "P"),
    "evolution_frechet": Look("AutoDiffusion, Fréchet", COLOURS[3], "D"),
    "evolution_psnr": Look("AutoDiffusion, PSNR", COLOURS[1], "v"),
}
"""By method."""

CLIP_SCORES = ("clip_image", "clip_direction")
"""What Figure S2 shows, across and up."""


def searched(known: Known, *names: str) -> Needs:
    """Return the results of searches; none where only published steps are shown."""
    some = dict.fromkeys(name for name in names if name)
    files = [f"{known.base}/timesteps/{name}.json" for name in some]
    return {"searches": files} if files else {}


def _check_methods(methods: Sequence[str]) -> None:
    """Refuse methods that there are not, and none at all."""
    if not methods:
        raise ValueError("a figure of methods needs one at least")
    for name in methods:
        if name not in METHODS:
            raise ValueError(f"method {name!r} is not one of {', '.join(METHODS)}")


def _check_columns(columns: int, panels: int) -> None:
    """Refuse figures without a panel."""
    if not 1 <= columns <= panels:
        raise ValueError(
            f"columns {columns} is not one of 1 to {panels}, the number of panels"
        )


# --- the plane of two scores (Figure S2) ---------------------------------------------


@dataclass(frozen=True)
class StepPlaneSpec(Kind):
    """CLIP_I against CLIP_D, a line per method, a point per number of steps.

    Numbers of steps are those that all methods have.

    Attributes:
        search: Id of the search.
        methods: The methods, keys of `LOOKS`; the first is what others are compared to.
    """

    kind: ClassVar[str] = "step_plane"
    search: str
    methods: tuple[str, ...]

    def __post_init__(self) -> None:
        """Reject unknown methods."""
        _check_methods(self.methods)

    def needs(self, known: Known) -> Needs:
        """Return the searches that it shows."""
        return searched(known, self.search)

    def make(self, given: Given) -> Figure:
        """Draw it."""
        return draw_plane(self, given.each("searches"))


def draw_plane(spec: StepPlaneSpec, searches: Mapping[str, Found]) -> Figure:
    """Draw held-out CLIP_I against CLIP_D.

    Args:
        spec: The figure.
        searches: By id.

    Raises:
        ValueError: If the search, a method or a score does not exist.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.ticker import MaxNLocator

    figure, axes = _single(spec.title, 4.6, 3.3, 0.62)
    shown: list[Shown] = []
    shared = set.intersection(
        *(set(steps_of(searches, spec.search, method)) for method in spec.methods)
    )
    for index, method in enumerate(spec.methods):
        look = LOOKS[method]
        points = []
        for steps in sorted(shared):
            answer = answer_of(searches, spec.search, steps, method)
            across, up = (_interval(answer, score) for score in CLIP_SCORES)
            for start, end in (
                ((across[1], up[0]), (across[2], up[0])),
                ((across[0], up[1]), (across[0], up[2])),
            ):
                axes.plot(*zip(start, end, strict=True), color=look.colour, lw=0.8)
            points.append(
                Shown(across[0], up[0], up[1], up[2], str(steps), look.colour, index)
            )
        axes.plot(
            [p.x for p in points],
            [p.y for p in points],
            color=look.colour,
            marker=look.marker,
            ls=look.line,
            ms=5.5,
            lw=1.4,
            label=look.label,
            zorder=3,
        )
        shown += points
    found = searches[spec.search]
    reference = found["references"]["heldout"]["scores"]
    x, y = (reference[score]["value"] for score in CLIP_SCORES)
    label = f"reference, {found['reference']} uniform steps"
    axes.plot(
        [x], [y], marker="*", ms=13, ls="", color=COLOURS[5], mec=INK, label=label
    )
    likeness, direction = (SCORES[name].label for name in CLIP_SCORES)
    axes.set_xlabel(f"{likeness}: like the input (higher is better)")
    axes.set_ylabel(f"{direction}: as told (higher is better)")
    axes.margins(0.1)
    _tidy(axes)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    figure.legend(
        loc="upper left",
        bbox_to_anchor=(0.1 / 4.6, 1 - 0.28 / 3.3),
        ncols=2,
        frameon=False,
        borderaxespad=0,
        borderpad=0,
        fontsize=7.5,
        handlelength=2.4,
    )
    drawing = FigureCanvasAgg(figure)
    drawing.draw()
    label_points(axes, shown, drawing)
    return figure


def _single(
    title: str, width: float, height: float, head: float
) -> tuple[Figure, Axes]:
    """Return a figure with one set of axes, in inches."""
    figure = new_figure(figsize=(width, height))
    y = 1 - 0.1 / height
    figure.text(0.1 / width, y, title, va="top", weight="bold", size=9)
    left, right, bottom = 0.68, 0.12, 0.48
    axes = figure.add_axes(
        (
            left / width,
            bottom / height,
            (width - left - right) / width,
            (height - bottom - head) / height,
        )
    )
    return figure, axes


def steps_of(searches: Mapping[str, Found], search: str, method: str) -> list[int]:
    """Return the numbers of steps that a method has in a search, fewest first.

    Raises:
        ValueError: If there is no such search.
    """
    if search not in searches:
        known = ", ".join(searches) or "none"
        raise ValueError(f"search {search!r} is not one of those: {known}")
    answers = searches[search]["searches"]
    return sorted(each["steps"] for each in answers if each["method"] == method)


def _interval(answer: Mapping[str, Any], score: str) -> tuple[float, float, float]:
    """Return a held-out score, and the ends of its difference to even steps."""
    heldout = answer["heldout"]
    if score not in heldout["scores"]:
        known = ", ".join(heldout["scores"])
        raise ValueError(f"score {score!r} is not one of {known}")
    value = heldout["scores"][score]["value"]
    difference = heldout.get("minus_uniform", {}).get(score)
    if difference is None:
        return value, value, value
    low, high = (value + difference[e] - difference["value"] for e in ("low", "high"))
    return value, low, high


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#E6E6E6", lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=7)


# --- time steps as ticks (Figure S3) -------------------------------------------------


@dataclass(frozen=True)
class StepGroup:
    """The time steps of a task, published or found.

    Attributes:
        label: What the reader sees.
        steps: Numbers of steps.
        gammas: Published γ, one per number of steps.
        search: Instead, id of the search.
        method: And which method's γ.
    """

    label: str
    steps: tuple[int, ...]
    gammas: tuple[float, ...] = ()
    search: str = ""
    method: str = ""

    def __post_init__(self) -> None:
        """Reject groups that have γ of two sources, of none, or too few."""
        if bool(self.gammas) == bool(self.search):
            raise ValueError(f"{self.label!r} needs either gammas or a search")
        if bool(self.search) != bool(self.method):
            raise ValueError(f"{self.label!r}: a search and a method need each other")
        if self.method:
            _check_methods((self.method,))
        if self.gammas and len(self.gammas) != len(self.steps):
            raise ValueError(
                f"{self.label!r}: {len(self.gammas)} gammas for {len(self.steps)} "
                "numbers of steps"
            )


@dataclass(frozen=True)
class StepTicksSpec(Kind):
    """Even and optimised time steps from noise to image, a column per task.

    Attributes:
        groups: The columns.
    """

    kind: ClassVar[str] = "step_ticks"
    groups: tuple[StepGroup, ...]

    def __post_init__(self) -> None:
        """Reject figures without a column."""
        if not self.groups:
            raise ValueError("a figure of time steps needs a group at least")

    def needs(self, known: Known) -> Needs:
        """Return the searches that it shows."""
        return searched(known, *[group.search for group in self.groups])

    def make(self, given: Given) -> Figure:
        """Draw it."""
        return draw_ticks(self, given.each("searches"))


COLUMN, MARGIN, ROW = 2.35, 0.12, 0.62
"""Inches: width of a column, between columns, height of a row."""


def draw_ticks(spec: StepTicksSpec, searches: Mapping[str, Found]) -> Figure:
    """Draw time steps: even ones above, optimised ones below, joined one by one.

    Args:
        spec: The figure.
        searches: By id; none for published γ.

    Raises:
        ValueError: If a search or an answer does not exist, or has no γ.
    """
    rows = max(len(group.steps) for group in spec.groups)
    width = len(spec.groups) * (COLUMN + 2 * MARGIN) + 2 * MARGIN
    height = 0.78 + rows * ROW + 0.42
    figure, axes = canvas(width, height, spec.title)
    x = 2 * MARGIN
    entries = [(EVEN, "uniform")]
    sides = set()
    for index, group in enumerate(spec.groups):
        left = 2 * MARGIN + index * (COLUMN + 2 * MARGIN)
        top = height - 0.7
        text(axes, left, top, group.label, weight="bold", size=8.5, ha="left")
        for row, steps in enumerate(group.steps):
            gamma, timesteps = _sequence(group, row, searches)
            if gamma != 1:
                sides.add(gamma < 1)
            y = top - 0.14 - row * ROW
            _draw_row(axes, left, y, steps, gamma, timesteps)
        foot = top - 0.14 - len(group.steps) * ROW - 0.02
        axes.plot((left, left + COLUMN), (foot, foot), color=INK, lw=0.8)
        for at in (LAST, 750, 500, 250, 0):
            place = left + _across(at)
            axes.plot((place, place), (foot, foot - 0.04), color=INK, lw=0.8)
            text(axes, place, foot - 0.11, str(at), size=6.5)
        text(axes, left, foot - 0.25, "noise", size=7, ha="left", colour=FAINT)
        text(
            axes, left + COLUMN, foot - 0.25, "image", size=7, ha="right", colour=FAINT
        )
        text(axes, left + COLUMN / 2, foot - 0.25, "timestep", size=7, colour=FAINT)
    if True in sides:
        entries.append((NOISE, "optimised, γ < 1: more steps on noise"))
    if False in sides:
        entries.append((DETAIL, "optimised, γ > 1: more steps on detail"))
    for colour, label in entries:
        axes.plot((x, x), (height - 0.5, height - 0.36), color=colour, lw=2)
        text(axes, x + 0.07, height - 0.43, label, ha="left", size=7.5, colour=colour)
        x += 0.07 + 0.055 * len(label) + 0.25
    return figure


def _across(timestep: float) -> float:
    """Return a timestep's place in a column, noise at the left."""
    return COLUMN * (1 - timestep / LAST)


def _sequence(
    group: StepGroup, row: int, searches: Mapping[str, Found]
) -> tuple[float, tuple[int, ...]]:
    """Return γ and its time steps."""
    steps = group.steps[row]
    if group.gammas:
        gamma = group.gammas[row]
        return gamma, gamma_timesteps(steps, gamma)
    answer = answer_of(searches, group.search, steps, group.method)
    if answer["gamma"] is None:
        raise ValueError(f"method {group.method!r} finds time steps without a γ")
    return answer["gamma"], tuple(answer["timesteps"])


def _draw_row(
    axes: Axes,
    left: float,
    y: float,
    steps: int,
    gamma: float,
    timesteps: Sequence[int],
) -> None:
    """Draw one number of steps, ``y`` being the row's upper end."""
    colour = EVEN if gamma == 1 else NOISE if gamma < 1 else DETAIL
    text(axes, left, y - 0.09, f"{steps} steps", size=7.5, ha="left")
    label = f"γ = 1/{1 / gamma:.2f}" if gamma < 1 else f"γ = {gamma:.2f}"
    text(axes, left + COLUMN, y - 0.09, label, size=7.5, ha="right", colour=colour)
    upper, lower = (y - 0.19, y - 0.30), (y - 0.42, y - 0.55)
    for even, chosen in zip(gamma_timesteps(steps, 1.0), timesteps, strict=True):
        above, below = left + _across(even), left + _across(chosen)
        axes.plot((above, above), upper, color=EVEN, lw=1.3)
        axes.plot((above, below), (upper[1], lower[0]), color="#BBBBBB", lw=0.6)
        axes.plot((below, below), lower, color=colour, lw=1.8)


# --- quality against the number of steps ---------------------------------------------


@dataclass(frozen=True)
class StepPanel:
    """One search.

    Attributes:
        search: Id of the search.
        heading: What stands above.
    """

    search: str
    heading: str


@dataclass(frozen=True)
class StepCurvesSpec(Kind):
    """PSNR to the reference against the number of steps, a panel per search.

    Attributes:
        panels: The panels, from left to right, then from top to bottom.
        methods: The methods, keys of `LOOKS`; in a panel, those that it has.
        columns: Panels in a row.
    """

    kind: ClassVar[str] = "step_curves"
    panels: tuple[StepPanel, ...]
    methods: tuple[str, ...]
    columns: int

    def __post_init__(self) -> None:
        """Reject figures without a panel, and unknown methods."""
        _check_columns(self.columns, len(self.panels))
        _check_methods(self.methods)

    def needs(self, known: Known) -> Needs:
        """Return the searches that it shows."""
        return searched(known, *[panel.search for panel in self.panels])

    def make(self, given: Given) -> Figure:
        """Draw it."""
        return draw_curves(self, given.each("searches"))


def draw_curves(spec: StepCurvesSpec, searches: Mapping[str, Found]) -> Figure:
    """Draw held-out PSNR to what many even steps make of the same noise.

    Args:
        spec: The figure.
        searches: By id.

    Raises:
        ValueError: If a search does not exist.
    """
    from matplotlib.ticker import MaxNLocator

    figure, panels = _panels(
        spec.title, len(spec.panels), spec.columns, spec.methods, strip=0.85
    )
    for panel, (axes, strip) in zip(spec.panels, panels, strict=True):
        numbers: set[int] = set()
        others = [name for name in spec.methods if name != "uniform"]
        compared = {
            each for name in others for each in steps_of(searches, panel.search, name)
        }
        for method in spec.methods:
            # Even steps are there for what they are compared with.
            asked = steps_of(searches, panel.search, method)
            steps = [each for each in asked if each in compared or not compared]
            if not steps:
                continue
            numbers |= set(steps)
            answers = [answer_of(searches, panel.search, n, method) for n in steps]
            scores = [each["heldout"]["scores"]["psnr_to_teacher"] for each in answers]
            _bars(axes, steps, scores, LOOKS[method], elinewidth=0.6)
            if method == "uniform":
                continue
            gains = [
                each["heldout"]["minus_uniform"]["psnr_to_teacher"] for each in answers
            ]
            # Side by side, lest intervals hide each other.
            shift = 0.6 * (others.index(method) - (len(others) - 1) / 2)
            places = [n + shift for n in steps]
            look = replace(LOOKS[method], line="")
            _bars(strip, places, gains, look, elinewidth=1.0, capsize=2)
        strip.axhline(0, color=EVEN, ls=LOOKS["uniform"].line, lw=1.1)
        strip.set_ylabel("gain over\nuniform, dB", fontsize=7.5)
        strip.set_xlabel("number of steps", fontsize=8)
        strip.yaxis.set_major_locator(MaxNLocator(4))
        reference = searches[panel.search]["reference"]
        axes.set_ylabel(f"PSNR to {reference} steps, dB", fontsize=8)
        axes.set_title(panel.heading, fontsize=8.5, loc="left", weight="bold")
        for each in (axes, strip):
            each.set_xticks(sorted(numbers))
            each.set_xlim(min(numbers) - 1.6, max(numbers) + 1.6)
            each.margins(y=0.1)
        axes.tick_params(labelbottom=False)
    return figure


def _bars(
    axes: Axes,
    x: Sequence[float],
    scores: Sequence[Mapping[str, float]],
    look: Look,
    **how: Any,
) -> None:
    """Draw values with their intervals."""
    values = [score["value"] for score in scores]
    axes.errorbar(
        x,
        values,
        yerr=[
            [value - s["low"] for value, s in zip(values, scores, strict=True)],
            [s["high"] - value for value, s in zip(values, scores, strict=True)],
        ],
        color=look.colour,
        marker=look.marker,
        ls=look.line,
        lw=1.3,
        ms=4.5,
        **how,
    )


def _handle(look: Look) -> Line2D:
    from matplotlib.lines import Line2D

    return Line2D(
        [], [], color=look.colour, marker=look.marker, ls=look.line, label=look.label
    )


def _panels(
    title: str, count: int, columns: int, methods: Sequence[str], strip: float = 0.0
) -> tuple[Figure, list[tuple[Axes, Axes]]]:
    """Return a figure and its panels, each with a strip below it if that has a height.

    Without a strip, the panel itself stands in its place.
    """
    wide, tall, left, right, bottom, over = 1.87, 1.75, 0.6, 0.12, 0.48, 0.3
    between = 0.1 if strip else 0.0
    rows = math.ceil(count / columns)
    tallest = tall + between + strip
    width = columns * (left + wide + right)
    # As many rows of the legend as its longest labels need.
    in_row = min(len(methods), max(1, int(width / 1.6)))
    legend_rows = math.ceil(len(methods) / in_row)
    head = 0.30 + 0.18 * legend_rows
    height = head + rows * (over + tallest + bottom)
    figure = new_figure(figsize=(width, height))
    y = 1 - 0.1 / height
    figure.text(0.1 / width, y, title, va="top", weight="bold", size=9)
    figure.legend(
        handles=[_handle(LOOKS[name]) for name in methods],
        loc="upper left",
        bbox_to_anchor=(0.1 / width, 1 - 0.32 / height),
        ncols=math.ceil(len(methods) / legend_rows),
        frameon=False,
        borderaxespad=0,
        borderpad=0,
        fontsize=7.5,
        handlelength=2,
        handletextpad=0.5,
        columnspacing=1.2,
    )
    panels = []
    for index in range(count):
        row, column = divmod(index, columns)
        x = column * (left + wide + right) + left
        base = height - head - (row + 1) * (over + tallest + bottom) + bottom
        made = []
        for low, size in ((base + between + strip, tall), (base, strip)):
            if not size:
                continue
            place = (x / width, low / height, wide / width, size / height)
            made.append(figure.add_axes(place))
            _tidy(made[-1])
        panels.append((made[0], made[-1]))
    return figure, panels


# --- what a search takes -------------------------------------------------------------


@dataclass(frozen=True)
class ProgressPanel:
    """One search for one number of steps.

    Attributes:
        search: Id of the search.
        steps: Number of steps.
        heading: What stands above.
    """

    search: str
    steps: int
    heading: str


@dataclass(frozen=True)
class SearchProgressSpec(Kind):
    """The best quality so far against UNet evaluations, a panel per search.

    Attributes:
        panels: The panels, from left to right, then from top to bottom.
        methods: The methods, keys of `LOOKS`; in a panel, those that it has.
        columns: Panels in a row.
    """

    kind: ClassVar[str] = "search_progress"
    panels: tuple[ProgressPanel, ...]
    methods: tuple[str, ...]
    columns: int

    def __post_init__(self) -> None:
        """Reject figures without a panel, and methods that do not search."""
        _check_columns(self.columns, len(self.panels))
        _check_methods(self.methods)
        if "uniform" in self.methods:
            raise ValueError("method 'uniform' does not search")

    def needs(self, known: Known) -> Needs:
        """Return the searches that it shows."""
        return searched(known, *[panel.search for panel in self.panels])

    def make(self, given: Given) -> Figure:
        """Draw it."""
        return draw_progress(self, given.each("searches"))


def draw_progress(spec: SearchProgressSpec, searches: Mapping[str, Found]) -> Figure:
    """Draw how searches progress, each with its number of evaluations at its end.

    A search that looks at another measure than PSNR has its result drawn alone: a point
    at all that it took, and PSNR on the pairs that it searched on.

    Args:
        spec: The figure.
        searches: By id.

    Raises:
        ValueError: If a search does not exist, or has no method for a panel.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure, panels = _panels(
        spec.title, len(spec.panels), spec.columns, ("uniform", *spec.methods)
    )
    drawn = []
    for panel, (axes, _) in zip(spec.panels, panels, strict=True):
        methods = [
            name
            for name in spec.methods
            if panel.steps in steps_of(searches, panel.search, name)
        ]
        if not methods:
            raise ValueError(
                f"search {panel.search!r} has none of {', '.join(spec.methods)} at "
                f"{panel.steps} steps"
            )
        drawn.append((axes, _draw_progress(axes, panel, methods, searches)))
    drawing = FigureCanvasAgg(figure)
    drawing.draw()
    for axes, points in drawn:
        label_points(axes, points, drawing)
    return figure


def _draw_progress(
    axes: Axes,
    panel: ProgressPanel,
    methods: Sequence[str],
    searches: Mapping[str, Found],
) -> list[Shown]:
    """Draw a panel, and return the ends of its curves."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    even = answer_of(searches, panel.search, panel.steps, "uniform")
    quality = even["search"]["psnr_to_teacher"]["value"]
    axes.axhline(quality, color=EVEN, ls=LOOKS["uniform"].line, lw=1.1)
    ends = []
    first = math.inf
    for index, method in enumerate(methods):
        look = LOOKS[method]
        answer = answer_of(searches, panel.search, panel.steps, method)
        calls, count = float(answer["unet_calls"]), answer["evaluations"]
        first = min(first, calls / count)
        best = answer["search"]["psnr_to_teacher"]["value"]
        if method != "evolution_frechet":
            trials = [trial["quality"] for trial in answer["trials"]]
            reached = [max(trials[: at + 1]) for at in range(len(trials))]
            spent = [calls * (at + 1) / len(trials) for at in range(len(trials))]
            axes.step(spent, reached, where="post", color=look.colour, lw=1.6)
            best = reached[-1]
        axes.plot([calls], [best], marker=look.marker, ms=6, ls="", color=look.colour)
        ends.append(Shown(calls, best, best, best, str(count), look.colour, index))
    axes.set_xscale("log")
    axes.set_xlim(first * 0.85, max(end.x for end in ends) * 1.6)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel("UNet evaluations", fontsize=8)
    reference = searches[panel.search]["reference"]
    axes.set_ylabel(f"best PSNR to {reference} steps, dB", fontsize=8)
    axes.set_title(panel.heading, fontsize=8.5, loc="left", weight="bold")
    axes.margins(y=0.12)
    return ends


def _thousands(value: float, _: int) -> str:
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"
