"""A slice of the mini pipeline from a clean copy, killed, edited, run again.

The slice has every rule of the default run, and of the tables and figures enough rows
to see them work; the whole takes far longer than a test may.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from checkout import copy_checkout, edit_yaml, environment, jobs, snakemake

from clockwork_experiments.base import storage

CORES = os.environ.get("CORES", "2")
TINY = ("--configfile", "tests/e2e/tiny.yaml", "--cores", CORES)
TABLE, FIGURE = "results/mini/tables/clockwork", "results/mini/figures/clockwork"
ADAPTOR = Path("results/mini/adaptors/sd_resnet/diffusion_pytorch_model.safetensors")
IMAGES = Path("results/mini/images/sd_clockwork/000.safetensors")


ROWS = ("sd", "sd_clockwork", "distilled", "distilled_clockwork", "sd_branch2")
SHOWN = {
    "tables": ("table_1", "table_s4", "table_editing"),
    "figures": ("figure_1", "figure_5", "figure_s1", "figure_s10"),
}
TRANSLATED = ("inpainted", "inpainted_d9")
COMPRESSION = Path("results/mini/tables/compression")
EDITED = Path("results/mini/edited/real/pnp_clock2/steps10.safetensors")
INVERTED = Path("results/mini/inversions/real/clock2/steps10")


def slice_registry(checkout: Path) -> None:
    """Leave in the registry what the tests look at."""
    path = checkout / "workflow/papers/clockwork.yaml"
    # By way of JSON: what anchors shared is edited in one place alone.
    registry = json.loads(json.dumps(yaml.safe_load(path.read_text("utf-8"))))
    for kind, names in SHOWN.items():
        registry[kind] = {name: registry[kind][name] for name in names}
    del registry["claims"]
    table = registry["tables"]["table_1"]["mini"]
    table["rows"] = [row for row in table["rows"] if row["run"] in ROWS]
    figure = registry["figures"]["figure_1"]["mini"]
    figure["runs"] = [shown for shown in figure["runs"] if shown["run"] in ROWS]
    figure["prompts"] = [2, 7, 11, 23]
    table = registry["tables"]["table_editing"]["mini"]
    edited = [f"real/{edit}/steps10" for edit in ("unedited", "pnp", "pnp_clock2")]
    table["rows"] = [{"label": run, "run": run} for run in edited]
    for row in table["rows"][2:]:
        row["baseline"] = edited[1]
    figure = registry["figures"]["figure_s10"]["mini"]
    figure["pairs"] = []
    for shown in figure["edits"]:
        shown["run"] = shown["run"].replace("steps50", "steps10")
    registry["tables"]["table_s4"]["mini"]["run"] = edited[1]
    write_registry(path, registry)
    path = path.with_name("compression.yaml")
    registry = json.loads(json.dumps(yaml.safe_load(path.read_text("utf-8"))))
    table = registry["tables"]["comparison"]["mini"]
    table["rows"] = [row for row in table["rows"] if row.get("run") in TRANSLATED]
    figure = registry["figures"]["figure_s5"]["mini"]
    figure["groups"] = [{"count": 2}]
    registry = {
        "title": registry["title"],
        "tables": {"comparison": {"mini": table}},
        "figures": {"figure_s5": {"mini": figure}},
    }
    write_registry(path, registry)


def write_registry(path: Path, registry: dict[str, Any]) -> None:
    text = yaml.safe_dump(registry, sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")


def run(checkout: Path, *arguments: str) -> str:
    done = snakemake(checkout, *TINY, *arguments)
    assert done.returncode == 0, done.stdout
    return done.stdout


def planned(checkout: Path) -> dict[str, int]:
    return jobs(run(checkout, "--dry-run"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """Return a copy in which the pipeline has run once; tests leave it as it is."""
    checkout = copy_checkout(tmp_path_factory.mktemp("finished"))
    slice_registry(checkout)
    run(checkout)
    return checkout


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of the finished run, records of Snakemake included."""
    return shutil.copytree(finished, tmp_path / "copy", symlinks=True)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


# --- from a clean copy ------------------------------------------------------------


def test_translations_are_scored_beside_what_they_keep(finished):
    whole, cut = rows(finished / COMPRESSION / "comparison.csv")
    assert float(whole["kept"]) == 1
    assert float(cut["kept"]) == pytest.approx(0.651, abs=0.005)
    assert float(whole["psnr_to_target"]) > 15
    assert (finished / "results/mini/figures/compression/figure_s5.png").is_file()


