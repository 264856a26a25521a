"""Numbers that claims about depth-skip are judged by: of levels, and of searches.

Counts are those of `count_levels`, timings those of `time_levels`, searches those of
`search_depth`. Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clockwork_experiments.cost.formulas import kept_share
from clockwork_experiments.report.tables.levels import image_macs
from clockwork_experiments.search.levels import PROBLEMS


@dataclass(frozen=True)
class LevelCount:
    """A level of a task's UNet.

    Attributes:
        translator: Id of the model.
        level: The level.
        steps: Sampling steps, for MACs against the print.
        expected: What the paper prints, in TMACs.
    """

    translator: str
    level: int
    steps: int = 0
    expected: float = 0.0

    def __post_init__(self) -> None:
        """Reject a printed number without its steps, and the reverse."""
        if bool(self.steps) != bool(self.expected):
            raise ValueError(
                f"steps {self.steps} and expected {self.expected:g} need each other"
            )


@dataclass(frozen=True)
class MultiRow:
    """A row and problem of a search for a level per step (Table S6).

    Attributes:
        search: Id of the search.
        row: The single depth that sets the constraint.
        problem: A key of `clockwork_experiments.search.levels.PROBLEMS`.
    """

    search: str
    row: int
    problem: str

    def __post_init__(self) -> None:
        """Reject unknown problems."""
        if self.problem not in PROBLEMS:
            raise ValueError(
                f"problem {self.problem!r} is not one of {', '.join(PROBLEMS)}"
            )


def count_of(
    metric: str, of: LevelCount, levels: Mapping[str, Mapping[str, Any]]
) -> float:
    """Return a counted number.

    Args:
        metric: ``deep_share``, the parameters at the level and deeper as a share of
            all; ``footprint``, the share that is saved by keeping it and nothing
            deeper; ``macs``, by how much ours exceed the printed, as a share;
            ``macs_saved``, the share of a call's MACs that is saved.
        of: Which level.
        levels: Counts by model.

    Raises:
        ValueError: If the model or the level is not counted.
    """
    if of.translator not in levels:
        known = ", ".join(levels) or "none"
        raise ValueError(f"{of.translator!r} is not one of those counted: {known}")
    counts = levels[of.translator]
    kept = kept_share(counts, of.level)
    if metric == "footprint":
        return 1 - kept
    if metric == "macs":
        return image_macs(counts, of.level, of.steps) * 1e-12 / of.expected - 1
    if metric == "macs_saved":
        whole = len(counts["levels"])
        return 1 - image_macs(counts, of.level, 1) / image_macs(counts, whole, 1)
    parameters = [entry["parameters"] for entry in counts["levels"]]
    return float(sum(parameters[of.level - 1 :]) / sum(parameters))


def times_saved(
    of: LevelCount, timings: Mapping[str, Mapping[str, Any]]
) -> list[float]:
    """Return the share of a call's time that a level saves, turn by turn.

    Raises:
        ValueError: If the model or the level is not timed.
    """
    if of.translator not in timings:
        known = ", ".join(timings) or "none"
        raise ValueError(f"{of.translator!r} is not one of those timed: {known}")
    timed = timings[of.translator]["levels"]
    if str(of.level) not in timed:
        raise ValueError(f"level {of.level} is not one of those timed")
    whole = max(timed, key=int)
    return [
        1 - one / other
        for one, other in zip(
            timed[str(of.level)]["runs"], timed[whole]["runs"], strict=True
        )
    ]


def multi_row(
    of: MultiRow, searches: Mapping[str, Mapping[str, Any]]
) -> Mapping[str, Any]:
    """Return what a search found for a row and problem, beyond the best single depth.

    Raises:
        ValueError: If it was not searched for.
    """
    rows: Sequence[Mapping[str, Any]] = (
        searches.get(of.search, {}).get("multi", {}).get("rows", ())
    )
    for row in rows:
        if row["row"] == of.row and row["problem"] == of.problem:
            beyond: Mapping[str, Any] = row["beyond_best_single"]
            return beyond
    raise ValueError(
        f"search {of.search!r} has no answer for D{of.row} and problem ({of.problem})"
    )


def multi_gains(
    of: MultiRow, searches: Mapping[str, Mapping[str, Any]], score: str
) -> list[float]:
    """Return what a schedule gains on held-out pairs beyond the best single depth.

    Args:
        of: Which answer.
        searches: Searches by id.
        score: ``clip_image`` or ``clip_direction``.

    Returns:
        One number per pair, as a share of the whole UNet's mean over the pairs.

    Raises:
        ValueError: If it was not searched for, or the whole UNet's mean is not above 0.
    """
    gained = multi_row(of, searches)["heldout_pairs"][score]
    whole = searches[of.search]["multi"]["heldout_full"][score]
    if whole <= 0:
        raise ValueError(
            f"search {of.search!r}: the whole UNet's {score} is {whole:g}, "
            "of which nothing is a share"
        )
    return [float(gain) / whole for gain in gained]
