r"""Set a table in LaTeX as an author pastes it, and the document that shows them all.

Wants the packages array and booktabs, and nothing else. Numbers of a column have the
same decimals and stand flush right, so that their digits are aligned; intervals are
small, in a column of their own. Printed values come first, under one heading, then
ours; the caption is the title, and all that is to be said stands below. Nothing here
needs torch.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clockwork_experiments.report.tables.table import Cells, Column, Table

UNKNOWN = "—"

PUBLISHED = " (published)"
"""Ends the headings of printed values."""

CAPTION = 200
"""Letters that a caption may have."""

SYMBOLS = {
    "\\": "\\textbackslash{}",
    **{symbol: f"\\{symbol}" for symbol in "&%_#${}"},
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    **{
        symbol: f"${command}$"
        for symbol, command in {
            "−": "-",
            "±": "\\pm",
            "×": "\\times",
            "·": "\\cdot",
            "≤": "\\leq",
            "≥": "\\geq",
            "≈": "\\approx",
            "→": "\\to",
            "↓": "\\downarrow",
            "↑": "\\uparrow",
            "∅": "\\emptyset",
            "∞": "\\infty",
            "√": "\\surd",
            "⌈": "\\lceil",
            "⌉": "\\rceil",
            "⌊": "\\lfloor",
            "⌋": "\\rfloor",
            "∈": "\\in",
            "≡": "\\equiv",
            "²": "^2",
            "α": "\\alpha",
            "γ": "\\gamma",
            "Δ": "\\Delta",
            "ε": "\\varepsilon",
            "η": "\\eta",
            "κ": "\\kappa",
            "λ": "\\lambda",
            "σ": "\\sigma",
            "τ": "\\tau",
        }.items()
    },
    UNKNOWN: "---",
    "–": "--",
    "…": "\\ldots{}",
    "“": "``",
    "”": "''",
    "’": "'",
    "\u00a0": "~",
    "\u202f": "\\,",
    "ö": '\\"o',
    "é": "\\'e",
}
"""What LaTeX takes, by symbol; all other text must be ASCII."""
_TABLE = {ord(symbol): text for symbol, text in SYMBOLS.items()}


def escape(text: str) -> str:
    """Return text as LaTeX takes it."""
    # A unit keeps to its number.
    return text.replace(" %", "\u202f%").translate(_TABLE)


def write_table(table: Table, label: str) -> str:
    """Return a table as LaTeX: a float with caption, booktabs and notes.

    Args:
        table: The table, with the columns that are to be shown.
        label: What references to it name, behind ``tab:``.

    Raises:
        ValueError: If its title is too long for a caption.
    """
    caption = _caption(table.title)
    if len(caption) > CAPTION:
        raise ValueError(
            f"title {table.title!r} makes a caption of {len(caption)} letters, more "
            f"than {CAPTION}"
        )
    groups = _groups(table)
    columns = [each for _, some in groups for each in some]
    spanned = {
        key
        for key, column in columns
        if any(column.pair(row.get(key))[1] for row in table.rows)
    }
    left = {key for key, column in columns if column.names or table.align == "left"}
    widths = [2 if key in spanned else 1 for key, _ in columns]
    lines = [
        "% Needs \\usepackage{array,booktabs}.",
        "\\begin{table}[tbp]",
        f"\\centering{_size(table, columns)}\\setlength{{\\tabcolsep}}{{3pt}}",
        f"\\caption{{{escape(caption)}}}",
        f"\\label{{tab:{label}}}",
        f"\\begin{{tabular}}{{@{{}}{_alignment(table, columns, left, spanned)}@{{}}}}",
        "\\toprule",
        *_headings(groups, widths),
        " & ".join(
            _heading(column, key in left, key in spanned) for key, column in columns
        )
        + " \\\\",
        "\\midrule",
        *_body(table.rows, columns, spanned),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    told = " ".join([table.caption, *table.notes])
    if told:
        lines += [
            "\\par\\smallskip",
            "\\begin{minipage}{\\linewidth}\\footnotesize",
            escape(told),
            "\\end{minipage}",
        ]
    return "\n".join([*lines, "\\end{table}", ""])


def _caption(title: str) -> str:
    """Return a title without a number, which LaTeX gives.

    >>> _caption("Table S6 at mini scale: levels")
    'Levels (Table S6, mini scale)'
    """
    numbered = re.fullmatch(r"(Table \w+)(?: at (\w+ scale))?: (.+)", title)
    if not numbered:
        return title
    number, scale, said = numbered.groups()
    # A first word such as γ has no other capital that a reader would know.
    first = said[0].upper() if said[0].isascii() else said[0]
    return f"{first}{said[1:]} ({', '.join(filter(None, (number, scale)))})"


Columns = list[tuple[str, "Column"]]


def _groups(table: Table) -> list[tuple[str, Columns]]:
    """Return columns by what stands above them: nothing, then printed, then ours.

    Columns of which nothing is known are left out.
    """
    named: Columns = []
    printed: Columns = []
    ours: Columns = []
    for key, column in table.shown.items():
        if column.names:
            named.append((key, column))
        elif any(row.get(key) is not None for row in table.rows):
            is_printed = PUBLISHED in (column.header or "")
            (printed if is_printed else ours).append((key, column))
    if not printed:
        return [("", [*named, *ours])]
    return [("", named), ("Published", printed), ("Ours", ours)]


def _size(table: Table, columns: Columns) -> str:
    """Return the largest type in which the table is about as wide as a page."""
    letters = 0.0
    for key, column in columns:
        pairs = [column.pair(row.get(key)) for row in table.rows]
        number, interval = (max(map(len, each)) for each in zip(*pairs, strict=True))
        heading = max(map(len, textwrap.wrap(column.header or "", HEADING)), default=0)
        letters += max(min(number, LONG) + 0.9 * interval, heading) + 2
    return next(size for size, most in SIZES.items() if letters <= most)


SIZES = {"\\small": 88, "\\footnotesize": 101, "\\scriptsize": math.inf}
"""Types, and how many letters they put on a line."""

HEADING = 14
"""Letters of a heading before it breaks."""


def _alignment(
    table: Table, columns: Columns, left: set[str], spanned: set[str]
) -> str:
    """Return the tabular's columns; a long text may break."""
    told = []
    for key, column in columns:
        longest = max(len(column.pair(row.get(key))[0]) for row in table.rows)
        if longest > LONG:
            told.append(f">{{\\raggedright\\arraybackslash}}p{{{WIDE}}}")
        else:
            told.append("l" if key in left else "r")
        if key in spanned:
            told.append("@{\\,}l")
    return "".join(told)


