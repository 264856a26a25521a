"""Draw how adaptors learn: the loss of each update, relative to identity."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from clockwork_experiments.base import storage
from clockwork_experiments.report.figures.style import COLOURS, MARKERS, new_figure
from clockwork_experiments.report.kinds import Given, Kind, Known, Needs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WINDOW = 17
"""Logged updates that a line averages over; what it averages is drawn faintly."""

LABEL_GAP = 0.13
"""Least distance of two labels in inches."""


@dataclass(frozen=True)
class TrainedAdaptor:
    """One line.

    Attributes:
        adaptor: Id of the adaptor.
        label: What the reader sees.
    """

    adaptor: str
    label: str


@dataclass(frozen=True)
class TrainingCurvesSpec(Kind):
    """Loss against update, a line per adaptor.

    Attributes:
        adaptors: The adaptors, at most as many as there are colours.
        note: Below the heading.
    """

    kind: ClassVar[str] = "training_curves"
    adaptors: tuple[TrainedAdaptor, ...]
    note: str = ""

    def __post_init__(self) -> None:
        """Reject figures with no lines, or more than can be told apart."""
        if not 1 <= len(self.adaptors) <= len(COLOURS):
            raise ValueError(
                f"{len(self.adaptors)} adaptors are not between 1 and {len(COLOURS)}"
            )

    def needs(self, known: Known) -> Needs:
        """Return the logs of the trainings, and the adaptors' errors."""
        names = [shown.adaptor for shown in self.adaptors]
        return {
            "curves": [f"{known.base}/curves/adaptors/{name}.csv" for name in names],
            "errors": [f"{known.base}/scores/adaptors/{name}.json" for name in names],
        }

    def make(self, given: Given) -> Figure:
        """Draw it."""
        curves = {path.stem: read_curve(path) for path in given.paths("curves")}
        return draw_curves(self, curves, given.each("errors"))


@dataclass(frozen=True)
class Curve:
    """A training as it was logged.

    Attributes:
        steps: Updates.
        losses: The loss of each.
    """

    steps: tuple[int, ...]
    losses: tuple[float, ...]


def read_curve(path: Path) -> Curve:
    """Read the log of a training.

    Raises:
        ValueError: If it is no such log, or is empty; the message names it.
    """
    try:
        with storage.existing(path).open(encoding="utf-8", newline="") as file:
            rows = [(int(r["step"]), float(r["loss"])) for r in csv.DictReader(file)]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not the log of a training") from error
    if not rows:
        raise ValueError(f"{path} holds no update")
    steps, losses = zip(*rows, strict=True)
    return Curve(steps, losses)