def test_every_table_and_figure_is_there(finished):
    files = [f"{TABLE}/table_1.{kind}" for kind in ("csv", "md", "tex")]
    files += [
        f"{FIGURE}/{name}.{kind}"
        for name in ("figure_1", "figure_5")
        for kind in ("pdf", "png")
    ]
    files += [f.replace("mini", "paper") for f in files if "tables" in f]
    for file in files:
        assert (finished / file).stat().st_size > 100, file


def test_each_of_our_cells_has_a_number(finished):
    table = rows(finished / TABLE / "table_1.csv")
    assert len(table) == len(ROWS)
    for row in table:
        for name, text in row.items():
            if name in ("row", "run", "ours"):
                continue
            if name.endswith("_published"):
                assert bool(text) == (row["ours"] == "False"), (row["row"], name)
                continue
            if name.endswith("_kept"):  # of the identity alone, and less
                whole = float(row[name.removesuffix("_kept")])
                assert bool(text) == ("identity" in row["run"]), (row["row"], name)
                assert not text or float(text) < whole, (row["row"], name)
                continue
            compared = name in ("saving", "latency_saving")
            compared = compared or name.startswith("psnr_to_teacher")
            if compared and row["run"] in ("sd", "distilled"):
                assert text == "", (row["row"], name)
            else:
                assert float(text) == float(text), (row["row"], name)
    assert {row["n"] for row in table} <= {"24", "24.0"}


def test_edits_are_scored_and_shown(finished):
    table = {row["run"]: row for row in rows(finished / TABLE / "table_editing.csv")}
    unedited, plain, clocked = table.values()
    assert float(unedited["structure"]) == 0 < float(plain["structure"])
    assert float(unedited["clip"]) < float(plain["clip"])
    assert unedited["gflops"] == "" and float(clocked["saving"]) < -0.28
    assert {row["n"] for row in table.values()} <= {"3", "3.0"}
    assert (finished / FIGURE / "figure_s10.png").stat().st_size > 10_000


def test_nothing_is_left_half_done(finished):
    assert not list(finished.rglob("*.partial"))
    left = [p for p in (finished / "results/mini/.state").rglob("*") if p.is_file()]
    assert not left


def test_report_is_built_offline(finished, tmp_path):
    report = tmp_path / "report.html"
    run(finished, "--report", str(report))
    text = report.read_text(encoding="utf-8")
    for name in ("table_1", "figure_1", "figure_5"):
        assert name in text
    assert "Everything that the registries list is there." not in text
    # Costs are of the jobs that ran.
    assert "train_adaptor" in text


# --- what reruns ------------------------------------------------------------------


def test_second_call_does_nothing_and_soon(finished):
    began = time.monotonic()
    assert "Nothing to be done" in run(finished)
    assert time.monotonic() - began < 20


def test_a_moved_or_touched_checkout_reruns_nothing(copy):
    assert planned(copy) == {}
    for path in sorted(copy.rglob("*"), reverse=True):
        if path.is_file() and ".snakemake" not in path.parts:
            path.touch()
    assert planned(copy) == {}


def test_edited_caption_sets_one_table_again(copy):
    edit_yaml(
        copy / "workflow/papers/clockwork.yaml", "tables.table_1.mini.caption", "New."
    )
    assert planned(copy) == {"set_table": 1, "all": 1}


def test_edited_adaptors_rerun_training_and_sampling_and_no_trajectory(copy):
    path = copy / "src/clockwork_diffusion/adaptors.py"
    old = "class ResNetAdaptor(_LearnedAdaptor):"
    text = path.read_text("utf-8").replace(old, f"{old}\n    edited = True\n")
    path.write_text(text, encoding="utf-8")
    rerun = planned(copy)
    assert {"train_adaptor", "sample_images", "score_images", "set_table"} <= set(rerun)
    assert not {"prepare_prompts", "prepare_images", "sample_trajectories"} & set(rerun)


def test_edited_run_reruns_its_own_chain(copy):
    edit_yaml(copy / "config.yaml", "mini.runs.sd_branch2.sampler.guidance", 5.0)
    output = run(copy, "--dry-run")
    assert jobs(output) == {
        "sample_images": 1,
        "extract_features": 1,
        "score_images": 1,
        "time_sampling": 1,
        "set_table": 1,
        "draw_figure": 1,
        "all": 1,
    }
    assert "results/mini/images/sd_branch2/000.safetensors" in output


