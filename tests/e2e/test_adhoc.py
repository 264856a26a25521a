"""A run of one's own beside another, from a clean copy to the printed row."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import copy_checkout, environment

SMALL = "mini: {datasets: {reference: {count: 48}}, latency: {repeats: 2}}"
NAME = "adhoc_sd_identity_clock3_steps6_first6"
TABLE = f"results/mini/compared/{NAME}.md"


def clockwork(
    checkout: Path, folder: Path, *words: str
) -> subprocess.CompletedProcess[str]:
    code = "from clockwork_experiments.cli.app import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=folder,
        env=environment(checkout),
        capture_output=True,
        text=True,
    )


def test_an_ad_hoc_run_from_elsewhere_prints_its_row(tmp_path):
    checkout = copy_checkout(tmp_path / "checkout", linked=("resources/mini", "src"))
    (tmp_path / "small.yaml").write_text(SMALL, encoding="utf-8")
    words = ["run", "--backbone=sd", "--adaptor=identity", "--clock=3", "--steps=6"]
    words += ["--against=sd", "--captions=6", "--configfile=small.yaml"]
    words += [f"--directory={checkout}", f"--cores={os.environ.get('CORES', '2')}"]
    done = clockwork(checkout, tmp_path, *words)
    assert done.returncode == 0, done.stderr[-3000:]
    # Nothing but the row and its place is on the standard output; the rest is progress.
    assert done.stdout.startswith(f"**{NAME} beside sd_first6**")
    assert done.stdout.endswith(f"\n{checkout / TABLE}\n")
    assert f"sample_images mini {NAME} 000: " in done.stderr
    with (checkout / TABLE).with_suffix(".csv").open(encoding="utf-8") as file:
        baseline, run, difference = csv.DictReader(file)
    for key in ("frechet", "clip", "gflops", "latency"):
        apart = float(run[key]) - float(baseline[key])
        assert float(difference[key]) == pytest.approx(apart, rel=1e-3, abs=1e-5), key
    # Two full steps of six, and four that leave the deepest levels out, instead of 8.
    assert 0.3 < float(run["gflops"]) / float(baseline["gflops"]) < 0.5
    assert 10 < float(run["psnr_to_teacher"]) < 60
    assert (baseline["n"], run["n"]) == ("6.0", "6.0")
    again = clockwork(checkout, tmp_path, *words)
    assert again.returncode == 0 and "Nothing to be done" in again.stderr
    assert again.stdout == done.stdout
