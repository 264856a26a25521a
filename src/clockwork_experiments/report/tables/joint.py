"""Compare a clock, depth-skip and time steps, alone and together; no paper does.

Time steps are those of `search_steps`, found and measured with the clock and the level
in place, against what the whole UNet makes at every one of many steps. Counts are those
of `count_levels`, timings those of `time_levels`. Nothing here needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from clockwork_experiments.cost.formulas import translation_flops, translation_ms
from clockwork_experiments.report.kinds import Known, Needs
from clockwork_experiments.report.tables.table import (
    Cells,
    Column,
    Results,
    Spec,
    Table,
    Value,
)
from clockwork_experiments.score import names

PSNR = "psnr_to_teacher"
"""The score that time steps are searched by."""

SCORES = {
    PSNR: names.SCORES["psnr_to_reference"],
    **{n: names.SCORES[n] for n in ("clip", "clip_image", "clip_direction", "psnr")},
}
"""By the key that searches write. More is better of all of them."""

UNITS = {"TFLOPs": 1e-12, "GFLOPs": 1e-9}
"""Units of FLOPs, and their factors."""

UNIFORM = "uniform"


@dataclass(frozen=True)
class Combination:
    """What makes a model cheaper, but for the number of steps.

    Attributes:
        label: What the reader sees.
        search: Id of the search of time steps with it.
    """

    label: str
    search: str


@dataclass(frozen=True)
class JointModel:
    """A model, and what is tried on it.

    Attributes:
        label: What the reader sees.
        scores: What its images are judged by beside PSNR to the reference; the figure
            shows the first.
        combinations: What is tried; first the plain sampler.
    """

    label: str
    scores: tuple[str, ...]
    combinations: tuple[Combination, ...]

    @property
    def plain(self) -> Combination:
        """The plain sampler."""
        return self.combinations[0]


def combined_settings(
    known: Known, models: Sequence[JointModel]
) -> dict[str, dict[str, Any]]:
    """Return what decides the cost of the searches of some combinations, by id."""
    names = [each.search for model in models for each in model.combinations]
    return {name: known.searched(name) for name in dict.fromkeys(names)}


def combined_needs(known: Known, models: Sequence[JointModel]) -> Needs:
    """Return the searches of combinations, and their models' counts and timings."""
    runs = combined_settings(known, models)
    named = dict.fromkeys(run["translator"] for run in runs.values())
    return {
        "step_searches": [f"{known.base}/timesteps/{name}.json" for name in runs],
        "levels": [f"{known.base}/levels/{name}.json" for name in named],
        "level_latency": [f"{known.base}/latency/levels/{name}.json" for name in named],
    }


@dataclass(frozen=True)
class JointTableSpec(Spec):
    """The table.

    Attributes:
        models: The models, one after the other.
        unit: A key of `UNITS`.
        method: The method whose steps stand beside the uniform ones.
    """

    kind: ClassVar[str] = "joint"

    models: tuple[JointModel, ...]
    unit: str = "GFLOPs"
    method: str = "bracketed"

    @property
    def columns(self) -> dict[str, Column]:
        """The columns."""
        scores = dict.fromkeys((PSNR, *(n for m in self.models for n in m.scores)))
        return {
            "model": Column("model", names=True),
            "combination": Column("in place", names=True),
            "steps": Column("steps", names=True),
            "method": Column("time steps", names=True),
            "gamma": Column("γ", 3),
            "flops": Column(self.unit, 2),
            "ms": Column("ms", 1),
            **{n: Column(SCORES[n].name, SCORES[n].digits) for n in scores},
            "beyond": Column("ΔPSNR to plain at equal FLOPs, dB", 2, signed=True),
            "transfer": Column("ΔPSNR with the plain sampler's γ, dB", 2, signed=True),
            "front": Column("on the front by"),
        }

    def needs(self, known: Known) -> Needs:
        """Return searches, counts and timings of what is combined."""
        return combined_needs(known, self.models)

    def run_settings(self, known: Known) -> dict[str, dict[str, Any]]:
        """Return what decides the cost of each search."""
        return combined_settings(known, self.models)

    def table(self, results: Results) -> Table:
        """Return the table, and below it whether the plain sampler's γ stays optimal.

        Raises:
            ValueError: As `model_points`.
        """
        caption = self.caption + results.timed_on()
        rows = [row for model in self.models for row in self._rows(model, results)]
        notes = tuple(statements(self, results))
        return Table(self.title, caption, self.columns, rows, notes, **SHOWN)

    def _rows(self, model: JointModel, results: Results) -> list[Cells]:
        points = model_points(model, results, self.method)
        uniform = [
            point
            for point in points
            if point.combination == model.plain and point.method == UNIFORM
        ]
        fronts = {"FLOPs": front(points, "flops"), "ms": front(points, "ms")}
        moved = {
            (combination, each.steps): each.gain
            for combination in model.combinations[1:]
            for each in transfers(model, combination, results, self.method)
        }
        rows: list[Cells] = []
        for point in points:
            row: Cells = {
                "model": model.label,
                "combination": point.combination.label,
                "steps": point.steps,
                "method": UNIFORM if point.method == UNIFORM else "optimised",
                "gamma": point.gamma,
                "flops": point.flops * UNITS[self.unit],
                "ms": point.ms,
                "front": ", ".join(n for n, some in fronts.items() if point in some),
                **point.scores,
            }
            if point not in uniform:
                row["beyond"] = beyond_plain(point, uniform)
            if point.method == self.method:
                row["transfer"] = moved.get((point.combination, point.steps))
            # A column that none fills is not shown.
            rows.append({k: v for k, v in row.items() if v is not None or k in _ALWAYS})
        return rows


