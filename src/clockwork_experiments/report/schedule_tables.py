"""Set Table S6: what a level for each step gains over one level for all of them.

Searches are those of `search_depth`. Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clockwork_experiments.report import level_tables
from clockwork_experiments.report.level_tables import Cells, LevelColumn
from clockwork_experiments.score.names import SCORES
from clockwork_experiments.search.levels import DIRECTION, LIKENESS, PROBLEMS

LIKE, TOLD = SCORES[LIKENESS], SCORES[DIRECTION]

COLUMNS: dict[str, LevelColumn] = {
    "problem": LevelColumn("problem"),
    "row": LevelColumn("against"),
    "levels": LevelColumn("levels, first steps first"),
    "time_published": LevelColumn("Δtime, % (published)", 2),
    "time": LevelColumn("Δtime, %", 2),
    "milliseconds": LevelColumn("Δtime, %, measured", 2),
    f"{LIKENESS}_published": LevelColumn(f"Δ{LIKE.name} (published)", 2),
    LIKENESS: LevelColumn(f"Δ{LIKE.name}, held out", LIKE.digits),
    f"{DIRECTION}_published": LevelColumn(f"Δ{TOLD.name} (published)", 2),
    DIRECTION: LevelColumn(f"Δ{TOLD.name}, held out", TOLD.digits),
    "parameters_published": LevelColumn("Δparameters, % (published)", 2),
    "parameters": LevelColumn("Δparameters, %", 2),
    "best_single": LevelColumn("best single level"),
    "time_beyond": LevelColumn("Δtime to that, %", 2),
}

PRINTED = ("time", LIKENESS, DIRECTION, "parameters")
"""What may be published of a row."""


@dataclass(frozen=True)
class MultiTableRow:
    """A row of the table.

    Attributes:
        row: The single depth that schedules are compared with.
        problem: A key of `clockwork_experiments.search.levels.PROBLEMS`.
        published: Printed values, by the names of `PRINTED`.
    """

    row: int
    problem: str
    published: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Reject unknown problems, and printed values of nothing."""
        if self.problem not in PROBLEMS:
            raise ValueError(
                f"problem {self.problem!r} is not one of {', '.join(PROBLEMS)}"
            )
        for name in self.published:
            if name not in PRINTED:
                raise ValueError(f"{name!r} is not one of {', '.join(PRINTED)}")


@dataclass(frozen=True)
class MultiTableSpec:
    """Table S6.

    Attributes:
        title: Its heading.
        caption: What the reader must know, in full sentences.
        rows: The rows.
        search: Id of our search; without one, our cells are unknown.
    """

    title: str
    caption: str
    rows: tuple[MultiTableRow, ...]
    search: str = ""


def fill(spec: MultiTableSpec, found: Mapping[str, Any]) -> list[Cells]:
    """Return the rows of the table; a held-out gain has its interval beside it.

    Args:
        spec: The table.
        found: As `search_depth` writes it; empty if there is none.

    Raises:
        ValueError: If the search has no answer for a row.
    """
    answers = {
        (answer["row"], answer["problem"]): answer
        for answer in found.get("multi", {}).get("rows", ())
    }
    cells = []
    for row in spec.rows:
        line: Cells = {
            "problem": f"({row.problem}) {PROBLEMS[row.problem].title}",
            "row": level_tables.level_name(row.row),
            **{f"{name}_published": value for name, value in row.published.items()},
        }
        if found:
            if (row.row, row.problem) not in answers:
                raise ValueError(
                    f"the search has no answer for D{row.row} and problem "
                    f"({row.problem})"
                )
            answer = answers[row.row, row.problem]
            line["levels"] = ", ".join(str(level) for level in answer["levels"])
            # Measured time, where the levels were timed.
            line |= answer["savings"]
            line["best_single"] = level_tables.level_name(answer["best_single"])
            line["time_beyond"] = answer["beyond_best_single"]["savings"]["time"]
            for name in (LIKENESS, DIRECTION):
                gain = answer["heldout"][name]
                line[name] = gain["value"]
                line[f"{name}_low"], line[f"{name}_high"] = gain["low"], gain["high"]
        cells.append(line)
    return cells


def to_csv(cells: Sequence[Cells]) -> str:
    """Return the table for machines, intervals in columns of their own."""
    columns = {}
    for name, column in COLUMNS.items():
        columns[name] = column
        if name in (LIKENESS, DIRECTION):
            columns |= {f"{name}_{end}": column for end in ("low", "high")}
    return level_tables.to_csv(columns, cells)


def to_text(cells: Sequence[Cells]) -> list[Cells]:
    """Return the rows as people read them: signed, intervals in brackets."""
    rows = []
    for line in cells:
        shown: Cells = {name: line.get(name) for name in COLUMNS if name in line}
        for name, column in COLUMNS.items():
            value = line.get(name)
            if isinstance(value, str) or value is None:
                continue
            text = f"{value:+.{column.digits}f}"
            if f"{name}_low" in line:
                low, high = line[f"{name}_low"], line[f"{name}_high"]
                text += f" [{low:+.{column.digits}f}, {high:+.{column.digits}f}]"
            shown[name] = text.replace("-", "−")
        rows.append(shown)
    return rows
