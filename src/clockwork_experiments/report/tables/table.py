"""Set a table: Markdown and LaTeX for people, CSV for machines.

A cell is a number, a number with its interval, text, or None for what is not known.
Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from clockwork_experiments.base import storage
from clockwork_experiments.random import marks
from clockwork_experiments.report.kinds import Given, Kind
from clockwork_experiments.score import dead

UNKNOWN = "—"


@dataclass(frozen=True)
class Value:
    """A number of a cell, with the ends of its interval if it has one.

    Attributes:
        value: The number.
        low: The lower end.
        high: The upper end.
        signed: Whether a positive number gets its sign, whatever its column says.
    """

    value: float
    low: float | None = None
    high: float | None = None
    signed: bool = False


Cell = Value | float | str | None
Cells = dict[str, Cell]
"""A row by column key."""


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        header: What the reader sees; None if only the CSV has the column.
        digits: Decimals of a number. Text is shown as it is.
        factor: Applied to a number before showing; the CSV has it as it is.
        signed: Whether a positive number gets its sign.
        suffix: Shown behind a number.
        csv: Whether the CSV has the column.
    """

    header: str | None
    digits: int = 0
    factor: float = 1.0
    signed: bool = False
    suffix: str = ""
    csv: bool = True

    def show(self, cell: Cell) -> str:
        """Return a cell as people read it, its interval in brackets."""
        if cell is None or isinstance(cell, str):
            return cell if cell is not None else UNKNOWN
        if not isinstance(cell, Value):
            return self._number(cell) + self.suffix
        text, low, high = (
            "" if number is None else self._number(number, cell.signed)
            for number in (cell.value, cell.low, cell.high)
        )
        return (
            f"{text}{self.suffix} [{low}, {high}]"
            if low and high
            else text + (self.suffix)
        )

    def _number(self, number: float, signed: bool = False) -> str:
        sign = "+" if self.signed or signed else ""
        return f"{number * self.factor:{sign}.{self.digits}f}".replace("-", "−")


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: Its heading.
        caption: What the reader must know, in full sentences.
        columns: The columns by key. Those of which no row says anything, be it a dash,
            are not shown.
        rows: The rows.
        notes: Sentences below the caption.
        align: Of all its columns but the first, ``left`` or ``right``.
    """

    title: str
    caption: str
    columns: Mapping[str, Column]
    rows: Sequence[Cells]
    notes: tuple[str, ...] = ()
    align: str = "right"

    def text(self) -> list[dict[str, str]]:
        """Return the rows as people read them, by column."""
        shown = self._shown()
        return [
            {key: column.show(row.get(key)) for key, column in shown.items()}
            for row in self.rows
        ]

    def files(self, label: str) -> dict[str, str]:
        """Return what to write, by suffix; the label is for LaTeX's references."""
        return {
            ".csv": self.csv(),
            ".md": self.markdown(),
            ".tex": self.latex(label),
        }

    def csv(self) -> str:
        """Return numbers, the ends of their intervals in columns of their own."""
        data: dict[str, list[Any]] = {}
        for key, column in self._known().items():
            if not column.csv:
                continue
            cells = [row.get(key) for row in self.rows]
            data[key] = [c.value if isinstance(c, Value) else c for c in cells]
            if any(isinstance(c, Value) and c.low is not None for c in cells):
                for end in ("low", "high"):
                    data[f"{key}_{end}"] = [getattr(cell, end, None) for cell in cells]
        text: str = pd.DataFrame(data).to_csv(index=False)
        return text

    def markdown(self) -> str:
        """Return the table with its title, caption and notes."""
        # "a <style> of" must not become a tag, nor a bar a column.
        frame = self._frame().map(lambda text: _replaced(text, _HTML))
        text: str = frame.to_markdown(
            index=False,
            disable_numparse=True,
            colalign=["left"] + [self.align] * (frame.shape[1] - 1),
        )
        notes = "".join(f"- {note}\n" for note in self.notes)
        below = f"\n{notes}" if notes else ""
        return f"**{self.title}**\n\n{text}\n\n{self.caption}\n{below}"

    def latex(self, label: str) -> str:
        """Return the table in LaTeX (booktabs)."""
        frame = self._frame().map(escape)
        frame.columns = pd.Index([escape(header) for header in frame.columns])
        caption = " ".join([f"{self.title}. {self.caption}", *self.notes])
        text: str = frame.to_latex(
            index=False, caption=escape(caption), label=f"tab:{label}", position="tb"
        )
        return text.replace(UNKNOWN, "---").replace("−", "$-$")

    def _known(self) -> dict[str, Column]:
        return {
            key: column
            for key, column in self.columns.items()
            if any(key in row for row in self.rows)
        }

    def _shown(self) -> dict[str, Column]:
        return {k: c for k, c in self._known().items() if c.header is not None}

    def _frame(self) -> pd.DataFrame:
        headers = [column.header for column in self._shown().values()]
        return pd.DataFrame(
            [list(line.values()) for line in self.text()], columns=headers
        )