_ALWAYS = ("gamma", "ms")
_NAMED = ("model", "combination", "steps", "method")
SHOWN: dict[str, Any] = {
    "brief": (*_NAMED, "flops", "ms", PSNR, "beyond"),
    "pasted": (*_NAMED, "flops", PSNR, "beyond"),
}
"""Which of its columns a reader sees at once, and which an author pastes."""


@dataclass(frozen=True)
class Point:
    """A combination at a number of steps.

    Attributes:
        combination: What is combined.
        steps: Number of steps.
        method: What chose them.
        gamma: γ, if they have one.
        timesteps: The steps.
        flops: FLOPs of an image.
        ms: Milliseconds of an image, if they are known.
        scores: Of the held-out pairs, by name.
        pairs: PSNR to the reference of each of them.
    """

    combination: Combination
    steps: int
    method: str
    gamma: float | None
    timesteps: tuple[int, ...]
    flops: float
    ms: float | None
    scores: Mapping[str, Value]
    pairs: tuple[float, ...] = field(repr=False)

    def cost(self, key: str) -> float | None:
        """Return its ``flops`` or ``ms``."""
        return self.flops if key == "flops" else self.ms


def model_points(model: JointModel, found: Results, method: str) -> list[Point]:
    """Return a model's points: by combination, then steps, then uniform or not.

    Args:
        model: The model.
        found: All that is known.
        method: The method beside uniform steps.

    Raises:
        ValueError: If searches held out other numbers of pairs, or the first of them
            is not plain.
    """
    plain = model.plain.search
    for key, value in (("level", None), ("clock", 1)):
        if (given := found.runs[plain].get(key, value)) != value:
            raise ValueError(
                f"search {plain!r} of {model.label!r} is not plain: "
                f"its {key} is {given}"
            )
    points = [
        _point(combination, entry, found, model.scores)
        for combination in model.combinations
        for entry in found.step_searches[combination.search]["searches"]
        if entry["method"] in (UNIFORM, method)
    ]
    if len({len(point.pairs) for point in points}) > 1:
        raise ValueError(f"searches of {model.label!r} hold out other numbers of pairs")
    return points


def _point(
    combination: Combination,
    entry: Mapping[str, Any],
    found: Results,
    scores: Sequence[str],
) -> Point:
    run = {**found.runs[combination.search], "steps": entry["steps"]}
    heldout = entry["heldout"]
    for name in scores:
        if name not in heldout["scores"]:
            known = ", ".join(heldout["scores"])
            raise ValueError(
                f"search {combination.search!r}: score {name!r} is not one of {known}"
            )
    return Point(
        combination,
        entry["steps"],
        entry["method"],
        entry["gamma"],
        tuple(entry["timesteps"]),
        translation_flops(run, found.levels[run["translator"]], "flops"),
        translation_ms(run, found.level_latency.get(run["translator"], {})),
        {
            name: Value(*(heldout["scores"][name][end] for end in _ENDS))
            for name in (PSNR, *scores)
        },
        tuple(heldout["pairs"][PSNR]),
    )


_ENDS = ("value", "low", "high")
_GAIN = Column(None, 2, signed=True)


