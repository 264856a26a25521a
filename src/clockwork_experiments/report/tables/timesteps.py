"""The γ that searches for time steps find, their scores, and what searches cost.

Searches are those of `search_steps`. Printed values stand beside ours, as text, since
tables print the same score with different digits.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

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
from clockwork_experiments.score.student import student_quantile
from clockwork_experiments.search.methods import (
    UNIFORM,
    Bracketed,
    Ending,
    EvolutionFrechet,
    EvolutionPSNR,
    Greedy,
)

METHODS = {
    UNIFORM: UNIFORM,
    **{
        each.name: each.label
        for each in (EvolutionFrechet, EvolutionPSNR, Greedy, Bracketed, Ending)
    },
}
"""Where time steps come from, and how tables call it."""

GAMMA_METHODS = ("greedy", "bracketed")
"""Those that search for γ."""

BASELINES = ("evolution_frechet", "evolution_psnr")
"""What searches are compared with: the first of these that has run."""

UNITS = {"min": 60.0, "h": 3600.0}
"""Units of printed search times, in seconds."""

SCORES = {
    # CLIP's printed scores are a hundred times the cosine.
    "frechet": names.SCORES["frechet"],
    "clip": replace(names.SCORES["clip"], published="CLIP score"),
    **{n: names.SCORES[n] for n in ("aesthetic", "clip_image", "clip_direction")},
    "psnr": names.SCORES["psnr"],
    "psnr_to_teacher": names.SCORES["psnr_to_reference"],
    "lpips": names.SCORES["lpips"],
}
"""By the key that searches write."""

STEP_COLUMNS: dict[str, Column] = {
    "label": Column("model", names=True),
    "steps": Column("steps", names=True),
    "method": Column("time steps", names=True),
    **{f"{name}_published": Column(s.published_header) for name, s in SCORES.items()},
    "time_published": Column("search (published) ↓", beside="seconds"),
    "speed_up_published": Column("speed-up (published) ↑", 1, suffix="×"),
    "gamma": Column("γ", 3),
    **{name: Column(s.header, s.digits) for name, s in SCORES.items()},
    **{
        f"{name}_minus_uniform": Column(f"Δ{s.name}", s.digits, signed=True)
        for name, s in SCORES.items()
    },
    "n": Column("n"),
    "evaluations": Column("evaluations ↓"),
    "seconds": Column("search ↓", 1, suffix=" s"),
    "unet_calls": Column("search, UNet evaluations ↓"),
    "speed_up_seconds": Column("speed-up, s ↑", 1, suffix="×"),
    "speed_up_unet_calls": Column("speed-up, UNet evaluations ↑", 1, suffix="×"),
}
"""What tables of scores can show."""


@dataclass(frozen=True)
class GammaColumn:
    """A column of γ: of one model, and one way to run it.

    Attributes:
        label: Its header.
        search: Id of our search; without one, our cells are unknown.
        published: Printed γ, one for each number of steps.
    """

    label: str
    search: str = ""
    published: tuple[str, ...] = ()


@dataclass(frozen=True)
class SearchedSpec(Spec):
    """A table of what searches of time steps found."""

    @property
    def searches(self) -> dict[str, str]:
        """Return the searches that are shown, id to label."""
        raise NotImplementedError

    def _searched(self, known: Known) -> Needs:
        # A scale that has none sets its tables with what is published alone.
        names = self.searches if known.entries("step_searches") else ()
        files = [f"{known.base}/timesteps/{name}.json" for name in names]
        return {"step_searches": files} if files else {}

    def needs(self, known: Known) -> Needs:
        """Return the searches, where they are waited for."""
        return self._searched(known) if known.measured else {}

    def wishes(self, known: Known) -> Needs:
        """Return the searches otherwise."""
        return {} if known.measured else self._searched(known)


@dataclass(frozen=True)
class GammaTableSpec(SearchedSpec):
    """A table of the γ that searches find (Tables S1 and S2).

    Attributes:
        steps: Numbers of steps: as many groups of rows.
        columns: Its columns of γ.
    """

    kind: ClassVar[str] = "step_gammas"

    steps: tuple[int, ...]
    columns: tuple[GammaColumn, ...]

    def __post_init__(self) -> None:
        """Reject columns of one name, and printed values of other numbers of steps."""
        labels = ["steps", "method", *(column.label for column in self.columns)]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"{label!r} is the label of more than one column")
        for column in self.columns:
            if len(column.published) not in (0, len(self.steps)):
                raise ValueError(
                    f"{len(column.published)} values are published as "
                    f"{column.label!r}, and there are {len(self.steps)} numbers of "
                    "steps"
                )
            for text in column.published:
                _check_printed("gamma", text)

    @property
    def searches(self) -> dict[str, str]:
        """Return the searches that are shown, id to label."""
        return {column.search: column.label for column in self.columns if column.search}

    def table(self, results: Results) -> Table:
        """Return the table."""
        found = results.step_searches
        rows: list[Cells] = []
        for index, steps in enumerate(self.steps):
            line: Cells = {"steps": steps, "method": "published"}
            for each in self.columns:
                line[each.label] = each.published[index] if each.published else None
            rows.append(line)
            for method in GAMMA_METHODS:
                line = {"steps": steps, "method": METHODS[method]}
                for each in self.columns:
                    entry = _by_method(found, each.search, steps).get(method, {})
                    line[each.label] = gamma_of(entry)
                rows.append(line)
        columns = {name: STEP_COLUMNS[name] for name in ("steps", "method")}
        digits = STEP_COLUMNS["gamma"].digits
        columns |= {c.label: Column(c.label, digits) for c in self.columns}
        told = {name: _pairs(search) for name, search in found.items()}
        caption = self.caption + _ours(self.searches, told)
        return Table(self.title, caption, columns, rows)


@dataclass(frozen=True)
class StepRows:
    """Rows of a table of scores: one model at one number of steps, a row per method.

    Attributes:
        label: The model as the reader sees it.
        steps: Number of steps.
        search: Id of our search; without one, our cells are unknown.
        methods: Keys of `METHODS`.
        published: Printed values by method: scores by the names of `SCORES`, and the
            search's ``time`` with its unit, such as ``38.7 min``.
    """

    label: str
    steps: int
    search: str = ""
    methods: tuple[str, ...] = tuple(METHODS)
    published: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Reject unknown methods, and printed values of nothing."""
        for method in self.methods:
            if method not in METHODS:
                raise ValueError(
                    f"method {method!r} is not one of {', '.join(METHODS)}"
                )
        for method, printed in self.published.items():
            if method not in self.methods:
                raise ValueError(
                    f"method {method!r} is published, and not one of those shown: "
                    f"{', '.join(self.methods)}"
                )
            for name, text in printed.items():
                _check_printed(name, text)


