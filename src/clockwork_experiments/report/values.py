"""Numbers for prose, read from results: no page of the documentation has typed ones.

``docs/values.yaml`` names each value once and says where it lies below
``docs/reference``: a cell of a table's CSV, an entry of a JSON file, a part of a claim,
how many claims have a verdict, or, for what no file holds, what somebody measured with
a clock, when and on what.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clockwork_experiments.base import storage, texts

SOURCES = "docs/values.yaml"
REFERENCE = "docs/reference"

PART = re.compile(r"^\| (?P<cells>.+) \|$", re.M)


def value(name: str, root: Path) -> str:
    """Return a value as a page shows it.

    Raises:
        ValueError: If there is no such value, or not where it should lie.
    """
    sources = _sources(root)["values"]
    if name not in sources:
        raise ValueError(f"value {name!r} is not one of {', '.join(sources)}")
    try:
        return _shown(sources[name], root / REFERENCE)
    except (KeyError, StopIteration) as error:
        raise ValueError(f"value {name!r}: {sources[name]} lacks {error}") from error


def table(name: str, root: Path) -> str:
    """Return a small Markdown table, made of some rows and columns of others.

    Raises:
        ValueError: If there is no such table, or a file lacks what it shows.
    """
    tables = _sources(root)["tables"]
    if name not in tables:
        raise ValueError(f"table {name!r} is not one of {', '.join(tables)}")
    columns, rows = tables[name]["columns"], tables[name]["rows"]
    lines = [
        "| " + " | ".join(["", *columns]) + " |",
        "|:--|" + "--:|" * len(columns),
    ]
    for label, run in rows.items():
        cells = [_cell({**of, "row": run}, root / REFERENCE) for of in columns.values()]
        lines.append("| " + " | ".join([label, *cells]) + " |")
    return "\n".join(lines)


def verdicts(claims: Path) -> str:
    """Return a list of the claims in a file, by verdict."""
    found: dict[str, list[str]] = {}
    for identity, (statement, verdict) in _claims(claims).items():
        found.setdefault(verdict, []).append(f"    - {identity}: {statement}")
    order = ("holds", "does not hold", "undecided")
    known = sorted(found, key=lambda verdict: order.index(verdict))
    return "\n".join(
        f"- **{verdict.capitalize()}**\n" + "\n".join(found[verdict])
        for verdict in known
    )


def _sources(root: Path) -> dict[str, Any]:
    return dict(texts.read_yaml(root / SOURCES))


def _shown(source: Mapping[str, Any], reference: Path) -> str:
    if "measured" in source:
        return str(source["measured"])
    if "csv" in source:
        return _cell(source, reference)
    if "json" in source:
        found = storage.read_json(reference / source["json"])
        for key in source["path"]:
            found = found[key]
        return _number(found, source)
    claims = reference / source["claims"]
    if "count" in source:
        verdict = source["count"]
        return str(sum(given == verdict for _, given in _claims(claims).values()))
    if "verdict" in source:
        return _claims(claims)[source["verdict"]][1]
    return _effect(claims, source["claim"], source["part"], source["measure"])


def _cell(source: Mapping[str, Any], reference: Path) -> str:
    """Return a cell of a CSV; a dash where it is empty or the row has none."""
    with storage.existing(reference / source["csv"]).open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    wanted = source["row"]
    if wanted is None:
        return "—"
    if not isinstance(wanted, Mapping):
        wanted = {"run": wanted}
    row = next(
        line
        for line in lines
        if all(line[key] == str(of) for key, of in wanted.items())
    )
    text = row[source["column"]]
    if not text:
        return "—"
    shown = _number(float(text), source)
    low, high = (row.get(f"{source['column']}_{end}") for end in ("low", "high"))
    if source.get("interval") and low and high:
        ends = (_number(float(end), {**source, "unit": ""}) for end in (low, high))
        shown = f"{_number(float(text), {**source, 'unit': ''})} [{', '.join(ends)}]"
        shown += source.get("unit", "")
    return shown


def _number(found: float, source: Mapping[str, Any]) -> str:
    digits, factor = source.get("digits", 0), source.get("factor", 1)
    text = f"{factor * found:.{digits}f}".replace("-", "−")
    return text + source.get("unit", "")


def _rows(text: str) -> list[list[str]]:
    return [match["cells"].split(" | ") for match in PART.finditer(text)]


def _claims(path: Path) -> dict[str, tuple[str, str]]:
    """Return each claim's statement and verdict, by its id."""
    text = storage.existing(path).read_text(encoding="utf-8").partition("\n### ")[0]
    return {
        cells[0]: (cells[1], cells[-1].strip("*"))
        for cells in _rows(text)
        if re.fullmatch(r"[A-Z]\d+", cells[0])
    }


def _effect(path: Path, claim: str, part: str, measure: str) -> str:
    """Return the effect of one part of a claim, with its interval, as it is written."""
    text = storage.existing(path).read_text(encoding="utf-8")
    section = text.partition(f"\n### {claim}:")[2].partition("\n### ")[0]
    return next(cells[2] for cells in _rows(section) if cells[:2] == [part, measure])
