"""Compare measured methods: averages, differences in pairs, the front, sentences.

Two methods of one label are the same method, trained from other seeds: image by image
their values are averaged, so that intervals are of captions, and how far apart the
seeds are is told beside. Nothing here needs torch before something is worked out.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clockwork_experiments.random.marks import SHOWN, marks
from clockwork_experiments.score.student import student_quantile

QUALITY = "psnr_to_reference"
SHARE = 1e-3
"""By how much a share may be above a budget: rounding."""


@dataclass(frozen=True)
class Interval:
    """A number with the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether it is told from 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Row:
    """A method, all its training seeds together.

    Attributes:
        label: What it is called.
        methods: Ids of its entries, one for each training seed.
        values: Of each image by metric: the mean over the training seeds.
        of_seeds: The mean quality of each training seed.
        seeds: Sampling seeds of each caption; images of one seed are in a row.
        flops: FLOPs of an image's UNet passes, without attention's products.
        flops_with_attention: The same with them.
        frechet: Fréchet distance to the teacher's images of the same captions.
        axes: What it changes.
        planned: Whether it was planned, on other captions.
        trained: Whether it has weights of its own.
        chosen: Whether its time steps are others than the scheduler's own.
        than: The entry that it is compared with; empty for none.
        ratio: Its time by that of plain steps; None if it was not timed.
    """

    label: str
    methods: tuple[str, ...]
    values: Mapping[str, tuple[float, ...]]
    of_seeds: tuple[float, ...]
    seeds: int
    flops: float
    flops_with_attention: float
    frechet: float
    axes: tuple[str, ...]
    planned: bool
    trained: bool
    chosen: bool
    than: str = ""
    ratio: Interval | None = None

    def mean(self, metric: str = QUALITY) -> Interval | None:
        """Return the mean of a metric, of captions; None if it was not measured."""
        if metric not in self.values:
            return None
        return _scored(self.values[metric], self.seeds)

    def minus(self, other: Row, metric: str = QUALITY) -> Interval:
        """Return by how much it is above another, image by image.

        Raises:
            ValueError: If they are of different images.
        """
        pair = self.values[metric], other.values[metric]
        if len(pair[0]) != len(pair[1]) or self.seeds != other.seeds:
            raise ValueError(f"{self.label} and {other.label} make no pairs")
        return _scored([a - b for a, b in zip(*pair, strict=True)], self.seeds)

    @property
    def quality(self) -> float:
        """Its mean quality, without an interval."""
        return _average(self.values[QUALITY])


def _scored(values: Sequence[float], seeds: int) -> Interval:
    import torch

    from clockwork_experiments.score import metrics

    given = torch.tensor(values, dtype=torch.float64)
    found = metrics.mean_score(given, seeds=seeds)
    return Interval(found.value, found.low, found.high)


