"""The report: one file at any state of a run, which loads nothing from elsewhere."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest
from checkout import copy_checkout, snakemake

LINKED = ("profiles", "resources/mini", "src", "workflow")
TABLE = "results/paper/tables/compression/table_3"
FIGURE = "results/paper/figures/clockwork/figure_3.png"
LOADED = re.compile(
    r"""(?:src|href)=\\?["']?https?:|url\(\\?["']?https?:|@import|<link[^>]+http"""
)
"""What would make a browser ask a network."""


def report_of(checkout: Path, file: Path) -> str:
    done = snakemake(checkout, "--cores", "1", "--report", str(file))
    assert done.returncode == 0, done.stdout[-2000:]
    return file.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """Return a checkout in which one table and one figure have been made."""
    copy = copy_checkout(tmp_path_factory.mktemp("checkout"), linked=LINKED)
    done = snakemake(copy, "--cores", "1", f"{TABLE}.md", FIGURE)
    assert done.returncode == 0, done.stdout[-2000:]
    return copy


def test_without_any_result_there_is_a_report_that_says_so(tmp_path):
    copy = copy_checkout(tmp_path / "copy", linked=LINKED)
    text = report_of(copy, tmp_path / "report.html")
    assert re.search(r"(\d+) of \1 items are absent", text)
    assert "No claim has been judged yet." in text
    assert not (copy / "results").exists()


def test_a_part_of_a_run_is_shown_and_the_rest_is_named(checkout, tmp_path):
    file = tmp_path / "report.html"
    text = report_of(checkout, file)
    found = re.search(r"(\d+) of (\d+) items are absent", text)
    assert found and int(found[2]) - int(found[1]) == 2
    for title in ("Methods.", "Claims", "Costs", "Versions", "Weights"):
        assert title in text
    # By paper, kind and label.
    for name in ("Clockwork Diffusion", "Diffusion Model Compression"):
        assert name in text
    for name in ("Tables", "Figures", "table_3", "figure_3"):
        assert f'"{name}"' in text
    # Deviations are the README's, and checksums those of the shipped weights.
    assert "Training subset." in text
    sums = (checkout / "resources/mini/clip/SHA256SUMS").read_text().split()[0]
    assert sums[:16] in text


def test_it_holds_all_that_it_shows_and_loads_nothing(checkout, tmp_path):
    text = report_of(checkout, tmp_path / "report.html")
    assert LOADED.search(text) is None
    page = (checkout / f"{TABLE}.html").read_bytes()
    assert LOADED.search(page.decode("utf-8")) is None
    for content in (page, (checkout / FIGURE).read_bytes()):
        assert base64.b64encode(content).decode() in text


def test_a_report_makes_and_changes_no_result(checkout, tmp_path):
    before = {p: p.stat().st_mtime_ns for p in (checkout / "results").rglob("*")}
    report_of(checkout, tmp_path / "report.html")
    after = {p: p.stat().st_mtime_ns for p in (checkout / "results").rglob("*")}
    assert after == before