@dataclass(frozen=True)
class ScoreTableSpec(SearchedSpec):
    """A table of what time steps are worth, and what it takes to find them.

    Attributes:
        columns: Keys of `STEP_COLUMNS`.
        rows: The rows.
    """

    kind: ClassVar[str] = "step_scores"

    columns: tuple[str, ...]
    rows: tuple[StepRows, ...]

    def __post_init__(self) -> None:
        """Reject unknown columns, and printed values that no column shows."""
        for name in self.columns:
            if name not in STEP_COLUMNS:
                raise ValueError(
                    f"column {name!r} is not one of {', '.join(STEP_COLUMNS)}"
                )
        self.check_chosen(tuple(STEP_COLUMNS))
        for rows in self.rows:
            for name in dict.fromkeys(n for p in rows.published.values() for n in p):
                if f"{name}_published" not in self.columns:
                    raise ValueError(
                        f"{name!r} is published of {rows.label!r}, and "
                        f"'{name}_published' is not one of the columns "
                        f"{', '.join(self.columns)}"
                    )

    @property
    def searches(self) -> dict[str, str]:
        """Return the searches that are shown, id to label."""
        return {rows.search: rows.label for rows in self.rows if rows.search}

    def table(self, results: Results) -> Table:
        """Return the table; a score has its interval beside it."""
        found = results.step_searches
        columns = {name: STEP_COLUMNS[name] for name in self.columns}
        rows: list[Cells] = []
        for group in self.rows:
            entries = _by_method(found, group.search, group.steps)
            for method in group.methods:
                printed = group.published.get(method, {})
                known: Cells = {
                    "label": group.label,
                    "steps": group.steps,
                    "method": METHODS[method],
                    "speed_up_published": _printed_speed_up(group, method),
                    **{f"{name}_published": text for name, text in printed.items()},
                    **(_measured(entries, method) if method in entries else {}),
                }
                rows.append({name: known.get(name) for name in columns})
        told = {name: _pairs(each) + _held_out(each) for name, each in found.items()}
        caption = self.caption + _ours(self.searches, told)
        return Table(self.title, caption, columns, rows)