def _average(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def rows_of(
    listed: Sequence[tuple[str, str, str]],
    measured: Mapping[str, Mapping[str, Any]],
    times: Mapping[str, Mapping[str, Any]],
) -> list[Row]:
    """Return the methods, one row for each label, in the order of their first entry.

    What was measured with random weights has that behind its label.

    Args:
        listed: Id, label and what it is compared with, of each entry.
        measured: Measurements by id, as `measure_method` writes them.
        times: Timings by id, as `time_method` writes them.
    """
    groups: dict[str, list[str]] = {}
    than: dict[str, str] = {}
    for name, label, other in listed:
        groups.setdefault(label, []).append(name)
        than.setdefault(label, other)
    rows = []
    for label, names in groups.items():
        found = [measured[name] for name in names]
        first = found[0]
        values = {
            metric: tuple(
                _average(each)
                for each in zip(*(one["values"][metric] for one in found), strict=True)
            )
            for metric in first["values"]
        }
        timed = [times[name] for name in names if name in times]
        ratio = None
        if timed:
            ends = [
                1 + _average([float(one[key]) for one in timed])
                for key in ("overhead", "low", "high")
            ]
            ratio = Interval(*ends)
        random = f" ({SHOWN})" if any(map(marks, found)) else ""
        rows.append(
            Row(
                label + random,
                tuple(names),
                values,
                tuple(_average(one["values"][QUALITY]) for one in found),
                first["seeds"],
                _average([one["flops"] for one in found]),
                _average([one["flops_with_attention"] for one in found]),
                _average([one["frechet"]["value"] for one in found]),
                tuple(first["axes"]),
                first["planned"],
                first["trained"],
                bool(first["timesteps"]),
                than[label],
                ratio,
            )
        )
    return rows


def row_with(rows: Sequence[Row], method: str) -> Row:
    """Return the row that an entry is in.

    Raises:
        ValueError: If there is none.
    """
    for row in rows:
        if method in row.methods:
            return row
    raise ValueError(f"method {method!r} is in no row")


def share(row: Row, plain: Row) -> float:
    """Return a method's share of the FLOPs of the plain steps, attention included."""
    return row.flops_with_attention / plain.flops_with_attention


def front(rows: Sequence[Row]) -> list[Row]:
    """Return those that none beats at as many FLOPs or fewer, the cheapest first."""
    found: list[Row] = []
    ordered = sorted(rows, key=lambda row: (row.flops_with_attention, -row.quality))
    for row in ordered:
        if not found or row.quality > found[-1].quality:
            found.append(row)
    return found


def within(rows: Sequence[Row], plain: Row, budget: float) -> list[Row]:
    """Return those within a budget of FLOPs, the best first."""
    allowed = [row for row in rows if share(row, plain) <= budget + SHARE]
    return sorted(allowed, key=lambda each: -each.quality)


def single(rows: Sequence[Row]) -> list[Row]:
    """Return those that change one thing alone."""
    return [row for row in rows if len(row.axes) == 1]


def joint(row: Row) -> bool:
    """Tell whether a method is a plan that chose more than one thing."""
    return row.planned and len(row.axes) > 1


def best_single(rows: Sequence[Row], plain: Row, budget: float) -> Row | None:
    """Return the best of those within a budget that change one thing alone.

    By what they were measured to be on the very captions that they are compared on: an
    advantage that a plan, made on others, has not.
    """
    return next(iter(within(single(rows), plain, budget)), None)


def sentences(
    rows: Sequence[Row], plain: Row, budgets: Sequence[float]
) -> tuple[str, ...]:
    """Return who wins where, in sentences."""
    said = [
        "On the front, where none is better for as many FLOPs or fewer: "
        + ", ".join(row.label for row in front(rows))
        + "."
    ]
    for budget in budgets:
        said += _of_budget(rows, plain, budget)
    for row in rows:
        if row.than:
            said.append(_compared(row, row_with(rows, row.than), plain))
    return tuple(said)


def _of_budget(rows: Sequence[Row], plain: Row, budget: float) -> list[str]:
    allowed = within(rows, plain, budget)
    if not allowed:
        return []
    best, *others = allowed
    text = (
        f"Within {_percent(budget)} of the FLOPs of {plain.label}, {best.label} is "
        f"best at {best.quality:.2f} dB"
    )
    if not others:
        return [f"{text}; nothing else is as cheap."]
    gap = best.minus(others[0])
    ends = f"{gap.value:.2f} dB [{gap.low:.2f}, {gap.high:.2f}]".replace("-", "−")
    said = "behind it" if told(best, others[0], gap) else "not told from it"
    return [f"{text}; {others[0].label} is {said}, by {ends}."]


def _compared(row: Row, other: Row, plain: Row) -> str:
    gap = row.minus(other)
    cost = share(row, plain) - share(other, plain)
    ends = f"{gap.value:+.2f} dB [{gap.low:+.2f}, {gap.high:+.2f}]"
    verdict = "is not told from"
    if told(row, other, gap):
        verdict = "is better than" if gap.value > 0 else "is worse than"
    many = ""
    if len(row.of_seeds) > 1:
        low, high = min(row.of_seeds), max(row.of_seeds)
        many = f", {len(row.of_seeds)} training seeds {low:.2f} to {high:.2f} dB"
    text = (
        f"{row.label}{_once(row)} {verdict} {other.label}{_once(other)}: {ends}, for "
        f"{100 * cost:+.1f} points of the FLOPs{many}."
    )
    return text.replace("-", "−")


def _once(row: Row) -> str:
    """Say of what was trained once that its interval knows nothing of training."""
    return " (one training seed)" if row.trained and len(row.of_seeds) == 1 else ""


def told(row: Row, other: Row, gap: Interval) -> bool:
    """Tell whether a gap is clear of 0 for other captions, and for other trainings.

    The latter by Student's t over training seeds, where there are several. Seeds of two
    methods make no pairs: both spreads count, with the freedom of the fewer seeds.
    """
    trained = [each.of_seeds for each in (row, other) if len(each.of_seeds) > 1]
    if not gap.clear or not trained:
        return gap.clear
    error = math.sqrt(sum(statistics.variance(each) / len(each) for each in trained))
    freedom = min(map(len, trained)) - 1
    return abs(gap.value) > student_quantile(freedom, 0.975) * error


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"
