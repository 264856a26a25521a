"""Compare a clock, depth-skip and time steps, alone and together; no paper does.

Time steps are those of `search_steps`, found and measured with the clock and the level
in place, against what the whole UNet makes at every one of many steps. Counts are those
of `count_levels`, timings those of `time_levels`. Nothing here needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from clockwork_experiments.base import storage
from clockwork_experiments.cost.formulas import translation_flops, translation_ms
from clockwork_experiments.report import level_tables
from clockwork_experiments.report.level_tables import Cells, LevelColumn
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

RESAMPLES = 2000
"""Resamples of an interval's bootstrap."""


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

    def __post_init__(self) -> None:
        """Reject unknown scores, and models of which nothing is tried."""
        for name in self.scores:
            if name not in SCORES:
                raise ValueError(f"score {name!r} is not one of {', '.join(SCORES)}")
        if not self.combinations:
            raise ValueError(f"nothing is tried on {self.label!r}")

    @property
    def plain(self) -> Combination:
        """The plain sampler."""
        return self.combinations[0]


@dataclass(frozen=True)
class JointTableSpec:
    """The table.

    Attributes:
        title: Its heading.
        caption: What the reader must know, in full sentences.
        models: The models, one after the other.
        unit: A key of `UNITS`.
        method: The method whose steps stand beside the uniform ones.
    """

    title: str
    caption: str
    models: tuple[JointModel, ...]
    unit: str = "GFLOPs"
    method: str = "bracketed"

    def __post_init__(self) -> None:
        """Reject other units."""
        check_unit(self.unit)


def check_unit(unit: str) -> None:
    """Refuse a unit of FLOPs that there is not.

    Raises:
        ValueError: In one line.
    """
    if unit not in UNITS:
        raise ValueError(f"unit {unit!r} is not one of {', '.join(UNITS)}")


# --- what was measured ----------------------------------------------------------------


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval.

    Attributes:
        value: The number.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float
    high: float


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
    scores: Mapping[str, Interval]
    pairs: tuple[float, ...] = field(repr=False)

    def cost(self, key: str) -> float | None:
        """Return its ``flops`` or ``ms``."""
        return self.flops if key == "flops" else self.ms


@dataclass(frozen=True)
class Measured:
    """All that is known of the models.

    Attributes:
        searches: By id, as `search_steps` writes them.
        runs: Settings of the searches, by id: ``translator``, ``guidance``, ``level``,
            ``clock``, …
        counts: By translator, as `count_levels` writes them.
        timings: By translator, as `time_levels` writes them, where there are any.
    """

    searches: Mapping[str, Mapping[str, Any]]
    runs: Mapping[str, Mapping[str, Any]]
    counts: Mapping[str, Mapping[str, Any]]
    timings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def read_measured(
    searches: Sequence[Path],
    runs: Mapping[str, Mapping[str, Any]],
    counts: Sequence[Path],
    timings: Sequence[Path],
) -> Measured:
    """Read what is known of the models; a file's stem is its id.

    Args:
        searches: As `search_steps` writes them, ``<search>.json``.
        runs: Settings of the searches, by id.
        counts: As `count_levels` writes them, ``<translator>.json``.
        timings: As `time_levels` writes them, likewise.
    """
    read = (
        {path.stem: storage.read_json(storage.existing(path)) for path in paths}
        for paths in (searches, counts, timings)
    )
    found, counted, timed = read
    return Measured(found, runs, counted, timed)


def devices(found: Measured) -> list[str]:
    """Return a sentence that says where calls were timed, if they were."""
    named = {f"{t['device']}, {t['dtype']}" for t in found.timings.values()}
    return [f"Timed on: {'; '.join(sorted(named))}."] if named else []


def model_points(model: JointModel, found: Measured, method: str) -> list[Point]:
    """Return a model's points: by combination, then steps, then uniform or not.

    Args:
        model: The model.
        found: All that is known.
        method: The method beside uniform steps.

    Raises:
        ValueError: If a search is missing, or was not measured on the same pairs
            against the same reference, or the first of them is not plain.
    """
    plain = model.plain.search
    for name in (each.search for each in model.combinations):
        if name not in found.searches:
            known = ", ".join(found.searches) or "none"
            raise ValueError(f"search {name!r} is not one of those: {known}")
        for key, of in (("reference", found.searches), ("translator", found.runs)):
            mine, theirs = of[name][key], of[plain][key]
            if mine != theirs:
                raise ValueError(
                    f"searches {plain!r} and {name!r} must have the same {key}, not "
                    f"{theirs!r} and {mine!r}"
                )
    for key, value in (("level", None), ("clock", 1)):
        if (given := found.runs[plain].get(key, value)) != value:
            raise ValueError(
                f"search {plain!r} of {model.label!r} is not plain: "
                f"its {key} is {given}"
            )
    points = [
        _point(combination, entry, found, model.scores)
        for combination in model.combinations
        for entry in found.searches[combination.search]["searches"]
        if entry["method"] in (UNIFORM, method)
    ]
    if len({len(point.pairs) for point in points}) > 1:
        raise ValueError(f"searches of {model.label!r} hold out other numbers of pairs")
    return points


def _point(
    combination: Combination,
    entry: Mapping[str, Any],
    found: Measured,
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
        translation_flops(run, found.counts[run["translator"]], "flops"),
        translation_ms(run, found.timings.get(run["translator"], {})),
        {
            name: Interval(*(heldout["scores"][name][end] for end in _ENDS))
            for name in (PSNR, *scores)
        },
        tuple(heldout["pairs"][PSNR]),
    )


_ENDS = ("value", "low", "high")


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


def beyond_plain(point: Point, plain: Sequence[Point]) -> Interval | None:
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


