"""Search for how deep a UNet must be: one level, or one for each sampling step.

A *schedule* is a level per sampling step, the first step first; what it is worth is
measured by sampling with it, from fixed noise, so that a search knows nothing but a
function from schedules to metrics.

**Single depth** (Kim et al. 2024): from the deepest level upwards, drop one level at a
time until a metric breaks its threshold; the level before that is chosen.

**Multi-depth** (Table S6 there): a level for each step. The memory is that of the
deepest level used, the time is the mean over the steps. The published search is not
described; this is ours:

1. Steps form G contiguous groups, as equal as can be. For each group and level, what
   the metrics change by is measured if that group alone ends at that level; and for
   each level, what they change by if all do.
2. The prediction for any assignment of levels to groups is the sum of its groups' own
   changes, and of what each pair of groups adds to that: a pair makes up for each
   other down to the deeper of its two levels, and all pairs at one level together
   account for what that level's own measurement differs from the sum. So whatever was
   measured is predicted exactly. All assignments are gone through; time and memory are
   exact.
3. The most promising few are measured for real. One that falls short by more than
   predicted makes the next ones keep as much distance, as long as there are such.
4. The answer is the best of all that was measured, for whichever row and problem, which
   keeps the constraint. The single depth is always among it, and so is each other one:
   the best of those is named beside it, since what a shallower level alone would save
   is no merit of a level for each step.

So on the images of the search an answer is never worse than a single depth; what it is
worth elsewhere has to be measured elsewhere.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from clockwork_experiments.cost.formulas import kept_share, typical_ms

Schedule = tuple[int, ...]
"""A level per sampling step, the first step first."""

Metrics = Mapping[str, float]
"""What a schedule is worth, by metric."""

Evaluate = Callable[[Schedule], Metrics]
"""Measures a schedule."""

LIKENESS, DIRECTION = "clip_image", "clip_direction"
"""CLIP_I and CLIP_D, the two metrics of Table S6; of both, more is better."""

LOWER_IS_BETTER = ("frechet", "lpips", "lpips_to_teacher")
"""Metrics of which less is better."""

MOST_ASSIGNMENTS = 1_000_000
"""Assignments that are gone through, at most."""


class Evaluations:
    """Measure each schedule once, and know how many that were.

    Attributes:
        measured: What was measured, by schedule.
    """

    def __init__(self, evaluate: Evaluate) -> None:
        """Bind the function that measures."""
        self._evaluate = evaluate
        self.measured: dict[Schedule, Metrics] = {}

    def __call__(self, schedule: Schedule) -> Metrics:
        """Return a schedule's metrics, measured now or before."""
        if schedule not in self.measured:
            self.measured[schedule] = self._evaluate(schedule)
        return self.measured[schedule]

    def __len__(self) -> int:
        """Return the number of measurements."""
        return len(self.measured)


# --- single depth ---------------------------------------------------------------------


@dataclass(frozen=True)
class Threshold:
    """What a metric must keep to.

    Attributes:
        metric: Its name.
        at_least: The least that it may be; or None.
        at_most: The most that it may be; or None.
        of_full: The bound is a multiple of the full model's own value.
    """

    metric: str
    at_least: float | None = None
    at_most: float | None = None
    of_full: bool = False

    def __post_init__(self) -> None:
        """Reject thresholds without a bound, with two, or on the wrong side."""
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(
                f"the threshold of {self.metric!r} needs either at_least or at_most"
            )
        if (self.metric in LOWER_IS_BETTER) != (self.at_most is not None):
            side = "at_most" if self.metric in LOWER_IS_BETTER else "at_least"
            raise ValueError(f"the threshold of {self.metric!r} must be {side}")

    def limit(self, full: Metrics) -> float:
        """Return the bound in the metric's own unit, given the full model's metrics.

        Raises:
            ValueError: If the metric is not measured, or no multiple of the full
                model's value is a bound, as it is not positive.
        """
        if self.metric not in full:
            raise ValueError(
                f"the metric {self.metric!r} is not one of {', '.join(full)}"
            )
        bound = self.at_least if self.at_least is not None else self.at_most
        assert bound is not None
        if not self.of_full:
            return bound
        if full[self.metric] <= 0:
            raise ValueError(
                f"the full model's {self.metric} is {full[self.metric]:g}, "
                "of which no share is a threshold"
            )
        return bound * full[self.metric]

    def keeps(self, value: float, limit: float) -> bool:
        """Tell whether a value keeps to the limit."""
        return value >= limit if self.at_least is not None else value <= limit