_HTML = {"<": "&lt;", ">": "&gt;", "|": "\\|"}
_LATEX = {
    "\\": "\\textbackslash{}",
    **{symbol: f"\\{symbol}" for symbol in "&%_#"},
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "τ": "$\\tau$",
    "γ": "$\\gamma$",
    "Δ": "$\\Delta$",
    "↓": "$\\downarrow$",
    "↑": "$\\uparrow$",
    "×": "$\\times$",
}


def escape(text: str) -> str:
    """Return text as LaTeX takes it."""
    return _replaced(text, _LATEX)


def _replaced(text: str, symbols: Mapping[str, str]) -> str:
    for symbol, replacement in symbols.items():
        text = text.replace(symbol, replacement)
    return text


@dataclass(frozen=True)
class Results:
    """What other steps have yielded, as plain data read from JSON.

    Attributes:
        runs: Settings of each run by id: ``model``, ``adaptor``, ``sampler``; of
            translations and searches ``translator`` and how it samples.
        scores: Scores by run, as `score_images` and `score_translations` write them.
        flops: Counts by model, as `count_flops` writes them.
        latency: Timings, as `time_sampling` writes them.
        profiles: Profiles of edits by model, as `profile_editing` writes them.
        edit_latency: Timings of edits by ``<edit>/<setting>``, and the bytes that each
            keeps of an image, as `time_editing` writes them.
        levels: Counts of translators' levels, as `count_levels` writes them.
        level_latency: Timings of these, as `time_levels` writes them.
        search: A search of levels, as `search_depth` writes it.
        step_searches: Searches of time steps by id, as `search_steps` writes them.
    """

    runs: Mapping[str, Mapping[str, Any]]
    scores: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    flops: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    latency: Mapping[str, Any] = field(default_factory=dict)
    profiles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    edit_latency: Mapping[str, Any] = field(default_factory=dict)
    levels: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    level_latency: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    search: Mapping[str, Any] = field(default_factory=dict)
    step_searches: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def timed_on(self) -> str:
        """Return a sentence that says where levels were timed; empty if nowhere."""
        named = {f"{t['device']}, {t['dtype']}" for t in self.level_latency.values()}
        return f" Timed on: {'; '.join(sorted(named))}." if named else ""


@dataclass(frozen=True)
class Spec(Kind):
    """What a table at one scale is made from; each kind adds what it shows."""

    def make(self, given: Given) -> Table:
        """Return the table."""
        return self.table(results_of(given))

    def table(self, results: Results) -> Table:
        """Return the table of results."""
        raise NotImplementedError


def results_of(given: Given) -> Results:
    """Return results of the files that a kind is given."""
    by_id = ("flops", "profiles", "levels", "level_latency", "step_searches")
    return Results(
        runs=given.runs,
        scores=_scores(given.paths("scores")),
        **{name: given.each(name) for name in by_id},
        **{name: given.one(name) for name in ("latency", "edit_latency", "search")},
    )


def _scores(paths: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Return the scores of sampled and of edited runs, and of translations, by run.

    Args:
        paths: Files of sampled runs, and ``<edit_set>/<setting>.json`` of edited ones.
    """
    scores = {}
    for path in paths:
        scored = storage.read_json(path)
        if "edits" not in scored:
            scores[scored.get("translation") or scored["run"]] = scored
            continue
        for edit, values in scored["edits"].items():
            name = f"{path.parent.name}/{edit}/{path.stem}"
            mark = {marks.KEY: marks.marks(scored)}
            mark[dead.KEY] = scored.get(dead.KEY, {}).get(edit, {})
            scores[name] = {"scores": values, **mark}
    return scores