def front(points: Sequence[Point], key: str, score: str = PSNR) -> list[Point]:
    """Return the points that none betters: a higher score for no more of a cost.

    Args:
        points: The points; those whose cost is not known are left out.
        key: ``flops`` or ``ms``.
        score: A key of `SCORES`.

    Returns:
        The cheapest first.
    """
    known = [
        (cost, -point.scores[score].value, index)
        for index, point in enumerate(points)
        if (cost := point.cost(key)) is not None
    ]
    least, kept = math.inf, []
    for _, lack, index in sorted(known):
        if lack < least:
            least = lack
            kept.append(points[index])
    return kept


def beyond_plain(point: Point, plain: Sequence[Point]) -> Value | None:
    """Return by how much PSNR exceeds the plain sampler's at equal FLOPs, in pairs.

    Between two numbers of uniform steps, each pair's PSNR is interpolated linearly.

    Args:
        point: The point.
        plain: The plain sampler's points, uniform steps.

    Returns:
        The difference, or None where no two of these enclose the FLOPs.
    """
    ascending = sorted(plain, key=lambda each: each.flops)
    for low, high in zip(ascending, ascending[1:], strict=False):
        if low.flops <= point.flops <= high.flops:
            share = (point.flops - low.flops) / (high.flops - low.flops)
            between = (1 - share) * np.array(low.pairs) + share * np.array(high.pairs)
            return interval(np.array(point.pairs) - between)
    return None


def interval(values: np.ndarray) -> Value:
    """Return the mean of one value per pair, ``(N,)``, with its 95 % interval."""
    # The workflow reads this module to plan, without torch.
    import torch

    from clockwork_experiments.score.metrics import mean_score

    found = mean_score(torch.from_numpy(values))
    return Value(found.value, found.low, found.high)


@dataclass(frozen=True)
class Transfer:
    """What γ found without a clock or level is worth with it.

    Attributes:
        steps: Number of steps.
        found_without: That γ.
        found_with: γ found with it.
        gain: PSNR with the first minus PSNR with the second, both with it in place.
    """

    steps: int
    found_without: float
    found_with: float
    gain: Value


def transfers(
    model: JointModel, combination: Combination, found: Results, method: str
) -> list[Transfer]:
    """Return what the plain sampler's γ is worth in a combination, by steps.

    Nothing where it was not measured, as ``from_<search>``, beside the method.
    """
    searches = found.step_searches[combination.search]["searches"]
    entries = {(entry["steps"], entry["method"]): entry for entry in searches}
    asked = f"from_{model.plain.search}"
    made = []
    for steps in dict.fromkeys(entry["steps"] for entry in searches):
        other, own = entries.get((steps, asked)), entries.get((steps, method))
        if other is None or own is None:
            continue
        theirs, mine = (np.array(e["heldout"]["pairs"][PSNR]) for e in (other, own))
        gain = interval(theirs - mine)
        made.append(Transfer(steps, other["gamma"], own["gamma"], gain))
    return made


def statements(spec: JointTableSpec, found: Results) -> list[str]:
    """Say of each model and combination whether the plain sampler's γ stays optimal."""
    return [
        f"{model.label}, {combination.label}: {_statement(asked)}"
        for model in spec.models
        for combination in model.combinations[1:]
        if (asked := transfers(model, combination, found, spec.method))
    ]


def _statement(asked: Sequence[Transfer]) -> str:
    worse = [each for each in asked if _known(each.gain.high) < 0]
    better = [each for each in asked if _known(each.gain.low) > 0]
    same = [each for each in asked if each not in (*worse, *better)]
    kinds = (
        ("is worse than", worse),
        ("is better than", better),
        ("cannot be told from", same),
    )
    verdict = ", and ".join(
        f"{kind} γ found with it at {_steps(some)}" for kind, some in kinds if some
    )
    at = "; ".join(
        f"{each.steps} steps, γ {each.found_without:.3f} for {each.found_with:.3f}: "
        f"{_GAIN.show(each.gain)} dB"
        for each in asked
    )
    most = max(0.0, -min(_known(each.gain.low) for each in asked))
    return (
        f"the plain sampler's γ {verdict} ({at}). "
        f"By these intervals it costs {most:.2f} dB at most."
    )


def _known(end: float | None) -> float:
    assert end is not None  # `interval` gives both
    return end


def _steps(some: Sequence[Transfer]) -> str:
    *others, last = (str(each.steps) for each in some)
    return f"{', '.join(others)} and {last} steps" if others else f"{last} steps"
