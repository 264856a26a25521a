"""The report's first page, from runs that are whole, begun, or not there at all."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from clockwork_experiments.base import storage
from clockwork_experiments.cost import job_costs
from clockwork_experiments.report import overview, pages
from clockwork_experiments.steps import list_costs

BENCHMARK = (
    "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"
    "{0}\t0:00:01\t{1}\t1.0\t1.0\t1.0\t0.0\t0.0\t50.0\t{2}\n"
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_a_step_says_that_it_used_counts_more_than_what_snakemake_saw(here):
    path = Path("benchmarks/mini/sample/run/000.tsv")
    storage.write_text(path, BENCHMARK.format(9.0, 24.0, 0.1))
    (job,) = job_costs.read_benchmark(path, Path("benchmarks/mini"))
    assert (job["cpu_seconds"], job["peak_mb"]) == (0.1, 24.0)
    said = "… run used 6.08 CPU seconds and 542 MB\n… traceback\n"
    storage.write_text(Path("logs/mini/sample/run/000.log"), said)
    (job,) = job_costs.read_benchmark(path, Path("benchmarks/mini"))
    assert (job["seconds"], job["cpu_seconds"], job["peak_mb"]) == (9.0, 6.08, 542.0)


def item(path: str, kind: str = "Tables", name: str = "table_1") -> overview.Item:
    return overview.Item("Clockwork Diffusion", "mini", kind, name, Path(path))


def write(items: list[overview.Item], page: Path) -> str:
    return overview.write_overview(items, ["mini"], [Path("weights")], page)


def test_without_a_run_everything_is_said_to_be_absent(here):
    text = write(
        [item("a.html"), item("b.html", name="table_2")], Path("deviations.md")
    )
    assert "2 of 2 items are absent" in text
    assert "table_1, table_2" in text
    assert "No claim has been judged yet." in text
    assert "no job with a benchmark has run" in text
    assert "No weights with a list of checksums are here." in text
    assert "The page that lists them is not here." in text


def test_what_is_there_is_shown_and_the_rest_named(here):
    (here / "a.html").write_text("x")
    storage.write_json(
        here / "claims.json",
        {"claims": {"C1": {"statement": "It | saves.", "verdict": "holds"}}},
    )
    (here / "claims.html").write_text("x")
    folder = here / "benchmarks" / "mini" / "train_adaptor"
    folder.mkdir(parents=True)
    (folder / "one.tsv").write_text(BENCHMARK.format(10.0, 300.0, 8.0))
    (folder / "two.tsv").write_text(BENCHMARK.format(30.5, 900.0, "NA"))
    for name in ("real", "random"):
        storage.write_text(
            here / "weights" / name / "SHA256SUMS", "ab" * 32 + "  w.pth\n"
        )
    storage.write_json(here / "weights/random/card.json", {"random_weights": True})
    file = {"sha256": "cd" * 32, "size": 3}
    fetched = {"path": "weights/clip", "hub": "someone/clip", "revision": "0123456789"}
    fetched |= {"files": {"model.safetensors": file, "config.json": file}}
    storage.write_json(here / "weights/manifests/clip.json", fetched)
    page = here / "deviations.md"
    page.write_text("# Deviations\n\n- **Loss** is ours.\n")
    items = [
        item("a.html"),
        item("b.html", name="table_2"),
        item("claims.html", "Claims", "clockwork"),
    ]
    text = write(items, page)
    assert "1 of 3 items are absent" in text
    assert ">table_2</td>" in text and ">table_1</td>" not in text
    assert ">It | saves.</td>" in text and "<strong>holds</strong>" in text
    assert "2 jobs, 40 s in all" in text
    assert "900" in text
    assert "weights/random (random weights)" in text
    assert "weights/real (random weights)" not in text
    assert f">{('ab' * 32)[:16]}</td>" in text
    assert "weights/clip (someone/clip, 0123456789)" in text
    assert f">{('cd' * 32)[:16]}</td>" in text and "config.json" not in text
    assert "<strong>Loss</strong> is ours." in text and "Deviations</h1>" not in text


def test_the_page_is_there_and_the_report_repeats_it(root):
    said = overview.deviations(root / "docs" / "results" / "deviations.md")
    assert said.count("\n- **") > 20 and "\n# " not in said


def test_html_is_indented_as_a_directive_needs():
    text = overview.as_raw_html("<p>\na</p>")
    assert text == ".. raw:: html\n\n   <p>\n   a</p>\n"


def test_pages_need_no_other_file():
    page = pages.to_page("**T**\n\n| a | b |\n|:--|--:|\n| x<y | 1 |\n", "T & t")
    assert "<title>T &amp; t</title>" in page
    assert "x&lt;y" in page and "<table>" in page
    assert "http" not in page and "src=" not in page


# --- costs ------------------------------------------------------------------------


def test_costs_are_summed_by_rule(tmp_path):
    path = tmp_path / "sample_images" / "sd" / "000.tsv"
    path.parent.mkdir(parents=True)
    path.write_text(BENCHMARK.format(10.0, 300.0, 8.0))
    (tmp_path / "sample_images" / "short.tsv").write_text(
        BENCHMARK.format(0.5, "NA", 0)
    )
    jobs = [
        job
        for each in sorted(tmp_path.rglob("*.tsv"))
        for job in job_costs.read_benchmark(each, tmp_path)
    ]
    assert [job["job"] for job in jobs] == ["sd/000", "short"]
    (cost,) = job_costs.by_rule(jobs).values()
    assert cost == {
        "jobs": 2,
        "seconds": 10.5,
        "cpu_seconds": 8.0,
        "longest_seconds": 10.0,
        "peak_mb": 300.0,
    }


def test_a_file_that_is_no_benchmark_is_named(tmp_path):
    path = tmp_path / "rule" / "job.tsv"
    path.parent.mkdir()
    path.write_text("a\tb\n1\t2\n")
    with pytest.raises(ValueError, match=r"job\.tsv is no benchmark of Snakemake's"):
        job_costs.read_benchmark(path, tmp_path)


SACCT = """\
7|b0|rule_sample_images_wildcards_paper_sd_000|00:10:00|00:15:00|1|2||8000M
7.0|python||00:10:00|00:15:00|1|2|2000M|
8|b0|rule_sample_images_wildcards_paper_sd_001|00:10:00|00:05:00|1|2||8000M
8.0|python||00:10:00|00:05:00|1|2|6000M|
9|b0|rule_sample_images_wildcards_pilot_sd_000|00:10:00|00:20:00|1|2||8000M
9.0|python||00:10:00|00:20:00|1|2|8000M|"""


def test_what_jobs_used_is_read_of_the_executors_own_report(tmp_path):
    report = pytest.importorskip("snakemake_executor_plugin_slurm.efficiency_report")
    folder = tmp_path / "slurm"
    folder.mkdir()
    lines = SACCT.splitlines()
    told = report.parse_sacct_data(lines, 0.0, "b0", logging.getLogger("sacct"))
    told.to_csv(folder / "efficiency_report_b0.csv")
    benchmarks = tmp_path / "paper"
    (benchmarks / "sample_images").mkdir(parents=True)
    text = "s\th:m:s\tmax_rss\tcpu_time\n600\t0:10:00\t5900\t900\n"
    (benchmarks / "sample_images" / "sd.tsv").write_text(text, "utf-8")
    output = tmp_path / "costs.json"
    list_costs.list_costs(benchmarks, output, efficiency=folder)
    (row,) = re.findall(r"\| sample_images .*", output.with_suffix(".md").read_text())
    cells = [each.strip() for each in row.strip("|").split("|")]
    # Of two jobs at this scale 75 % and 25 % of the CPUs, and at most 6 of 8 GB.
    assert cells == ["sample_images", "1", "600", "900", "600", "5,900", "50", "75"]
    list_costs.list_costs(benchmarks, output, efficiency=tmp_path / "none")
    assert "used" not in output.with_suffix(".md").read_text()
    broken = folder / "efficiency_report_b1.csv"
    broken.write_text("RuleName,x\nrule_a_wildcards_paper_b,1\n", "utf-8")
    with pytest.raises(ValueError, match="b1.csv is no efficiency report"):
        job_costs.used_by_rule([broken], "paper")
