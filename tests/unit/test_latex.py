"""LaTeX that an author pastes: its columns, its letters, and that TeX takes it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from checkout import ROOT

from clockwork_experiments.config.parse import parse
from clockwork_experiments.config.registry import BRIEF, PASTED
from clockwork_experiments.report import latex
from clockwork_experiments.report.tables.results import TableSpec
from clockwork_experiments.report.tables.table import Column, Results, Table, Value
from clockwork_experiments.steps import bind_tables

SHIPPED = sorted((ROOT / "docs" / "reference").glob("*/tables/**/*.tex"))
COLUMNS = {
    "label": Column("", names=True),
    "clip": Column("CLIP ↑", 3),
    "fid_published": Column("FID (published) ↓", 2),
    "gflops": Column("GFLOPs ↓", 1),
    "unknown": Column("nothing of it", 1),
}
ROWS = [
    {
        **{"label": "SD {1, 2}", "ours": False, "clip": Value(0.3, 0.29, 0.31)},
        **{"fid_published": 24.64, "gflops": 10.0, "unknown": None},
    },
    {"label": "5 steps", "ours": True, "clip": Value(0.2, 0.1, 0.3), "gflops": 9.0},
]
TABLE = Table("Table S6 at mini scale: levels", "50 % of r_in.", COLUMNS, ROWS)


def test_printed_values_stand_before_ours_under_headings_of_their_own():
    lines = TABLE.latex("a-b").splitlines()
    above = lines.index("\\toprule") + 1
    assert lines[above : above + 2] == [
        "\\multicolumn{1}{l}{} & \\multicolumn{1}{c}{Published} "
        "& \\multicolumn{3}{c}{Ours} \\\\",
        "\\cmidrule(lr){2-2}\\cmidrule(lr){3-5}",
    ]
    assert lines[above + 4 : above + 7] == [
        "SD \\{1, 2\\} & 24.64 & 0.300 & {\\scriptsize [0.290, 0.310]} & 10.0 \\\\",
        "\\midrule",
        "5 steps & --- & 0.200 & {\\scriptsize [0.100, 0.300]} & 9.0 \\\\",
    ]
    # Of what nothing is known there is no column.
    assert "nothing" not in "".join(lines)
    assert "\\caption{Levels (Table S6, mini scale)}" in lines
    assert "\\label{tab:a-b}" in lines


def test_what_is_to_be_said_stands_below_and_not_in_the_caption():
    text = TABLE.latex("t")
    assert text.index("\\end{tabular}") < text.index("50\\,\\% of r\\_in.")
    with pytest.raises(ValueError, match="makes a caption of 250 letters, more than 2"):
        Table("x" * 250, "", COLUMNS, ROWS).latex("t")


def test_names_that_repeat_are_blank():
    columns = {
        "model": Column("model", names=True),
        "by": Column("by", names=True),
        "x": Column("x", 1),
    }
    cells = [("A", "p", 1.0), ("A", "p", 2.0), ("B", "p", 3.0)]
    rows = [dict(zip(columns, each, strict=True)) for each in cells]
    text = Table("T", "", columns, rows).latex("t")
    body = text[text.index("\\midrule") : text.index("\\bottomrule")].splitlines()[1:]
    assert body == [
        "A & p & 1.0 \\\\",
        " & p & 2.0 \\\\",
        "\\addlinespace",
        "B & p & 3.0 \\\\",
    ]


def test_printed_values_can_stand_above_ours():
    columns = {
        "method": Column("method", names=True),
        "psnr_published": Column("PSNR (published) ↑"),
        "psnr": Column("PSNR ↑", 1),
        "time_published": Column("search (published)", beside="seconds"),
        "seconds": Column("search", 1, suffix=" s"),
    }
    rows = [
        {
            **{"method": "greedy", "psnr_published": "22.25", "psnr": 30.0},
            **{"time_published": "11.1 min", "seconds": 2.0},
        },
        {"method": "ours", "psnr": 31.0, "seconds": 3.0},
    ]
    table = Table("T", "C", columns, rows, brief=tuple(columns), stacked=True)
    lines = [re.split(r" *\| *", line)[1:-1] for line in table.markdown().splitlines()]
    assert lines[2] == ["method", "by", "PSNR ↑", "search"]
    assert lines[4:7] == [
        ["greedy", "published", "22.25", "11.1 min"],
        ["greedy", "ours", "30.0", "2.0 s"],
        ["ours", "ours", "31.0", "3.0 s"],
    ]


def test_a_shortened_table_says_so_and_is_whole_as_csv_and_html():
    table = Table("T", "C.", COLUMNS, ROWS, brief=("label", "clip"))
    assert "GFLOPs" not in table.markdown()
    assert "of the same name have all 5 columns" in table.markdown()
    files = table.files("t")
    assert "gflops" in files[".csv"] and "GFLOPs" in files[".html"]
    assert "Shortened" not in files[".html"]
    wrong = Table("T", "C.", COLUMNS, ROWS, brief=("label", "beauty"))
    with pytest.raises(ValueError, match="shown column 'beauty' is not one of label, "):
        wrong.markdown()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: "/".join(path.parts[-4:]))
def test_shipped_tables_are_narrow_and_said_in_letters_that_tex_has(path):
    text = path.read_text("utf-8")
    assert text.startswith("% Needs") and text.isascii()
    caption = re.search(r"\\caption\{(.*)\}\n", text)[1]
    assert len(caption) <= latex.CAPTION
    heading = text.split("\\midrule")[0].splitlines()[-1]
    assert len(re.split(r"(?<!\\)&", heading)) <= PASTED
    shown = path.with_suffix(".md").read_text("utf-8").splitlines()[2]
    # In the random scale's, of which no CSV is shipped, all columns are still there.
    if path.with_suffix(".csv").is_file():
        assert len(re.split(r"(?<!\\)\|", shown)) - 2 <= BRIEF


@pytest.mark.parametrize("scale", ["mini", "paper"])
def test_tex_sets_every_shipped_table_without_an_overfull_line(scale, tmp_path):
    if shutil.which("pdflatex") is None:
        pytest.skip("needs pdflatex with booktabs")
    tables = [
        path
        for path in SHIPPED
        if path.parts[-4] == scale and re.fullmatch(r"table_s?\d+", path.stem)
    ]
    assert len(tables) == 18
    output = tmp_path / "tables.tex"
    bind_tables.bind_tables("100 % of both", tables, output)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", output.name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull \\hbox" not in done.stdout
    assert Path(tmp_path, "tables.pdf").stat().st_size > 20_000


def test_a_column_that_is_left_out_is_left_out_of_every_view():
    spec = parse(
        TableSpec,
        {"title": "T", "caption": "C", "columns": ["frechet"], "rows": [{"label": "a"}]}
        | {"brief": ["label", "clip", "frechet"], "pasted": ["label", "clip"]},
    )
    table = spec.chosen(spec.table(Results({})))
    assert (table.brief, table.pasted) == (("label", "frechet"), ("label",))
    with pytest.raises(ValueError, match="shown column 'beauty' is not one of label, "):
        TableSpec("T", "C", ("frechet",), (), brief=("label", "beauty"))
