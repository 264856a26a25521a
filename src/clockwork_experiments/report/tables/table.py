"""Set a table: Markdown and LaTeX for people, CSV for machines.

A cell is a number, a number with its interval, text, or None for what is not known.
A wide table is whole as CSV and HTML alone; what reads it as Markdown or pastes its
LaTeX gets the columns that its kind chooses. Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from clockwork_experiments.base import storage
from clockwork_experiments.random import marks
from clockwork_experiments.report import latex, pages
from clockwork_experiments.report.kinds import Given, Kind
from clockwork_experiments.report.latex import PUBLISHED
from clockwork_experiments.report.latex import UNKNOWN as UNKNOWN
from clockwork_experiments.score import dead


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
        names: Whether it says which row it is, as a label does.
        beside: Of a printed value, the key of ours, where that is not its own key
            without ``_published``.
    """

    header: str | None
    digits: int = 0
    factor: float = 1.0
    signed: bool = False
    suffix: str = ""
    csv: bool = True
    names: bool = False
    beside: str = ""

    def show(self, cell: Cell) -> str:
        """Return a cell as people read it, its interval in brackets."""
        return " ".join(filter(None, self.pair(cell)))

    def pair(self, cell: Cell) -> tuple[str, str]:
        """Return the same as the number and its interval, which may be empty."""
        if cell is None or isinstance(cell, str):
            return cell if cell is not None else UNKNOWN, ""
        if not isinstance(cell, Value):
            return self._number(cell) + self.suffix, ""
        text = self._number(cell.value, cell.signed) + self.suffix
        if cell.low is None or cell.high is None:
            return text, ""
        ends = (self._number(end, cell.signed) for end in (cell.low, cell.high))
        return text, f"[{', '.join(ends)}]"

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
        brief: Keys of what Markdown shows, in its order; all columns if empty.
        pasted: The same of LaTeX; what Markdown shows if empty.
        stacked: Whether both have printed values above ours, not beside them.
    """

    title: str
    caption: str
    columns: Mapping[str, Column]
    rows: Sequence[Cells]
    notes: tuple[str, ...] = ()
    align: str = "right"
    brief: tuple[str, ...] = ()
    pasted: tuple[str, ...] = ()
    stacked: bool = False

    def text(self) -> list[dict[str, str]]:
        """Return the rows as people read them, by column."""
        shown = self.shown
        return [
            {key: column.show(row.get(key)) for key, column in shown.items()}
            for row in self.rows
        ]

    def files(self, label: str) -> dict[str, str]:
        """Return what to write, by suffix; the label is for LaTeX's references."""
        return {
            ".csv": self.csv(),
            ".md": self.markdown(),
            ".html": pages.to_page(self.markdown(whole=True), self.title),
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

    def markdown(self, *, whole: bool = False) -> str:
        """Return the table with its title, caption and notes.

        Args:
            whole: Show all columns.
        """
        shown = self if whole else self._view(self.brief)
        # "a <style> of" must not become a tag, nor a bar a column.
        headers = [column.header for column in shown.shown.values()]
        frame = pd.DataFrame(
            [list(line.values()) for line in shown.text()], columns=headers
        ).map(lambda text: _replaced(text, _HTML))
        text: str = frame.to_markdown(
            index=False,
            disable_numparse=True,
            colalign=["left"] + [self.align] * (frame.shape[1] - 1),
        )
        notes = self.notes
        if len(shown.shown) < len(self.shown):
            notes += (f"{FURTHER} {len(self.shown)} columns.",)
        below = "".join(f"- {note}\n" for note in notes)
        return f"**{self.title}**\n\n{text}\n\n{self.caption}\n" + (
            f"\n{below}" if below else ""
        )

    def latex(self, label: str) -> str:
        """Return the table in LaTeX, as an author pastes it."""
        return latex.write_table(self._view(self.pasted or self.brief), label)

    @property
    def shown(self) -> dict[str, Column]:
        """The columns that a reader sees."""
        return {k: c for k, c in self._known().items() if c.header is not None}

    def _known(self) -> dict[str, Column]:
        return {
            key: column
            for key, column in self.columns.items()
            if any(key in row for row in self.rows)
        }

    def _view(self, keys: Sequence[str]) -> Table:
        """Return the table with some of its columns, in their order.

        Raises:
            ValueError: If there is no such column.
        """
        for key in keys:
            if key not in self.columns:
                known = ", ".join(self.columns)
                raise ValueError(f"shown column {key!r} is not one of {known}")
        chosen = {key: self.columns[key] for key in keys or self.columns}
        view = replace(self, columns=chosen, brief=(), pasted=())
        return view._stacked() if self.stacked else view

    def _stacked(self) -> Table:
        """Return the table with a row for what is printed above one for ours."""
        columns = {k: c for k, c in self.columns.items() if c.names}
        columns["by"] = Column("by", names=True)
        pairs = {
            key: (column.beside or key.removesuffix("_published"), column)
            for key, column in self.shown.items()
            if not column.names
        }
        for own, column in pairs.values():
            header = (column.header or "").replace(PUBLISHED, "")
            columns.setdefault(own, Column(header))
        rows: list[Cells] = []
        for row in self.rows:
            for by in ("published", "ours"):
                cells: Cells = {
                    own: column.show(row[key])
                    for key, (own, column) in pairs.items()
                    if (key != own) == (by == "published") and row.get(key) is not None
                }
                if cells:
                    named = {k: row.get(k) for k, c in self.columns.items() if c.names}
                    blank = {own: None for own, _ in pairs.values()}
                    rows.append({**blank, **named, "by": by, **cells})
        return replace(self, columns=columns, rows=rows, stacked=False)


FURTHER = "Shortened; the CSV file and the HTML page of the same name have all"
"""Begins the note on columns that are not shown."""

_HTML = {"<": "&lt;", ">": "&gt;", "|": "\\|"}


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
    """What a table at one scale is made from; each kind adds what it shows.

    Attributes:
        brief: Keys of the columns that Markdown shows, in its order; all if left out.
        pasted: The same of LaTeX; what Markdown shows if left out.
        stacked: Whether both have printed values above ours, not beside them.
    """

    brief: tuple[str, ...] = field(default=(), kw_only=True)
    pasted: tuple[str, ...] = field(default=(), kw_only=True)
    stacked: bool = field(default=False, kw_only=True)

    def make(self, given: Given) -> Table:
        """Return the table."""
        return self.chosen(self.table(results_of(given)))

    def check_chosen(self, known: Sequence[str]) -> None:
        """Refuse to show columns that there are not.

        Raises:
            ValueError: In one line.
        """
        for name in (*self.brief, *self.pasted):
            if name not in known:
                raise ValueError(
                    f"shown column {name!r} is not one of {', '.join(known)}"
                )

    def chosen(self, table: Table) -> Table:
        """Return the table as people read it: with the columns that are chosen.

        Of those it shows what it has: who leaves a column out need not say it twice.
        """
        brief, pasted = (
            tuple(name for name in names if name in table.columns)
            for names in (self.brief, self.pasted)
        )
        return replace(
            table,
            brief=brief or table.brief,
            pasted=pasted or table.pasted,
            stacked=self.stacked or table.stacked,
        )

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
