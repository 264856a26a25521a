"""The pilot at paper scale: planned without weights, and told what it costs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from checkout import (
    ROOT,
    bring,
    copy_checkout,
    environment,
    jobs,
    resolved,
    snakemake,
)

from clockwork_experiments.config import parse
from clockwork_experiments.cost import estimates

LINKED = ("profiles", "resources/mini", "src", "workflow")
COSTS = "Estimated costs (A100, fp16; published"
ROW = re.compile(r"^(\w+) +(\d+) +([\d.-]+) +([\d.-]+) +([\d.-]+)$", re.MULTILINE)
FEW = """
mini:
  datasets:
    mine: {path: mine.txt, count: 3, shards: 1, sampled: own_other_noise}
  runs:
    own: {model: sd, dataset: mine, steps: 2, batch_size: 3}
    own_identity: {teacher: own, adaptor: identity, clock: 2}
    own_other_noise: {like: own, seed: 5}
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    return copy_checkout(tmp_path_factory.mktemp("checkout"), linked=LINKED)


def fetched(output: str) -> set[str]:
    return set(re.findall(r"output: resources/paper/manifests/(\w+).json", output))


def told(output: str) -> dict[str, tuple[int, str, str, str]]:
    """Return the table of costs by rule: jobs, hours, GPU memory, disk."""
    assert output.count(COSTS) == 1
    table = output.split(COSTS)[1]
    return {rule: (int(n), *rest) for rule, n, *rest in ROW.findall(table)}


@pytest.fixture(scope="module")
def planned(checkout) -> str:
    done = snakemake(checkout, "--dry-run", "pilot")
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_the_pilot_trains_nothing_and_needs_nothing_by_hand(planned):
    counted = jobs(planned)
    assert set(counted) == {
        *("fetch_source", "prepare_coco", "prepare_prompts", "prepare_images"),
        *("count_flops", "sample_images", "extract_features", "score_images"),
        *("time_sampling", "set_table", "bind_tables", "pilot"),
    }
    runs = resolved("pilot")["runs"]
    assert {"sd", "sd_identity", "sd_extrapolation", "sd_branch0"} <= set(runs)
    assert counted["sample_images"] == counted["score_images"] == len(runs)
    sources = {"stable_diffusion", "clip", "inception", "coco2017_archives"}
    assert fetched(planned) == {*sources, "coco2017"}
    by_hand = {
        name for name, each in resolved("paper")["sources"].items() if "by_hand" in each
    }
    assert not by_hand & fetched(planned)
    # A tree of its own.
    assert "results/paper" not in planned and "results/mini" not in planned


def test_its_dry_run_says_once_what_it_costs(planned):
    counted, costs = jobs(planned), told(planned)
    for rule in ("sample_images", "extract_features", "time_sampling"):
        assert costs[rule][0] == counted[rule]
    rule, hours, memory, disk = costs["all"]
    assert 0 < float(hours) < 5 and 5 < float(memory) < 16 and 5 < float(disk) < 50
    assert costs["sample_images"][2] == memory
    assert "up to a third more" in planned


def test_captions_of_ones_own_take_the_place_of_coco(checkout):
    mine = checkout / "mine.txt"
    mine.write_text("".join(f"a dog and {n} cats\n" for n in range(7)), "utf-8")
    words = ["pilot", "--dry-run", "--captions", "mine.txt"]
    code = "from clockwork_experiments.cli.app import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=checkout,
        env=environment(checkout),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    output = done.stdout + done.stderr
    # The same model's images from other noise stand for those that are not there.
    counted = jobs(output)
    assert counted["sample_images"] == len(resolved("pilot")["runs"]) + 1
    assert counted["score_images"] == len(resolved("pilot")["runs"])
    assert "prepare_coco" not in counted and "prepare_images" not in counted
    assert not (checkout / "results").exists()


def test_a_set_without_images_is_scored_by_the_same_models_others(checkout, tmp_path):
    folder = copy_checkout(tmp_path, linked=LINKED)
    (folder / "mine.txt").write_text(
        "a red ring\na blue square\na green triangle\n", "utf-8"
    )
    (folder / "few.yaml").write_text(FEW, "utf-8")
    target = "results/mini/scores/own_identity.json"
    done = snakemake(folder, "--cores", "1", "--configfile", "few.yaml", "--", target)
    assert done.returncode == 0, done.stdout[-3000:]
    scores = json.loads((folder / target).read_text("utf-8"))
    assert "prepare_images" not in jobs(done.stdout)
    text = json.dumps(scores)
    assert '"frechet"' in text and '"clip"' in text


@pytest.fixture(scope="module")
def paper(tmp_path_factory) -> str:
    folder = copy_checkout(tmp_path_factory.mktemp("brought"), linked=LINKED)
    bring(folder)
    done = snakemake(folder, "--dry-run", "paper_scale")
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout


def test_the_dry_run_counts_the_gpu_jobs_that_the_table_in_the_docs_does(paper):
    units = parse.parse(
        estimates.UnitCosts,
        yaml.safe_load((ROOT / "workflow" / "costs.yaml").read_text("utf-8")),
    )
    counted, costs = jobs(paper), told(paper)
    found = estimates.estimate(resolved("paper"), units)
    table = (ROOT / "docs/reference/paper/tables/costs.md").read_text("utf-8")
    shown = dict(re.findall(r"^\| (\w+) \| (\d+) \|", table, re.MULTILINE))
    # Timings are made by name alone.
    asked = {rule: work.jobs for rule, work in found.items() if rule != "time_sampling"}
    assert {rule: counted.get(rule) for rule in asked} == asked
    assert {rule: costs[rule][0] for rule in asked} == asked
    assert {rule: int(shown[rule]) for rule in asked} == asked