# --- killed -----------------------------------------------------------------------


def kill_when(checkout: Path, target: Path, reached: Callable[[], bool]) -> None:
    """Start Snakemake, and kill it and its steps as a power cut would."""
    process = subprocess.Popen(
        [sys.executable, "-m", "snakemake", *TINY, str(target)],
        cwd=checkout,
        env=environment(checkout),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while not reached():
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.02)
    finally:
        parent = psutil.Process(process.pid)
        victims = [parent, *parent.children(recursive=True)]
        for victim in victims:
            victim.kill()
        process.wait()
        psutil.wait_procs(victims, timeout=5)


def release_lock(checkout: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "clockwork_experiments.steps.release_lock", "."],
        cwd=checkout,
        env=environment(checkout),
        capture_output=True,
        text=True,
    )


def test_killed_run_continues_to_the_same_bits(finished, copy):
    """Once in the middle of training, once between two batches of images."""
    settings = yaml.safe_load((copy / "tests/e2e/tiny.yaml").read_text("utf-8"))
    assert settings["mini"]["runs"]["sd_clockwork"]["batch_size"] < 48
    (copy / IMAGES).unlink()
    shutil.rmtree((copy / ADAPTOR).parent)

    state = copy / "results/mini/.state/adaptors/sd_resnet.pt"
    kill_when(copy, IMAGES, state.is_file)
    assert not (copy / ADAPTOR).exists()
    assert "cannot be locked" in snakemake(copy, *TINY, str(IMAGES)).stdout
    released = release_lock(copy)
    assert released.returncode == 0
    assert "released the lock" in released.stderr

    chunks = copy / "results/mini/.state/images/sd_clockwork/000"
    kill_when(copy, IMAGES, lambda: len(list(chunks.glob("0*.safetensors"))) >= 2)
    trained = (copy / "logs/mini/train_adaptor/sd_resnet.log").read_text("utf-8")
    assert "adaptor resumes at step" in trained
    assert not (copy / IMAGES).exists()
    assert release_lock(copy).returncode == 0

    run(copy, str(IMAGES))
    sampled = (copy / "logs/mini/sample_images/sd_clockwork/000.log").read_text("utf-8")
    assert "rows from 8 on were done before" in sampled
    assert (copy / ADAPTOR).read_bytes() == (finished / ADAPTOR).read_bytes()
    ours, _ = storage.read_tensors(copy / IMAGES)
    whole, _ = storage.read_tensors(finished / IMAGES)
    assert ours["images"].equal(whole["images"])
    assert not chunks.exists()
    assert not state.exists()


def test_killed_edits_continue_and_a_corrupt_latent_is_named(finished, copy):
    (copy / EDITED).unlink()
    shutil.rmtree(copy / INVERTED)
    chunks = copy / "results/mini/.state/edited/real/pnp_clock2/together/steps10"
    kill_when(copy, EDITED, lambda: len(list(chunks.glob("0*.safetensors"))) >= 1)
    assert not (copy / EDITED).exists()
    assert release_lock(copy).returncode == 0
    run(copy, str(EDITED))
    log = copy / "logs/mini/edit_images/real/pnp_clock2/together.log"
    assert "rows from 0 on were done before" in log.read_text("utf-8")
    ours, _ = storage.read_tensors(copy / EDITED)
    whole, _ = storage.read_tensors(finished / EDITED)
    assert ours["images"].equal(whole["images"])

    latents = sorted((copy / INVERTED).glob("*.safetensors"))
    assert len(latents) == 3
    latents[1].write_bytes(latents[1].read_bytes()[:-100])
    (copy / EDITED).unlink()
    failed = snakemake(copy, *TINY, str(EDITED))
    assert failed.returncode != 0
    assert latents[1].name in failed.stdout and "--forcerun" in failed.stdout
    dates = [path.stat().st_mtime_ns for path in latents]
    run(copy, str(EDITED), "--forcerun", str(INVERTED / "index.json"))
    after = [path.stat().st_mtime_ns for path in latents]
    assert [new == old for new, old in zip(after, dates, strict=True)] == [
        True,
        False,
        True,
    ]
    ours, _ = storage.read_tensors(copy / EDITED)
    # It was inverted in a batch of its own, which rounds differently.
    assert (ours["images"].int() - whole["images"].int()).abs().max() <= 2