LONG, WIDE = 34, "0.28\\linewidth"
"""Letters of a cell that is broken, and the width that it then has."""


def _headings(
    groups: Sequence[tuple[str, Columns]], widths: Sequence[int]
) -> list[str]:
    """Return the line above the headings, and its rules; none if all is ours."""
    if len(groups) == 1:
        return []
    cells, rules, start, index = [], [], 1, 0
    for title, columns in groups:
        count = sum(widths[index : index + len(columns)])
        index += len(columns)
        if not count:
            continue
        told = f"{{c}}{{{title}}}" if title else "{l}{}"
        cells.append(f"\\multicolumn{{{count}}}{told}")
        if title:
            rules.append(f"\\cmidrule(lr){{{start}-{start + count - 1}}}")
        start += count
    return [" & ".join(cells) + " \\\\", "".join(rules)]


def _heading(column: Column, left: bool, spanned: bool) -> str:
    said = (column.header or "").replace(PUBLISHED, "")
    # An arrow keeps to the last word.
    words = said.replace(" ↓", "\u00a0↓").replace(" ↑", "\u00a0↑")
    lines = [escape(each) for each in textwrap.wrap(words, HEADING)]
    side = "l" if left else "c" if spanned else "r"
    text = "\\\\".join(lines)
    if len(lines) > 1:
        text = f"\\shortstack[{side}]{{{text}}}"
    return text if left else f"\\multicolumn{{{1 + spanned}}}{{{side}}}{{{text}}}"


def _body(rows: Sequence[Cells], columns: Columns, spanned: set[str]) -> list[str]:
    """Return the rows: names that repeat are blank, and our own rows set off."""
    named = [key for key, column in columns if column.names]
    grouped = len(named) > 1 and any(
        one.get(named[0]) == other.get(named[0]) for one, other in pairwise(rows)
    )
    lines: list[str] = []
    before: Cells = {}
    for row in rows:
        if before and row.get("ours") is True and before.get("ours") is False:
            lines.append("\\midrule")
        same = bool(before) and grouped
        if same and row.get(named[0]) != before.get(named[0]):
            lines.append("\\addlinespace")
        cells = []
        for key, column in columns:
            number, interval = column.pair(row.get(key))
            same &= key in named[:-1] and row.get(key) == before.get(key)
            cells.append("" if same else escape(number))
            if key in spanned:
                small = escape(interval)
                cells.append(f"{{\\scriptsize {small}}}" if small else "")
        # A bracket at the start of a row would be an argument of the last one's end.
        lines.append(re.sub(r"^\[", "{[}", " & ".join(cells)) + " \\\\")
        before = row
    return lines


def write_document(title: str, files: Sequence[str]) -> str:
    """Return a document that shows tables, in their order.

    Args:
        title: Its title.
        files: Paths of the tables' LaTeX, as seen from the document.
    """
    inputs = "\n".join(f"\\input{{{name}}}" for name in files)
    return f"""\\documentclass[a4paper]{{article}}
\\usepackage[T1]{{fontenc}}
\\usepackage[margin=20mm]{{geometry}}
\\usepackage{{array,booktabs}}
\\title{{{escape(title)}}}
\\date{{}}
\\begin{{document}}
\\maketitle
\\listoftables
\\clearpage
{inputs}
\\end{{document}}
"""
