"""Draw every printed effect against ours: a row per paper, a panel per quantity."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from clockwork_experiments.claims.printed import SAVED, printed_effect
from clockwork_experiments.report.figures.style import COLOURS, new_figure
from clockwork_experiments.report.kinds import Given, Kind, Known, Needs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

VERDICTS = {
    "holds": (COLOURS[2], "o"),
    "does not hold": (COLOURS[1], "X"),
    "undecided": ("#8A8A8A", "s"),
}
"""Colour and marker by verdict: told apart in grey, too."""

WIDTH, HEIGHT = 13.33, 7.5
"""Inches: a slide."""

AGREE = "#EEF4EA"
"""Behind effects of the printed direction."""


@dataclass(frozen=True)
class Panel:
    """A quantity that effects are of.

    Attributes:
        title: What the reader sees.
        metrics: Keys of `METRICS`; those that no panel has get panels by unit.
        factor: Applied before drawing.
        linear: Half-width of the linear middle of both axes, which are logarithmic
            beyond it; 0 where they are linear.
        ratio: Whether both axes are logarithmic.
    """

    title: str
    metrics: tuple[str, ...]
    factor: float = 1.0
    linear: float = 0.0
    ratio: bool = False


PANELS = (
    Panel("Cost saved, %", SAVED, 100.0),
    Panel(
        "FID printed, Fréchet ours: gain",
        ("frechet", "translated_frechet"),
        linear=1.0,
    ),
    Panel(
        "CLIP scores: gain",
        (
            "clip",
            "clip_image",
            "clip_direction",
            "edit_clip",
            "translated_clip",
            "steps_clip",
            "steps_clip_image",
            "steps_clip_direction",
        ),
        linear=0.01,
    ),
    Panel("ln γ, and ln of ratios of γ", ("gamma_below", "gamma_above", "gamma_ratio")),
    Panel(
        "PSNR: gain, dB",
        ("psnr", "psnr_to_target", "psnr_to_whole", "steps_psnr", "steps_target"),
    ),
    Panel("Search: times less", ("search_cost",), ratio=True),
)


@dataclass(frozen=True)
class Effect:
    """A printed effect and ours.

    Attributes:
        claim: Id of the claim.
        label: What is compared.
        metric: A key of `METRICS`.
        verdict: A key of `VERDICTS`.
        printed: What the paper prints, as an effect.
        ours: Ours, in the same unit.
        low: Lower end of its 95 % interval; ours itself where it has none.
        high: Upper end.
    """

    claim: str
    label: str
    metric: str
    verdict: str
    printed: float
    ours: float
    low: float
    high: float


@dataclass(frozen=True)
class EffectsSpec(Kind):
    """Every printed effect against ours.

    Attributes:
        papers: The papers as the reader sees them, by id; from top to bottom.
    """

    kind: ClassVar[str] = "effects"

    papers: dict[str, str]

    def needs(self, known: Known) -> Needs:
        """Return the judged claims."""
        return {"claims": [f"{known.base}/claims/{name}.json" for name in self.papers]}

    def make(self, given: Given) -> Figure:
        """Draw it."""
        judged = given.each("claims")
        found = {
            title: printed_effects(judged[name]) for name, title in self.papers.items()
        }
        return draw_effects(self, found)


def printed_effects(judged: Mapping[str, Any]) -> list[Effect]:
    """Return the parts of judged claims of which the paper prints both values.

    A comparison that several claims make is there once.
    """
    found: dict[tuple[Any, ...], Effect] = {}
    for claim, entry in judged["claims"].items():
        for part in entry["parts"]:
            if part["printed"] is None:
                continue
            value, low, high = (part["effect"][key] for key in ("value", "low", "high"))
            effect = Effect(
                claim,
                part["label"],
                part["metric"],
                part["verdict"],
                printed_effect(part["metric"], *part["printed"]),
                value,
                value if low is None else low,
                value if high is None else high,
            )
            same = (effect.metric, effect.printed, effect.ours, effect.verdict)
            found.setdefault(same, effect)
    return list(found.values())


def draw_effects(spec: EffectsSpec, found: Mapping[str, Sequence[Effect]]) -> Figure:
    """Draw a row of panels per paper.

    Args:
        spec: The figure.
        found: The effects by paper's title.

    Raises:
        ValueError: If there are none, or there is no panel for one.
    """
    rows = {title: _by_panel(effects) for title, effects in found.items()}
    if not all(rows.values()) or not rows:
        raise ValueError("no printed effect is judged")
    figure = new_figure(figsize=(WIDTH, HEIGHT))
    figure.text(
        0.015, 0.985, spec.title, va="top", weight="bold", size=15, color="#222222"
    )
    figure.legend(
        handles=_handles(),
        loc="upper right",
        bbox_to_anchor=(0.99, 0.995),
        ncols=5,
        frameon=False,
        fontsize=9.5,
        columnspacing=1.4,
        handletextpad=0.5,
    )
    head, foot = 0.075, 0.04
    tall = (1 - head - foot) / len(rows)
    for index, (title, panels) in enumerate(rows.items()):
        top = 1 - head - index * tall
        effects = [each for some in panels.values() for each in some]
        same = sum(each.printed * each.ours > 0 for each in effects)
        directed = sum(each.printed != 0 for each in effects)
        told = f"{same} of {directed} effects have the printed direction"
        figure.text(0.015, top - 0.004, title, va="top", weight="bold", size=12)
        figure.text(
            0.985,
            top - 0.006,
            told,
            va="top",
            ha="right",
            size=10.5,
            color="#555555",
        )
        width = 0.985 / len(panels)
        for column, (panel, some) in enumerate(panels.items()):
            left = 0.015 + column * width
            axes = figure.add_axes(
                (left + 0.03, top - tall + 0.085, width - 0.05, tall - 0.165)
            )
            _draw_panel(axes, panel, some)
            if column == 0:
                axes.set_ylabel("ours", size=10)
    note = textwrap.fill(spec.caption, 200)
    figure.text(0.015, 0.01, note, size=8.5, color="#555555")
    return figure


def _by_panel(effects: Iterable[Effect]) -> dict[Panel, list[Effect]]:
    shown: dict[Panel, list[Effect]] = {}
    by_metric = {name: panel for panel in PANELS for name in panel.metrics}
    for effect in effects:
        if effect.metric not in by_metric:
            raise ValueError(f"no panel shows effects of {effect.metric!r}")
        shown.setdefault(by_metric[effect.metric], []).append(effect)
    return {panel: shown[panel] for panel in PANELS if panel in shown}


def _draw_panel(axes: Axes, panel: Panel, effects: Sequence[Effect]) -> None:
    from matplotlib.ticker import MaxNLocator, NullFormatter

    if panel.ratio:
        axes.set_xscale("log")
        axes.set_yscale("log")
    wide = [max(map(abs, some)) for some in _coordinates(effects)]
    if panel.linear and min(wide) > 2 * panel.linear:
        for scale in (axes.set_xscale, axes.set_yscale):
            scale("symlog", linthresh=panel.linear, linscale=0.6)
    for effect in effects:
        colour, marker = VERDICTS[effect.verdict]
        x, y, low, high = (
            panel.factor * each
            for each in (effect.printed, effect.ours, effect.low, effect.high)
        )
        axes.plot([x, x], [low, high], color=colour, linewidth=1.6, alpha=0.45)
        axes.plot(
            [x],
            [y],
            color=colour,
            marker=marker,
            markersize=6.5,
            zorder=3,
            markeredgecolor="white",
            markeredgewidth=0.7,
        )
    _set_limits(axes, panel, effects)
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "linear":
            axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        else:
            axis.set_minor_formatter(NullFormatter())
        axis.set_major_formatter("{x:g}")
    claims = dict.fromkeys(effect.claim for effect in effects)
    only = f" ({next(iter(claims))})" if len(claims) == 1 else ""
    if not only:
        _write_claims(axes, panel, effects)
    axes.set_title(panel.title + only, size=10, loc="left", pad=5)
    axes.set_xlabel("printed", size=10, labelpad=2)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _coordinates(effects: Sequence[Effect]) -> tuple[list[float], list[float]]:
    """Return all that is on either axis, intervals included."""
    ours = [end for each in effects for end in (each.low, each.ours, each.high)]
    return [each.printed for each in effects], ours


def _set_limits(axes: Axes, panel: Panel, effects: Sequence[Effect]) -> None:
    """Give both axes room, and shade where the directions agree."""
    curved = axes.get_xscale() == "symlog"
    setters: tuple[Callable[..., Any], ...] = (axes.set_xlim, axes.set_ylim)
    for some, setter in zip(_coordinates(effects), setters, strict=True):
        low, high = (panel.factor * each for each in (min(some), max(some)))
        if panel.ratio:
            setter(min(1.0, low) / 1.6, high * 2.2)
        elif curved:
            # Room is a share of what a logarithmic axis shows.
            setter(*(_beyond(end, panel.linear) for end in (min(low, 0.0), high)))
        else:
            low, high = min(low, 0.0), max(high, 0.0)
            room = 0.1 * (high - low)
            setter(low - room, high + 1.4 * room)
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    middle = 1.0 if panel.ratio else 0.0
    look: dict[str, Any] = {"facecolor": AGREE, "edgecolor": "none", "zorder": 0}
    axes.fill_between([middle, right], middle, top, **look)
    if left < middle and bottom < middle:
        axes.fill_between([left, middle], bottom, middle, **look)
    for line in (axes.axhline, axes.axvline):
        line(middle, color="#999999", linewidth=0.8, zorder=1)
    both = [max(left, bottom), min(right, top)]
    axes.plot(both, both, color="#444444", linewidth=0.9, linestyle=(0, (4, 3)))
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)


def _beyond(end: float, linear: float) -> float:
    """Return an end of a symmetrical logarithmic axis, with some room."""
    return math.copysign(max(1.9 * abs(end), 0.6 * linear), end or -1.0)


def _write_claims(axes: Axes, panel: Panel, effects: Sequence[Effect]) -> None:
    """Write each effect's claim beside it, where no other is; once where they are near.

    The axes must have their limits.
    """
    figure = axes.figure
    points = axes.transData.transform(
        [(panel.factor * e.printed, panel.factor * e.ours) for e in effects]
    ) * (72 / figure.dpi)
    order = sorted(range(len(effects)), key=lambda index: -points[index][1])
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in points]
    said: list[tuple[float, float, str]] = []
    for index in order:
        (x, y), claim = points[index], effects[index].claim
        if any(
            abs(x - u) < 26 and abs(y - v) < 12 and claim == told for u, v, told in said
        ):
            continue
        wide, tall = 5.2 * len(claim), 7.0
        for right, up in PLACES:
            left = x + right - (wide if right < 0 else 0)
            box = (left, y + up, left + wide, y + up + tall)
            if not any(_meet(box, other) for other in taken):
                break
        else:
            continue  # a crowd of the same kind: its claims stand around it
        taken.append(box)
        said.append((x, y, claim))
        axes.text(
            box[0] / 72,
            box[1] / 72,
            claim,
            transform=figure.dpi_scale_trans,
            size=7,
            color="#444444",
        )


PLACES = ((5, 2), (-5, 2), (5, -9), (-5, -9), (3, 9), (-3, 9), (3, -16), (-3, -16))
"""Where a claim may stand, in points from its effect: right, or left, and up."""

Box = tuple[float, float, float, float]


def _meet(one: Box, other: Box) -> bool:
    return (
        one[0] < other[2]
        and other[0] < one[2]
        and one[1] < other[3]
        and other[1] < one[3]
    )


def _handles() -> list[Line2D]:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            label=verdict,
            color=colour,
            marker=marker,
            markersize=7,
            linewidth=1.6,
        )
        for verdict, (colour, marker) in VERDICTS.items()
    ]
    line: dict[str, Any] = {
        "color": "#444444",
        "linewidth": 0.9,
        "linestyle": (0, (4, 3)),
    }
    return [*handles, Line2D([], [], label="as printed", **line)]
