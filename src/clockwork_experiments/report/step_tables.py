"""Set tables of time-step optimisation: the γ found, scores, and what searches cost.

Searches are those of `search_steps`. Printed values stand beside ours, as text, since
tables print the same metric with different digits; what is not known is an em dash.
Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from clockwork_experiments.report import level_tables
from clockwork_experiments.report.level_tables import Cells, LevelColumn
from clockwork_experiments.score import names

METHODS = {
    "uniform": "uniform",
    "evolution_frechet": "AutoDiffusion, Fréchet distance",
    "evolution_psnr": "AutoDiffusion, PSNR",
    "greedy": "γ, greedy search",
    "bracketed": "γ, bracketed search (ours)",
    "ending": "end and γ apart (ours)",
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

STEP_COLUMNS: dict[str, LevelColumn] = {
    "label": LevelColumn("model"),
    "steps": LevelColumn("steps", 0),
    "method": LevelColumn("time steps"),
    **{
        f"{name}_published": LevelColumn(score.published_header)
        for name, score in SCORES.items()
    },
    "time_published": LevelColumn("search (published) ↓"),
    "speed_up_published": LevelColumn("speed-up (published) ↑", 1),
    "gamma": LevelColumn("γ", 3),
    **{name: LevelColumn(score.header, score.digits) for name, score in SCORES.items()},
    **{
        f"{name}_minus_uniform": LevelColumn(f"Δ{score.name}", score.digits)
        for name, score in SCORES.items()
    },
    "n": LevelColumn("n", 0),
    "evaluations": LevelColumn("evaluations ↓", 0),
    "seconds": LevelColumn("search, s ↓", 1),
    "unet_calls": LevelColumn("search, UNet evaluations ↓", 0),
    "speed_up_seconds": LevelColumn("speed-up, s ↑", 1),
    "speed_up_unet_calls": LevelColumn("speed-up, UNet evaluations ↑", 1),
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
class GammaTableSpec:
    """A table of the γ that searches find (Tables S1 and S2).

    Attributes:
        title: Its heading.
        caption: What the reader must know, in full sentences.
        steps: Numbers of steps: as many groups of rows.
        columns: Its columns of γ.
    """

    title: str
    caption: str
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
                if name not in (*SCORES, "time"):
                    raise ValueError(
                        f"{name!r} is not one of {', '.join((*SCORES, 'time'))}"
                    )
                _check_printed(name, text)


@dataclass(frozen=True)
class ScoreTableSpec:
    """A table of what time steps are worth, and what it takes to find them.

    Attributes:
        title: Its heading.
        caption: What the reader must know, in full sentences.
        columns: Keys of `STEP_COLUMNS`.
        rows: The rows.
    """

    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[StepRows, ...]

    def __post_init__(self) -> None:
        """Reject unknown columns, and printed values that no column shows."""
        for name in self.columns:
            if name not in STEP_COLUMNS:
                raise ValueError(
                    f"column {name!r} is not one of {', '.join(STEP_COLUMNS)}"
                )
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


StepTableSpec = GammaTableSpec | ScoreTableSpec
"""The tables of this module."""


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


def columns_of(spec: StepTableSpec) -> dict[str, LevelColumn]:
    """Return a table's columns in order, intervals not included."""
    if isinstance(spec, ScoreTableSpec):
        return {name: STEP_COLUMNS[name] for name in spec.columns}
    columns = {name: STEP_COLUMNS[name] for name in ("steps", "method")}
    digits = STEP_COLUMNS["gamma"].digits
    return columns | {c.label: LevelColumn(c.label, digits) for c in spec.columns}


def fill(spec: StepTableSpec, found: Mapping[str, Mapping[str, Any]]) -> list[Cells]:
    """Return the rows of a table; a score has the ends of its interval beside it.

    Args:
        spec: The table.
        found: Searches by id, as `search_steps` writes them, where there are any.

    Raises:
        ValueError: If a search is not one that the table shows, or has a method that
            there is not.
    """
    for name, search in found.items():
        if name not in spec.searches:
            shown = ", ".join(spec.searches) or "none"
            raise ValueError(
                f"search {name!r} is not one that the table shows: {shown}"
            )
        for entry in search["searches"]:
            if entry["method"] not in METHODS:
                raise ValueError(
                    f"search {name!r} has a method {entry['method']!r}, which is not "
                    f"one of {', '.join(METHODS)}"
                )
    if isinstance(spec, GammaTableSpec):
        return _fill_gammas(spec, found)
    return [line for rows in spec.rows for line in _fill_rows(spec, rows, found)]