@dataclass(frozen=True)
class Scan:
    """What a scan of the levels found.

    Attributes:
        metrics: By level, the deepest first.
        limits: Bound of each metric that has one.
        broken: By level, the metrics that break their thresholds.
        chosen: The level before the first that breaks one.
    """

    metrics: dict[int, Metrics]
    limits: dict[str, float]
    broken: dict[int, tuple[str, ...]]
    chosen: int


def scan(
    evaluate: Evaluate,
    thresholds: Sequence[Threshold],
    levels: Sequence[int],
    steps: int,
    *,
    whole: bool = True,
) -> Scan:
    """Drop one level at a time until a metric breaks its threshold.

    Args:
        evaluate: Measures a schedule.
        thresholds: What the metrics must keep to.
        levels: The levels, from the full model's upwards.
        steps: Number of sampling steps.
        whole: Go on through all levels, for the curve; the choice is the same.

    Raises:
        ValueError: If there is no threshold, the levels do not go upwards, or the full
            model itself breaks a threshold.
    """
    if not thresholds:
        raise ValueError("a scan needs a threshold")
    if not levels or list(levels) != sorted(set(levels), reverse=True):
        raise ValueError(f"levels {list(levels)} do not go from the deepest upwards")
    full = evaluate((levels[0],) * steps)
    limits = {each.metric: each.limit(full) for each in thresholds}
    metrics: dict[int, Metrics] = {}
    broken: dict[int, tuple[str, ...]] = {}
    chosen = None
    for above, level in zip((None, *levels), levels, strict=False):
        metrics[level] = evaluate((level,) * steps)
        broken[level] = tuple(
            each.metric
            for each in thresholds
            if not each.keeps(metrics[level][each.metric], limits[each.metric])
        )
        if broken[level] and chosen is None:
            if above is None:
                raise ValueError(
                    f"the full model breaks the threshold of {broken[level][0]}: it is "
                    f"{full[broken[level][0]]:g}, and the limit is "
                    f"{limits[broken[level][0]]:g}"
                )
            chosen = above
            if not whole:
                break
    return Scan(metrics, limits, broken, levels[-1] if chosen is None else chosen)


# --- a level for each step ------------------------------------------------------------


@dataclass(frozen=True)
class MultiSpec:
    """How to search for a level for each step.

    Attributes:
        groups: G, contiguous groups of steps that share a level.
        levels: The levels to choose from.
        rows: The single depths that answers are compared with, each one of them.
        verified: Assignments that are measured for each row and problem, at most.
        tolerance: By how much less than the row's a metric counts as the same, in
            problem (a).
    """

    groups: int
    levels: tuple[int, ...]
    rows: tuple[int, ...]
    verified: int
    tolerance: float = 0.005

    def __post_init__(self) -> None:
        """Reject searches that find nothing, or never end."""
        if self.groups < 1 or self.verified < 1:
            raise ValueError(
                f"groups {self.groups} and verified {self.verified} must be 1 or more"
            )
        if len(set(self.levels)) != len(self.levels) or not self.levels:
            raise ValueError(f"levels {list(self.levels)} are none, or not distinct")
        for row in self.rows:
            if row not in self.levels:
                listed = ", ".join(map(str, self.levels))
                raise ValueError(f"row {row} is not one of the levels ({listed})")
        count = len(self.levels) ** self.groups
        if count > MOST_ASSIGNMENTS:
            raise ValueError(
                f"{len(self.levels)} levels for {self.groups} groups are {count:,} "
                f"assignments, and {MOST_ASSIGNMENTS:,} are the most"
            )


@dataclass(frozen=True)
class Problem:
    """What is held fixed, and what is to be as good as it can be (Table S6).

    Attributes:
        title: In words.
        goal: ``time``, or the metric to raise.
        memory: No deeper than the row.
        time: No slower than the row.
        quality: Both metrics as good as the row's, but for a tolerance if
            ``tolerant``.
        tolerant: See there.
    """

    title: str
    goal: str
    memory: bool = False
    time: bool = False
    quality: bool = False
    tolerant: bool = False