def printed_seconds(text: str) -> float:
    """Return a printed search time in seconds.

    Raises:
        ValueError: If it is no number with one of `UNITS`.

    >>> printed_seconds("40.5 h")
    145800.0
    """
    number, _, unit = text.partition(" ")
    if unit not in UNITS:
        raise ValueError(
            f"time {text!r} is not a number with a unit of {', '.join(UNITS)}"
        )
    _check_printed("time in its unit", number)
    return float(number) * UNITS[unit]


def _check_printed(name: str, text: str) -> None:
    """Refuse a printed value that is no number."""
    if name == "time":
        printed_seconds(text)
        return
    try:
        float(text)
    except ValueError:
        raise ValueError(f"{name} {text!r} is not a printed number") from None


def _by_method(
    found: Mapping[str, Mapping[str, Any]], search: str, steps: int
) -> dict[str, Mapping[str, Any]]:
    """Return what a search found at one number of steps, by method."""
    entries = found.get(search, {}).get("searches", ())
    return {entry["method"]: entry for entry in entries if entry["steps"] == steps}


def gamma_of(entry: Mapping[str, Any]) -> Value | None:
    """Return γ of an answer, with an interval if its search was run on resamples.

    Their spread is the standard error of ln γ, with Student's t.
    """
    if entry.get("gamma") is None:
        return None
    again = [math.log(each) for each in entry.get("resampled", ())]
    if not again:
        return Value(entry["gamma"])
    half = student_quantile(len(again) - 1, 0.975) * statistics.stdev(again)
    ends = (entry["gamma"] * math.exp(sign * half) for sign in (-1, 1))
    return Value(entry["gamma"], *ends)


def _measured(entries: Mapping[str, Mapping[str, Any]], method: str) -> Cells:
    """Return what a method's time steps are worth, and what finding them took."""
    entry = entries[method]
    heldout = entry["heldout"]
    cells: Cells = {"gamma": entry["gamma"], "frechet": heldout.get("frechet")}
    scores = dict(heldout["scores"])
    for name, gain in heldout.get("minus_uniform", {}).items():
        scores[f"{name}_minus_uniform"] = gain
    for name, score in scores.items():
        cells[name] = Value(score["value"], score["low"], score["high"])
        cells["n"] = score["n"]
    if method == "uniform":  # nothing is searched
        return cells
    baseline = next((entries[name] for name in BASELINES if name in entries), None)
    cells["evaluations"] = entry["evaluations"]
    for cost in ("seconds", "unet_calls"):
        cells[cost] = entry[cost]
        if baseline is not None and entry[cost]:
            cells[f"speed_up_{cost}"] = baseline[cost] / entry[cost]
    return cells


def _printed_speed_up(rows: StepRows, method: str) -> float | None:
    """Return how many times less a search takes than AutoDiffusion, as printed."""
    times = {name: printed.get("time") for name, printed in rows.published.items()}
    own = times.get(method)
    other = next((times[name] for name in BASELINES if times.get(name)), None)
    if own is None or other is None:
        return None
    return printed_seconds(other) / printed_seconds(own)


def _pairs(search: Mapping[str, Any]) -> str:
    return f"searched on {search['pairs']['search']} pairs"


def _held_out(search: Mapping[str, Any]) -> str:
    made = search["references"]
    return (
        f", scored on {search['pairs']['heldout']} others; the reference of "
        f"{search['reference']} steps took {made['unet_calls']} UNet evaluations and "
        f"{made['seconds']:.1f} s more"
    )


def _ours(labels: Mapping[str, str], told: Mapping[str, str]) -> str:
    """Return what a caption adds on our searches: what is told of each, once."""
    texts: dict[str, list[str]] = {}
    for name, label in labels.items():
        if name in told:
            texts.setdefault(told[name], []).append(label)
    if len(texts) == 1:
        return f" Ours: {next(iter(texts))}."
    return "".join(f" {', '.join(of)}: {text}." for text, of in texts.items())


STEP_TABLES = {each.kind: each for each in (GammaTableSpec, ScoreTableSpec)}
"""Kinds of tables of time-step optimisation, by their names."""