def _fill_gammas(
    spec: GammaTableSpec, found: Mapping[str, Mapping[str, Any]]
) -> list[Cells]:
    lines = []
    for index, steps in enumerate(spec.steps):
        line: Cells = {"steps": steps, "method": "published"}
        for column in spec.columns:
            printed = column.published
            line[column.label] = printed[index] if printed else None
        lines.append(line)
        for method in GAMMA_METHODS:
            line = {"steps": steps, "method": METHODS[method]}
            for column in spec.columns:
                entry = _by_method(found, column.search, steps).get(method, {})
                line[column.label] = entry.get("gamma")
            lines.append(line)
    return lines


def _fill_rows(
    spec: ScoreTableSpec, rows: StepRows, found: Mapping[str, Mapping[str, Any]]
) -> list[Cells]:
    entries = _by_method(found, rows.search, rows.steps)
    lines = []
    for method in rows.methods:
        line: Cells = dict.fromkeys(spec.columns)
        known: Cells = {
            "label": rows.label,
            "steps": rows.steps,
            "method": METHODS[method],
            "speed_up_published": _printed_speed_up(rows, method),
            **{
                f"{name}_published": text
                for name, text in rows.published.get(method, {}).items()
            },
        }
        if method in entries:
            known |= _measured(entries, method)
        # Ends of intervals go with the columns that they are of.
        ends = [f"{name}_{end}" for name in spec.columns for end in ("low", "high")]
        line |= {k: v for k, v in known.items() if k in (*spec.columns, *ends)}
        lines.append(line)
    return lines


def _by_method(
    found: Mapping[str, Mapping[str, Any]], search: str, steps: int
) -> dict[str, Mapping[str, Any]]:
    """Return what a search found at one number of steps, by method."""
    entries = found.get(search, {}).get("searches", ())
    return {entry["method"]: entry for entry in entries if entry["steps"] == steps}


def _measured(entries: Mapping[str, Mapping[str, Any]], method: str) -> Cells:
    """Return what a method's time steps are worth, and what finding them took."""
    entry = entries[method]
    heldout = entry["heldout"]
    cells: Cells = {"gamma": entry["gamma"], "frechet": heldout.get("frechet")}
    scores = dict(heldout["scores"])
    for name, gain in heldout.get("minus_uniform", {}).items():
        scores[f"{name}_minus_uniform"] = gain
    for name, score in scores.items():
        cells[name] = score["value"]
        cells[f"{name}_low"], cells[f"{name}_high"] = score["low"], score["high"]
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


def notes(spec: StepTableSpec, found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what to add to a caption: pairs of our searches, and their references."""
    texts: dict[str, list[str]] = {}
    for name, label in spec.searches.items():
        if name not in found:
            continue
        search = found[name]
        pairs, made = search["pairs"], search["references"]
        text = f"searched on {pairs['search']} pairs"
        if isinstance(spec, ScoreTableSpec):
            text += (
                f", scored on {pairs['heldout']} others; the reference of "
                f"{search['reference']} steps took {made['unet_calls']} UNet "
                f"evaluations and {made['seconds']:.1f} s more"
            )
        texts.setdefault(text, []).append(label)
    if len(texts) == 1:
        return f" Ours: {next(iter(texts))}."
    return "".join(f" {', '.join(of)}: {text}." for text, of in texts.items())


def to_csv(columns: Mapping[str, LevelColumn], cells: Sequence[Cells]) -> str:
    """Return a table for machines, intervals in columns of their own."""
    # Those without an interval in any row are not shown.
    known = {
        key: column
        for name, column in columns.items()
        for key in (name, f"{name}_low", f"{name}_high")
    }
    return level_tables.to_csv(known, cells)


def to_text(columns: Mapping[str, LevelColumn], cells: Sequence[Cells]) -> list[Cells]:
    """Return the rows as people read them.

    Intervals are in brackets, differences signed, and speed-ups say how many times.
    """
    return [
        {name: _show(line, name, column) for name, column in columns.items()}
        for line in cells
    ]


def _show(line: Cells, name: str, column: LevelColumn) -> str | None:
    value = line.get(name)
    if value is None or isinstance(value, str):
        return value
    sign = "+" if name.endswith("_minus_uniform") else ""

    def show(number: float | str | None) -> str:
        return f"{number:{sign}.{column.digits}f}"

    text = show(value)
    if name.startswith("speed_up"):
        text += "×"
    if f"{name}_low" in line:
        text += f" [{show(line[f'{name}_low'])}, {show(line[f'{name}_high'])}]"
    return text.replace("-", "−")