def interval(values: np.ndarray) -> Interval:
    """Return the mean of one value per pair, with a percentile bootstrap, ``(N,)``."""
    rows = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(values[rows].mean(axis=1), (0.025, 0.975))
    return Interval(float(values.mean()), float(low), float(high))


# --- whether γ stays optimal ----------------------------------------------------------


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
    gain: Interval


def transfers(
    model: JointModel, combination: Combination, found: Measured, method: str
) -> list[Transfer]:
    """Return what the plain sampler's γ is worth in a combination, by steps.

    Nothing where it was not measured, as ``from_<search>``, beside the method.
    """
    searches = found.searches[combination.search]["searches"]
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


def statements(spec: JointTableSpec, found: Measured) -> list[str]:
    """Say of each model and combination whether the plain sampler's γ stays optimal."""
    return [
        f"{model.label}, {combination.label}: {_statement(asked)}"
        for model in spec.models
        for combination in model.combinations[1:]
        if (asked := transfers(model, combination, found, spec.method))
    ]


def _statement(asked: Sequence[Transfer]) -> str:
    worse = [each for each in asked if each.gain.high < 0]
    better = [each for each in asked if each.gain.low > 0]
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
        f"{_signed(each.gain, 2)} dB"
        for each in asked
    )
    most = max(0.0, -min(each.gain.low for each in asked))
    return (
        f"the plain sampler's γ {verdict} ({at}). "
        f"By these intervals it costs {most:.2f} dB at most."
    )


def _steps(some: Sequence[Transfer]) -> str:
    *others, last = (str(each.steps) for each in some)
    return f"{', '.join(others)} and {last} steps" if others else f"{last} steps"


def _signed(number: Interval, digits: int) -> str:
    """Return a signed number and its interval."""
    low, high = (f"{each:+.{digits}f}" for each in (number.low, number.high))
    return f"{number.value:+.{digits}f} [{low}, {high}]".replace("-", "−")


# --- the table ------------------------------------------------------------------------


def columns_of(spec: JointTableSpec) -> dict[str, LevelColumn]:
    """Return the columns."""
    shown = dict.fromkeys((PSNR, *(n for model in spec.models for n in model.scores)))
    return {
        "model": LevelColumn("model"),
        "combination": LevelColumn("in place"),
        "steps": LevelColumn("steps", 0),
        "method": LevelColumn("time steps"),
        "gamma": LevelColumn("γ", 3),
        "flops": LevelColumn(spec.unit, 2),
        "ms": LevelColumn("ms", 1),
        **{n: LevelColumn(SCORES[n].name, SCORES[n].digits) for n in shown},
        "beyond": LevelColumn("ΔPSNR to plain at equal FLOPs, dB", 2),
        "transfer": LevelColumn("ΔPSNR with the plain sampler's γ, dB", 2),
        "front": LevelColumn("on the front by"),
    }


def fill(spec: JointTableSpec, found: Measured) -> list[Cells]:
    """Return the rows of the table, numbers with intervals as ``<key>_low``, ….

    Args:
        spec: The table.
        found: All that is known.

    Raises:
        ValueError: As `model_points`.
    """
    rows: list[Cells] = []
    for model in spec.models:
        points = model_points(model, found, spec.method)
        uniform = [
            point
            for point in points
            if point.combination == model.plain and point.method == UNIFORM
        ]
        fronts = {
            "FLOPs": front(points, "flops"),
            "ms": front(points, "ms"),
        }
        moved = {
            (combination, each.steps): each.gain
            for combination in model.combinations[1:]
            for each in transfers(model, combination, found, spec.method)
        }
        for point in points:
            row: Cells = {
                "model": model.label,
                "combination": point.combination.label,
                "steps": point.steps,
                "method": UNIFORM if point.method == UNIFORM else "optimised",
                "gamma": point.gamma,
                "flops": point.flops * UNITS[spec.unit],
                "ms": point.ms,
                "front": ", ".join(n for n, some in fronts.items() if point in some),
            }
            numbers: dict[str, Interval | None] = dict(point.scores)
            if point not in uniform:
                numbers["beyond"] = beyond_plain(point, uniform)
            if point.method == spec.method:
                key = (point.combination, point.steps)
                numbers["transfer"] = moved.get(key)
            for name, number in numbers.items():
                if number is not None:
                    row[name] = number.value
                    row[f"{name}_low"], row[f"{name}_high"] = number.low, number.high
            rows.append(row)
    return rows


def to_csv(spec: JointTableSpec, rows: Sequence[Cells]) -> str:
    """Return the table for machines, intervals in columns of their own."""
    columns = {}
    for name, column in columns_of(spec).items():
        columns[name] = column
        if any(f"{name}_low" in row for row in rows):
            columns |= {f"{name}_{end}": column for end in ("low", "high")}
    return level_tables.to_csv(columns, rows)


def to_text(spec: JointTableSpec, rows: Sequence[Cells]) -> list[Cells]:
    """Return the rows as people read them: differences signed, with intervals."""
    shown = []
    for row in rows:
        line: Cells = {}
        for name, column in columns_of(spec).items():
            value = row.get(name)
            line[name] = value
            if f"{name}_low" not in row or column.digits is None:
                continue
            number = Interval(*(_float(row[f"{name}{end}"]) for end in _SUFFIXES))
            text = _signed(number, column.digits)
            line[name] = text if name in _DIFFERENCES else text.replace("+", "")
        shown.append(line)
    return shown


_SUFFIXES = ("", "_low", "_high")
_DIFFERENCES = ("beyond", "transfer")


def _float(value: float | str | None) -> float:
    assert isinstance(value, float)
    return value