PROBLEMS: dict[str, Problem] = {
    "a": Problem(
        "fixed memory, least time", "time", memory=True, quality=True, tolerant=True
    ),
    "b": Problem("fixed time, most CLIP_I", LIKENESS, time=True),
    "c": Problem("fixed time, most CLIP_D", DIRECTION, time=True),
    "d": Problem("fixed quality, least time", "time", quality=True),
}
"""The four problems of Table S6."""


@dataclass(frozen=True)
class Candidate:
    """A schedule that was measured for a row and problem.

    Attributes:
        levels: By group.
        predicted: Both metrics by the surrogate.
        measured: Both metrics as measured.
        holds: Whether it keeps the constraint.
    """

    levels: Schedule
    predicted: dict[str, float]
    measured: dict[str, float]
    holds: bool


@dataclass(frozen=True)
class Answer:
    """The best schedule for a row and problem.

    Attributes:
        row: The single depth that it is compared with.
        problem: A key of `PROBLEMS`.
        levels: By group; those of the row if nothing better was found.
        schedule: By step.
        metrics: As measured in the search.
        best_single: The best single depth under the row's constraint.
        candidates: What was measured for this row and problem, in that order.
    """

    row: int
    problem: str
    levels: Schedule
    schedule: Schedule
    metrics: dict[str, float]
    best_single: int
    candidates: tuple[Candidate, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the fields."""
        return asdict(self)


@dataclass(frozen=True)
class Multi:
    """What a search with a level for each step found.

    Attributes:
        sizes: Steps of each group.
        changes: By group, level and metric: what it changes if that group alone ends
            at that level.
        joint: By level and metric: what it changes if all groups end there, beyond the
            sum of those.
        answers: By row and problem.
        evaluations: Schedules that were measured and had not been before, by purpose.
    """

    sizes: tuple[int, ...]
    changes: tuple[dict[int, dict[str, float]], ...]
    joint: dict[int, dict[str, float]]
    answers: tuple[Answer, ...]
    evaluations: dict[str, int] = field(default_factory=dict)


def group_sizes(steps: int, groups: int) -> tuple[int, ...]:
    """Return the number of steps in each of G contiguous groups, equal but for one.

    Raises:
        ValueError: If there are more groups than steps.
    """
    if not 1 <= groups <= steps:
        raise ValueError(f"{groups} groups are not between 1 and {steps} steps")
    ends = [steps * index // groups for index in range(groups + 1)]
    return tuple(after - before for before, after in itertools.pairwise(ends))


def expand(levels: Sequence[int], sizes: Sequence[int]) -> Schedule:
    """Return the level of each step, given that of each group."""
    return tuple(
        level for level, size in zip(levels, sizes, strict=True) for _ in range(size)
    )


def search_levels(
    evaluate: Evaluations,
    spec: MultiSpec,
    steps: int,
    full: int,
    times: Mapping[int, int],
) -> Multi:
    """Search for a level for each step; see the module's text.

    Args:
        evaluate: Measures schedules, both metrics at least.
        spec: How to search.
        steps: Number of sampling steps.
        full: The level of the full model.
        times: Cost of a step by level, such as MACs: whole numbers, which add up
            without rounding.

    Raises:
        ValueError: If there are more groups than steps, or a level has no cost.
    """
    for level in spec.levels:
        if level not in times:
            raise ValueError(f"level {level} has no cost")
    sizes = group_sizes(steps, spec.groups)
    before = len(evaluate)
    whole = evaluate((full,) * steps)
    changes = []
    for group in range(spec.groups):
        alone: dict[int, dict[str, float]] = {}
        for level in spec.levels:
            levels = [full] * spec.groups
            levels[group] = level
            found = evaluate(expand(levels, sizes))
            alone[level] = {
                name: found[name] - whole[name] for name in (LIKENESS, DIRECTION)
            }
        changes.append(alone)
    counts = {"sensitivities": len(evaluate) - before}
    before = len(evaluate)
    joint = {}
    for level in spec.levels:
        found = evaluate((level,) * steps)
        joint[level] = {
            name: found[name]
            - whole[name]
            - sum(alone[level][name] for alone in changes)
            for name in (LIKENESS, DIRECTION)
        }
    counts["constant"] = len(evaluate) - before
    before = len(evaluate)
    surrogate = Surrogate(
        {name: whole[name] for name in (LIKENESS, DIRECTION)}, tuple(changes), joint
    )
    rows = [_Row(evaluate, spec, sizes, surrogate, times, row) for row in spec.rows]
    tried = {(row.row, name): row.verify(name) for row in rows for name in PROBLEMS}
    counts["candidates"] = len(evaluate) - before
    answers = tuple(
        row.answer(name, tried[row.row, name]) for row in rows for name in PROBLEMS
    )
    return Multi(sizes, tuple(changes), joint, answers, counts)


@dataclass(frozen=True)
class Surrogate:
    """Predicts both metrics of any assignment; exact where it was measured.

    Attributes:
        full: Of the full model.
        changes: As in `Multi`.
        joint: As in `Multi`.
    """

    full: dict[str, float]
    changes: tuple[dict[int, dict[str, float]], ...]
    joint: dict[int, dict[str, float]]

    def __call__(self, levels: Schedule) -> dict[str, float]:
        """Predict, given the level of each group."""
        pairs = [max(pair) for pair in itertools.combinations(levels, 2)]
        predicted = {}
        for name, value in self.full.items():
            alone = sum(
                change[level][name]
                for change, level in zip(self.changes, levels, strict=True)
            )
            together = sum(self.joint[level][name] for level in pairs)
            predicted[name] = value + alone + together / max(1, len(pairs))
        return predicted


@dataclass(frozen=True)
class _Row:
    """The problems of one row."""

    evaluate: Evaluations
    spec: MultiSpec
    sizes: tuple[int, ...]
    surrogate: Surrogate
    times: Mapping[int, int]
    row: int

    @property
    def single(self) -> Schedule:
        """The row's own level at every group."""
        return (self.row,) * len(self.sizes)

    def time(self, levels: Schedule) -> int:
        """Return what all steps cost."""
        return sum(
            self.times[level] * size
            for level, size in zip(levels, self.sizes, strict=True)
        )

    def measure(self, levels: Schedule) -> dict[str, float]:
        """Measure both metrics."""
        found = self.evaluate(expand(levels, self.sizes))
        return {name: found[name] for name in (LIKENESS, DIRECTION)}

    def affords(self, problem: Problem, levels: Schedule) -> bool:
        """Tell whether an assignment keeps the fixed time and memory."""
        if problem.memory and max(levels) > self.row:
            return False
        return not problem.time or self.time(levels) <= self.time(self.single)

    def needed(self, problem: Problem) -> dict[str, float]:
        """Return the least that the metrics may be."""
        if not problem.quality:
            return {}
        slack = self.spec.tolerance if problem.tolerant else 0.0
        return {n: v - slack for n, v in self.measure(self.single).items()}

    def rank(
        self, problem: Problem, levels: Schedule, metrics: Metrics
    ) -> tuple[Any, ...]:
        """Return what the best has least of; ties go to what is better otherwise."""
        time, memory = self.time(levels), max(levels)
        if problem.goal == "time":
            return (time, -sum(metrics.values()), memory, levels)
        return (-metrics[problem.goal], time, memory, levels)

    def verify(self, name: str) -> tuple[Candidate, ...]:
        """Measure the most promising assignments."""
        problem = PROBLEMS[name]
        needed, own = self.needed(problem), self.measure(self.single)
        start = self.rank(problem, self.single, own)[0]
        order = []
        for levels in itertools.product(self.spec.levels, repeat=len(self.sizes)):
            if not self.affords(problem, levels) or len(set(levels)) == 1:
                continue  # single depths are measured already
            predicted = self.surrogate(levels)
            rank = self.rank(problem, levels, predicted)
            if rank[0] < start:
                order.append((rank, levels, predicted))
        order.sort(key=lambda each: each[0])
        tried: list[Candidate] = []
        distance = dict.fromkeys(needed, 0.0)
        while order and len(tried) < self.spec.verified:
            reaching = (
                index
                for index, (_, _, predicted) in enumerate(order)
                if _margin(predicted, needed) >= 0
                and all(
                    predicted[each] >= least + distance[each]
                    for each, least in needed.items()
                )
            )
            index = next(reaching, None)
            if index is None:
                # None is predicted to keep such a distance: the one that keeps most.
                index = max(
                    range(len(order)), key=lambda i: _margin(order[i][2], needed)
                )
            _, levels, predicted = order.pop(index)
            measured = self.measure(levels)
            holds = _margin(measured, needed) >= 0
            tried.append(Candidate(levels, predicted, measured, holds))
            if holds and problem.goal == "time":
                # What is slower is of no use any more.
                order = [o for o in order if self.time(o[1]) < self.time(levels)]
            for each, least in needed.items():
                if measured[each] < least:
                    gap = predicted[each] - measured[each]
                    distance[each] = max(distance[each], gap)
        return tuple(tried)

    def answer(self, name: str, tried: tuple[Candidate, ...]) -> Answer:
        """Choose from all that was measured, for whichever row and problem."""
        problem, groups = PROBLEMS[name], len(self.sizes)
        singles = [(level,) * groups for level in self.spec.levels]
        single = self.best(problem, singles)[0]
        known = [
            levels
            for levels in itertools.product(self.spec.levels, repeat=groups)
            if expand(levels, self.sizes) in self.evaluate.measured
        ]
        best = self.best(problem, known)
        schedule = expand(best, self.sizes)
        return Answer(self.row, name, best, schedule, self.measure(best), single, tried)

    def best(self, problem: Problem, choices: Sequence[Schedule]) -> Schedule:
        """Choose the best that keeps the constraint; the row if nothing is better."""
        needed = self.needed(problem)
        best, found = self.single, self.measure(self.single)
        for levels in choices:
            measured = self.measure(levels)
            if not self.affords(problem, levels) or _margin(measured, needed) < 0:
                continue
            if (
                self.rank(problem, levels, measured)[0]
                < self.rank(problem, best, found)[0]
            ):
                best, found = levels, measured
        return best


def _margin(metrics: Metrics, needed: Metrics) -> float:
    """Return by how much metrics exceed what is needed, the worst of them."""
    return min((metrics[name] - least for name, least in needed.items()), default=0.0)


# --- what it saves --------------------------------------------------------------------


@dataclass(frozen=True)
class LevelCosts:
    """What a UNet costs down to each level.

    Attributes:
        macs: MACs of a step at batch 1, with ControlNet's branch if there is one.
        parameters: Share of the full UNet's parameters, as in Table S7: the time
            embedding is left out, and the output layers count in what is kept alone.
        milliseconds: Measured time of a step, or None.
    """

    macs: Mapping[int, int]
    parameters: Mapping[int, float]
    milliseconds: Mapping[int, float] | None = None

    @property
    def full(self) -> int:
        """The level of the full model."""
        return max(self.macs)

    def savings(self, schedule: Schedule, row: int) -> dict[str, float]:
        """Return by how much a schedule differs from a single depth.

        Returns:
            ``time`` and ``parameters``, in percentage points of the full model's, as
            Table S6 has them, and ``milliseconds``, such points of measured time, if
            there is a measurement.
        """
        found = {
            "time": _points(self.macs, schedule, row, self.full),
            "parameters": 100 * (self.parameters[max(schedule)] - self.parameters[row]),
        }
        if self.milliseconds is not None:
            times = self.milliseconds
            found["milliseconds"] = _points(times, schedule, row, self.full)
        return found


def _points(
    times: Mapping[int, float], schedule: Schedule, row: int, full: int
) -> float:
    gap = sum(times[level] - times[row] for level in schedule) / len(schedule)
    return 100 * gap / times[full]


def level_costs(
    counted: Mapping[str, Any], timed: Mapping[str, Any] | None = None
) -> LevelCosts:
    """Read the costs of levels from what `count_levels` and `time_levels` write.

    Args:
        counted: Of `count_levels`.
        timed: Of `time_levels`, or None.
    """
    rows = {int(row["level"]): row for row in counted["levels"]}
    branch = 0 if counted["branch"] is None else counted["branch"]["macs_with_norms"]
    macs = {
        level: row["count"]["macs_with_norms"] + branch for level, row in rows.items()
    }
    parameters = {level: min(1.0, kept_share(counted, level)) for level in rows}
    if timed is None:
        return LevelCosts(macs, parameters)
    extra = 0.0 if timed["branch"] is None else typical_ms(timed["branch"])
    milliseconds = {
        int(level): typical_ms(timing) + extra
        for level, timing in timed["levels"].items()
    }
    return LevelCosts(macs, parameters, milliseconds)
