"""The tables of the shipped reference: what people read is what machines read.

Each is set again from its own CSV: titles, headings, digits, signs, intervals, LaTeX.
After a heading is changed on purpose:

    python tests/unit/test_reference_tables.py     writes the Markdown and the LaTeX
"""

import csv
import re
from functools import cache
from pathlib import Path

import pytest
import yaml
from checkout import ROOT

from clockwork_experiments.config.parse import parse
from clockwork_experiments.report import kinds
from clockwork_experiments.report.tables import joint, levels, results, timesteps
from clockwork_experiments.report.tables.table import FURTHER, Column, Table, Value

COLUMNS = {
    "levels": levels.LEVEL_COLUMNS,
    "level_costs": levels.COST_COLUMNS,
    "multi_depth": levels.MULTI_COLUMNS,
    "step_scores": timesteps.STEP_COLUMNS,
    "settings": {
        name: Column(name, names=name == "setting")
        for name in ("setting", "published", "ours")
    },
}

SHOWN = {
    "levels": {"brief": levels.LEVELS_SHOWN, "pasted": levels.LEVELS_PASTED},
    "level_costs": {"brief": levels.COSTS_SHOWN, "pasted": levels.COSTS_PASTED},
    "multi_depth": {"brief": levels.MULTI_SHOWN, "stacked": True},
    "joint": joint.SHOWN,
}


@cache
def registered(paper: str) -> dict:
    path = ROOT / "workflow" / "papers" / f"{paper}.yaml"
    return yaml.safe_load(path.read_text("utf-8"))["tables"]


def shipped(path: Path) -> Table:
    """Return a table with the numbers of its CSV and the prose of its Markdown."""
    scale, paper = path.parts[-4], path.parts[-2]
    told = registered(paper)[path.stem][scale]
    kind = told.get("kind", "results")
    spec = parse(
        kinds.find(kinds.TABLES, kind), {k: v for k, v in told.items() if k != "kind"}
    )
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    if kind == "results":
        for line in lines:
            line["label"] = line["row"] + " (ours)" * (line["ours"] == "True")
        columns = {"label": Column("", names=True)} | {
            name: results.COLUMNS[name] for name in spec.columns
        }
    elif kind == "step_gammas":
        columns = {name: timesteps.STEP_COLUMNS[name] for name in ("steps", "method")}
        columns |= {each.label: Column(each.label, 3) for each in spec.columns}
    else:
        columns = COLUMNS.get(kind) or spec.columns
    rows = [
        {key: cell(line, key, kind) for key in columns if key in line} for line in lines
    ]
    for row, line in zip(rows, lines, strict=True):
        if "ours" in line and kind == "results":
            row["ours"] = line["ours"] == "True"
    markdown = path.with_suffix(".md").read_text("utf-8")
    title, prose = re.fullmatch(r"\*\*(.*?)\*\*.*\|\n\n(.*)\n", markdown, re.S).groups()
    caption, *notes = re.split(r"\n+- ", prose.strip())
    told_below = tuple(note for note in notes if not note.startswith(FURTHER))
    align = "left" if kind == "settings" else "right"
    return spec.chosen(
        Table(title, caption, columns, rows, told_below, align, **SHOWN.get(kind, {}))
    )


def cell(line: dict[str, str], key: str, kind: str) -> Value | str | None:
    """Return what a CSV has; printed values of time steps keep their digits."""
    text = line[key]
    printed = key.endswith("_published") and key != "speed_up_published"
    as_text = (kind == "step_scores" and printed) or kind == "settings"
    try:
        number = float(text)
    except ValueError:
        return text or ("" if key in ("front", "encoder", "decoder") else None)
    if as_text or (line.get("method") == "published" and key != "steps"):
        return text
    ends = [line.get(f"{key}_{end}") or None for end in ("low", "high")]
    return Value(number, *(end and float(end) for end in ends))


def label(path: Path) -> str:
    return f"{path.parent.name}-{path.stem}"


TABLES = sorted((ROOT / "docs" / "reference").glob("*/tables/*/*.csv"))


@pytest.mark.parametrize("path", TABLES, ids=lambda path: "/".join(path.parts[-4:]))
def test_the_reference_is_set_as_its_csv_has_it(path):
    table = shipped(path)
    assert table.markdown() == path.with_suffix(".md").read_text("utf-8")
    assert table.latex(label(path)) == path.with_suffix(".tex").read_text("utf-8")


if __name__ == "__main__":
    for each in TABLES:
        made = shipped(each)
        each.with_suffix(".md").write_text(made.markdown(), "utf-8")
        each.with_suffix(".tex").write_text(made.latex(label(each)), "utf-8")