def smooth(losses: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the mean of each loss and its neighbours.

    At the start there are as few after it as before it, so that the first loss, of the
    untrained adaptor, stays.
    """
    values = np.asarray(losses)
    half = WINDOW // 2
    means = []
    for index in range(len(values)):
        reach = min(half, index)
        means.append(values[index - reach : index + reach + 1].mean())
    return np.array(means)


def draw_curves(
    spec: TrainingCurvesSpec,
    curves: Mapping[str, Curve],
    errors: Mapping[str, Mapping[str, float]],
) -> Figure:
    """Draw the losses, and the held-out error at the end of each.

    Args:
        spec: What to show.
        curves: The logs by adaptor.
        errors: The held-out errors by adaptor, with ``l2`` and ``identity_l2``.

    Raises:
        ValueError: If an adaptor lacks its log or its error.
    """
    for shown in spec.adaptors:
        if shown.adaptor not in curves or shown.adaptor not in errors:
            raise ValueError(f"adaptor {shown.adaptor!r} has no log or no error")
    figure, axes = _titled(spec)
    last = max(curves[shown.adaptor].steps[-1] for shown in spec.adaptors)
    ends, values, shown_between = [last], [1.0], [1.0]
    for index, shown in enumerate(spec.adaptors):
        curve, error = curves[shown.adaptor], errors[shown.adaptor]
        values.append(error["l2"] / error["identity_l2"])
        ends.append(curve.steps[-1])
        line = _plot(axes, index, curve, error["identity_l2"], values[-1])
        shown_between += [float(line.min()), float(line.max()), values[-1]]
    axes.axhline(1, color="#888888", lw=0.9, ls=(0, (4, 1.6)), zorder=1)
    most, least = max(shown_between), min(shown_between)
    span = most - least
    axes.set_ylim(max(0.0, least - 0.07 * span), most + 0.07 * span)
    axes.set_xlim(0, max(last, 1))
    _name(axes, spec, ends, values)
    _dress(axes, last)
    return figure


LEFT, WIDTH, BOTTOM, HEIGHT = 0.62, 4.0, 0.46, 2.6
"""Margins and size of the axes in inches."""


def _titled(spec: TrainingCurvesSpec) -> tuple[Figure, Any]:
    """Return a figure with title and note, and axes with room for names beside them."""
    labels = max(len(shown.label) for shown in spec.adaptors)
    right = 0.3 + 0.057 * (labels + 6)
    head = 0.32 + (0.17 * (spec.note.count("\n") + 1) if spec.note else 0.0)
    width, height = LEFT + WIDTH + right, BOTTOM + HEIGHT + head
    figure = new_figure(figsize=(width, height))
    top = 1 - 0.1 / height
    figure.text(0.1 / width, top, spec.title, va="top", weight="bold", size=9)
    if spec.note:
        top -= 0.19 / height
        figure.text(0.1 / width, top, spec.note, va="top", size=7, color="#666666")
    place = (LEFT / width, BOTTOM / height, WIDTH / width, HEIGHT / height)
    return figure, figure.add_axes(place)


def _plot(
    axes: Any, index: int, curve: Curve, identity: float, end: float
) -> np.ndarray:
    """Draw a curve relative to the identity's error; return it without its noise."""
    relative = np.array(curve.losses) / identity
    line = smooth(relative)
    colour = COLOURS[index]
    axes.plot(curve.steps, relative, color=colour, lw=0.5, alpha=0.2)
    axes.plot(curve.steps, line, color=colour, lw=1.4)
    axes.plot(
        curve.steps[-1],
        end,
        MARKERS[index],
        color=colour,
        mec="white",
        mew=0.6,
        ms=5,
        zorder=3,
        clip_on=False,
    )
    return line


def _name(
    axes: Any, spec: TrainingCurvesSpec, ends: Sequence[int], values: Sequence[float]
) -> None:
    """Write each curve's name and end beside the axes; the identity's first."""
    low, high = axes.get_ylim()
    places = spread(values, LABEL_GAP * (high - low) / HEIGHT)
    labels = ["identity", *(shown.label for shown in spec.adaptors)]
    texts = ["identity  1"]
    texts += [f"{n}  {v:.2f}" for n, v in zip(labels[1:], values[1:], strict=True)]
    colours = ["#666666", *COLOURS]
    for text, colour, value, place, end in zip(
        texts, colours, values, places, ends, strict=False
    ):
        axes.annotate(
            text,
            (end, value),
            xytext=(1 + 0.14 / WIDTH, (place - low) / (high - low)),
            textcoords="axes fraction",
            va="center",
            size=7,
            color=colour,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.5, "shrinkB": 3},
            annotation_clip=False,
        )


def _dress(axes: Any, last: int) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axes.set_xlabel("update")
    axes.set_ylabel("L2 / held-out L2 of identity (lower is better)", labelpad=3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#E6E6E6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=7)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if last >= 10000:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.yaxis.set_major_locator(MaxNLocator(6))


def spread(values: Sequence[float], gap: float) -> list[float]:
    """Return places for labels: near their values, in their order, a gap apart."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    # Groups of labels that touch, each as (members, middle of their values).
    groups: list[list[int]] = []
    for index in order:
        groups.append([index])
        while len(groups) > 1 and _starts(groups[-1], values, gap) < (
            _starts(groups[-2], values, gap) + len(groups[-2]) * gap
        ):
            groups[-2:] = [groups[-2] + groups[-1]]
    places = [math.nan] * len(values)
    for group in groups:
        start = _starts(group, values, gap)
        for place, index in enumerate(group):
            places[index] = start + place * gap
    return places


def _starts(group: Sequence[int], values: Sequence[float], gap: float) -> float:
    """Return where the lowest label of a group lies."""
    middle = sum(values[index] for index in group) / len(group)
    return middle - gap * (len(group) - 1) / 2
