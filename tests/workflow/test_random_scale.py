"""The paper scale with random weights: planned as a whole, apart from real results."""

from __future__ import annotations

import pytest
import yaml
from checkout import ROOT, bring, copy_checkout, jobs, resolved, snakemake

LINKED = ("profiles", "resources/mini", "src", "workflow")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return copy_checkout(tmp_path_factory.mktemp("checkout"), linked=LINKED)


def test_real_sizes_plans_every_stage_with_random_weights_alone(checkout):
    done = snakemake(checkout, "--dry-run", "real_sizes")
    assert done.returncode == 0, done.stdout
    planned = jobs(done.stdout)
    stages = ("sample_trajectories", "train_adaptor", "sample_images", "set_table")
    stages += ("make_random_model", "translate_images", "measure_throughput")
    stages += ("invert_images", "edit_images", "extract_features")
    assert set(stages) <= set(planned)
    assert planned["sample_images"] == 2
    # Nothing of the real scale is read or written.
    assert "resources/paper" not in done.stdout
    assert "results/paper" not in done.stdout


def test_the_whole_paper_scale_can_be_run_with_random_weights(
    checkout, tmp_path_factory
):
    done = snakemake(checkout, "--dry-run", "random_scale")
    assert done.returncode == 0, done.stdout
    assert "resources/paper" not in done.stdout
    assert "results/paper" not in done.stdout
    planned = jobs(done.stdout)
    scored = [
        run for run in resolved("paper")["runs"].values() if run["dataset"] != "printed"
    ]
    assert planned["sample_images"] == len(scored)
    brought = copy_checkout(tmp_path_factory.mktemp("brought"), linked=LINKED)
    bring(brought)
    paper = snakemake(brought, "--dry-run", "paper_scale", "--config", "measured=True")
    assert paper.returncode == 0, paper.stdout[-2000:]
    kinds = [set(jobs(each.stdout)) for each in (paper, done)]
    # Figures and claims would say nothing, and weights and data are made up.
    left = {"draw_figure", "judge_claims", "paper_scale"}
    # Counted from the architecture alone, once.
    left |= {"count_other_unets"}
    # Of two steps there is one mask.
    left |= {"measure_masks"}
    left |= {"fetch_source", "prepare_coco", "make_backbone", "convert_stablesr"}
    assert kinds[0] - kinds[1] == left


@pytest.mark.parametrize(
    "target",
    [
        "scores/efficient_late.json",
        "tables/clockwork/table_3.md",
        "scores/translations/restored_d8.json",
    ],
)
def test_other_runs_of_the_paper_scale_are_there_by_path(checkout, target):
    done = snakemake(checkout, "--dry-run", f"results/random/{target}")
    assert done.returncode == 0, done.stdout
    assert "resources/paper" not in done.stdout


def test_default_run_and_paper_scale_need_no_random_weights(checkout):
    done = snakemake(checkout, "--dry-run")
    assert done.returncode == 0, done.stdout
    assert "results/random" not in done.stdout


def test_every_path_of_random_weights_is_made(root):
    """What the scale reads lies where `make_random_model` writes."""
    random = yaml.safe_load((ROOT / "workflow/random.yaml").read_text("utf-8"))[
        "random"
    ]
    for section in ("models", "translators", "encoders"):
        for name, chosen in random[section].items():
            parts = chosen["path"].split("/")
            assert parts[:3] == ["results", "random", "weights"], name
            spec = random["weights"][parts[3]]
            assert parts[4:] == ([spec["file"]] if "file" in spec else []), name
