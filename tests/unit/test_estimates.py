import csv
import dataclasses
import json
from pathlib import Path

import pytest
import yaml
from checkout import resolved

from clockwork_experiments.config import parse
from clockwork_experiments.cost import estimates
from clockwork_experiments.cost.estimates import Job, Work
from clockwork_experiments.steps import estimate_costs

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference" / "paper" / "tables"
FILE = ROOT / "workflow" / "costs.yaml"
PAPER = resolved("paper")


@pytest.fixture(scope="module")
def units() -> estimates.UnitCosts:
    known = yaml.safe_load(FILE.read_text("utf-8"))
    return parse.parse(estimates.UnitCosts, known)


def rows(name: str) -> list[dict[str, str]]:
    with (REFERENCE / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_passes_of_unets_are_what_the_tables_counted(units):
    counted = {
        row["run"]: float(row["tflops"])
        for row in rows("clockwork/table_1.csv")
        if row["tflops"]
    }
    a_pass = counted["sd"] / 16
    assert a_pass == pytest.approx(0.6778e12, rel=1e-3)
    sampled = {"sd_unguided_1step": (1, 0), "distilled": (8, 0)}
    for name, total in counted.items():
        run = PAPER["runs"][name]
        calls = sampled.get(name, (4, 4) if name.endswith("clockwork") else (8, 0))
        count = 2 if run["sampler"]["guidance"] > 1 else 1
        each = calls[0] * units.passes.full[run["model"]]
        if calls[1]:
            each += calls[1] * units.passes.light[run["model"]]
        assert count * each == pytest.approx(total / a_pass, rel=2e-3), name
    levels = [float(row["gmacs"]) for row in rows("compression/table_s7.csv")]
    for share, gmacs in zip(units.passes.levels, levels, strict=True):
        assert share == pytest.approx(gmacs / levels[-1], abs=2e-4)


def test_passes_of_translators_are_what_the_tables_counted(units):
    unet = 338.61e-3  # TMACs of a pass
    tasks = {"InstructPix2Pix": "edit", "StableSR": "restoration"}
    tasks["ControlNet"] = "control"
    for row in rows("compression/table_s8.csv"):
        if row["label"] in tasks and row["level"] == "D13":
            task, steps = tasks[row["label"]], int(row["steps"])
            drawn = {"edit": 3, "restoration": 1, "control": 2}[task]
            each = float(row["tmacs"]) / steps / drawn
            assert units.passes.task[task] == pytest.approx(each / unet, rel=3e-3)


def test_seconds_of_a_pass_are_those_of_the_tables(units):
    (row,) = (r for r in rows("clockwork/table_s3.csv") if r["run"] == "sd")
    published = float(row["a100_published"]) / 1000 / 16
    assert units.devices["a100"].seconds == pytest.approx(published, rel=5e-3)
    whole = rows("compression/table_s8.csv")[0]
    assert (whole["label"], whole["level"]) == ("InstructPix2Pix", "D13")
    measured = float(whole["seconds"]) / int(whole["steps"]) / 3
    assert units.devices["cpu"].seconds == pytest.approx(measured, rel=5e-3)


def test_a_clock_costs_what_its_calls_do(units):
    run = {
        "model": "sd",
        "dataset": "few",
        "sampler": {"scheduler": "pndm", "steps": 8, "guidance": 7.5, "clock": 2},
    }
    config = {
        "datasets": {"few": {"count": 10, "seeds": 3, "shards": 4}},
        "runs": {"one": run},
    }
    found = estimates.estimate(config, units)
    # PNDM calls once more than it has steps: 5 whole and 4 light calls of two rows.
    each = 2 * (5 + 4 * 0.3465) + 3.66
    assert found["sample_images"].jobs == 4
    assert found["sample_images"].passes == pytest.approx(30 * each)
    # The run's images, and those of the data set.
    assert found["extract_features"] == Work(8, pytest.approx(60 * 0.79))


def test_training_unrolls_every_epoch(units):
    adaptor = json.loads(json.dumps(PAPER["adaptors"]["sd_resnet"]))
    run = {
        **PAPER["runs"]["sd_clockwork"],
        "adaptor": "one",
        "dataset": "laion_heldout",
    }
    config = {
        "datasets": {
            "laion": {"count": 50000, "shards": 100},
            "laion_heldout": {"count": 500, "shards": 1},
        },
        "trajectories": PAPER["trajectories"],
        # What nothing is made with is drawn alone, and not trained.
        "adaptors": {"one": adaptor, "drawn": adaptor},
        "runs": {"learned": run},
    }
    found = estimates.estimate(config, units)
    assert set(found) >= {"train_adaptor", "sample_trajectories"}
    unrolled = 120 * 416 * 8 * 2
    learned = 24960 * 16 * 3 * 0.0095
    assert found["train_adaptor"] == Work(1, pytest.approx(unrolled + learned))
    assert found["sample_trajectories"] == Work(1, pytest.approx(500 * 16))


def test_the_whole_paper_scale_has_an_estimate(units):
    found = estimates.estimate(PAPER, units)
    assert {*found} == {
        *("make_backbone", "sample_trajectories", "train_adaptor", "sample_images"),
        *("extract_features", "perturb_features", "invert_images", "edit_images"),
        *("score_edits", "translate_images", "score_translations", "search_depth"),
        *("search_steps", "time_sampling", "sample_reference", "find_grids"),
        *("make_plan", "measure_method", "time_method", "measure_masks"),
    }
    for rule, work in found.items():
        assert work.jobs > 0 and work.passes > 0, rule
    # 54 runs of 5,000 images and 6 of 30,000.
    assert found["sample_images"].jobs == sum(
        PAPER["datasets"][run["dataset"]]["shards"] for run in PAPER["runs"].values()
    )


def test_an_affine_map_and_plans_of_sd_take_two_hours_of_a_gpu_at_most(units):
    jobs = [
        job
        for job in estimates.list_jobs(PAPER, units)
        if job.output.startswith(("adaptors/sd_affine/", "trajectories/sd_few_"))
        or (job.rule == "make_plan" and "/t2i_" in job.output)
    ]
    rules = {job.rule for job in jobs}
    assert rules == {"train_adaptor", "sample_trajectories", "make_plan"}
    passes = sum(job.passes for job in jobs)
    assert 0.05 < estimates.hours(passes, units.devices["a100"]) <= 2


def test_a_benchmarked_method_costs_what_its_calls_do(units):
    task = {
        **{"model": "sd", "dataset": "few", "steps": 8, "reference": 40, "timed": 7},
        **{"guidance": 7.5, "scheduler": "dpmpp", "planned_on": 2},
    }
    clock = {"task": "t", "kind": "reuse", "adaptor": "identity"}
    plan = {"task": "t", "kind": "planned", "settings": {"budget": 0.5}}
    config = {
        "datasets": {"few": {"count": 10, "seeds": 2, "shards": 1}},
        "benchmark_tasks": {"t": task},
        "benchmark": {
            "light": clock,
            "rarer": {**clock, "settings": {"mask": "10000000"}},
            "plan": plan,
        },
    }
    found = {job.output: job.passes for job in estimates.list_jobs(config, units)}
    light, rarer = 2 * (4 + 4 * 0.3465) + 3.66, 2 * (1 + 7 * 0.3465) + 3.66
    folder, scored = "benchmark/t", 20 * 0.79
    measured = f"{folder}/methods/light.json"
    assert found[measured] == pytest.approx(20 * light + scored)
    measured = f"{folder}/methods/rarer.json"
    assert found[measured] == pytest.approx(20 * rarer + scored)
    many = 80 + 3.66
    assert found[f"{folder}/reference.safetensors"] == pytest.approx(20 * many + scored)
    assert found[f"{folder}/plans/plan.json"] == pytest.approx(
        150 * 2 * 0.5 * (16 + 3.66) + 2 * many
    )


def test_what_the_unit_costs_lack_is_named(units):
    config = {
        "datasets": {"few": {"count": 1, "shards": 1}},
        "runs": {
            "one": {
                "model": "sdxl",
                "dataset": "few",
                "sampler": {"steps": 1, "guidance": 1.0},
            }
        },
    }
    with pytest.raises(ValueError, match="unit costs say nothing of 'sdxl'"):
        estimates.estimate(config, units)


def test_a_dry_run_adds_up_the_jobs_that_are_left(units):
    device = dataclasses.replace(units.devices["a100"], seconds=3600.0)
    units = dataclasses.replace(units, devices={"a100": device})
    jobs = [
        Job("sample_images", "images/sd/000.safetensors", 5.0, memory=9.0, disk=500.0),
        Job("sample_images", "images/sd/001.safetensors", 6.0, memory=8.0, disk=600.0),
        Job("search_steps", "timesteps/ip2p.json", 4.0),
        Job("prepare_images", "images/coco/000.safetensors", 0.0, disk=400.0),
    ]
    text = estimates.to_text(jobs, ["stable_diffusion", "stablesr"], units)
    lines = [line.split() for line in text.splitlines()[2:7]]
    assert lines == [
        ["sample_images", "2", "11.0", "9.0", "1.1"],
        ["search_steps", "1", "4.0", "-", "-"],
        ["prepare_images", "1", "-", "-", "0.40"],
        ["fetch_source", "2", "-", "-", "2.1"],
        ["all", "6", "15.0", "9.0", "3.6"],
    ]
    # What nobody told is not nothing.
    assert "nobody told: stablesr." in text
    assert estimates.to_text([], [], units) == ""


def test_each_job_is_known_by_what_it_writes(units):
    jobs = list(estimates.list_jobs(PAPER, units))
    outputs = [job.output for job in jobs]
    assert len({*outputs}) == len(outputs)
    assert "images/sd/009.safetensors" in outputs
    sampled = next(job for job in jobs if job.output == "images/sd/000.safetensors")
    # 500 of 5,000 images, 8 steps of two rows; eight at a time.
    assert sampled.passes == pytest.approx(500 * (16 + units.passes.decode))
    memory = units.memory
    assert sampled.memory == pytest.approx(memory.pipeline + 8 * memory.decode)
    assert sampled.disk == pytest.approx(500 * units.disk.image)
    printed = [job for job in jobs if job.output.startswith("features/sd_printed")]
    assert not printed and "images/sd_printed/000.safetensors" in outputs


def test_the_step_writes_a_table_that_names_its_sources(tmp_path):
    output = tmp_path / "costs.md"
    given = {"spec": PAPER, "units": FILE, "title": "Costs"}
    estimate_costs.estimate_costs(**given, output=output)
    text = output.read_text("utf-8")
    assert text.startswith("**Costs**")
    heads = [line.split("|")[1].strip() for line in text.splitlines() if "|" in line]
    assert heads[0] == "rule" and heads[-1] == "all" and "train_adaptor" in heads
    assert "published, Table S3" in text and "nothing was measured on a GPU" in text
    broken = tmp_path / "costs.yaml"
    broken.write_text(FILE.read_text("utf-8").replace("decode:", "decoding:"))
    with pytest.raises(ValueError, match="unknown key 'decoding'"):
        estimate_costs.estimate_costs(**{**given, "units": broken}, output=output)
