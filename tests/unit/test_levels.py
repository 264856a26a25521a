"""Tables S7 and S8 at paper size, from the architectures alone."""

import copy
import json
from argparse import Namespace

import pytest
import set_step
import torch

from clockwork_diffusion.depth_skip import describe_levels, shared_parameters
from clockwork_experiments.base import storage
from clockwork_experiments.cost import latency
from clockwork_experiments.cost.flops import count_control, count_full, count_level
from clockwork_experiments.cost.formulas import kept_share, run_flops, run_parameters
from clockwork_experiments.cost.task_architectures import (
    build_branch,
    build_task_unet,
    call_inputs,
)
from clockwork_experiments.generate.tasks import TASKS
from clockwork_experiments.report.figures.levels import LevelMapSpec, draw_level_map
from clockwork_experiments.report.tables.levels import (
    CostRow,
    CostTableSpec,
    LevelTableSpec,
    image_macs,
    short,
)
from clockwork_experiments.report.tables.table import Results
from clockwork_experiments.steps import (
    sample_images,
    time_levels,
)

# Table S8: steps, and TMACs of the whole UNet, of D9 and of D8.
TABLE_S8 = {
    "edit": (50, {13: 50.81, 9: 47.27, 8: 41.75}),
    "restoration": (50, {13: 18.75, 9: 17.49, 8: 15.57}),
    "control": (20, {13: 18.21, 9: 17.26, 8: 15.79}),
}
# The abstract: by how much the footprint shrinks, and the level that is kept.
FOOTPRINTS = {"edit": (39.2, 9), "restoration": (56.4, 8), "control": (39.2, 9)}
PUBLISHED = {
    "share": (
        (0.69, 1.25, 1.37, 2.85, 4.39, 5.06, 10.98)
        + (16.71, 17.47, 9.17, 9.37, 9.37, 11.32)
    ),
    "kept": (
        (0.70, 1.95, 3.32, 6.17, 10.56, 15.62, 26.60)
        + (43.31, 60.78, 69.95, 79.32, 88.68, 100.0)
    ),
}


@pytest.fixture(scope="module")
def counted() -> dict[str, dict]:
    """Count as `count_levels` does, at the levels that are printed."""
    counts = {}
    for name, (_, printed) in TABLE_S8.items():
        unet = build_task_unet(name)
        branch = None
        if TASKS[name].branch:
            branch = count_control(build_branch(unet), unet, 77).to_json()
        levels = [level.to_json() for level in describe_levels(unet)]
        for level in printed:
            levels[level - 1]["count"] = count_level(unet, 77, level).to_json()
        counts[name] = {
            "task": name,
            "rows": TASKS[name].rows,
            "levels": levels,
            "shared": shared_parameters(unet),
            "branch": branch,
        }
    return counts


@pytest.fixture
def all_counted(counted) -> dict:
    """Return those of editing, with a count of its own at each level."""
    counts = copy.deepcopy(counted["edit"])
    for entry in counts["levels"]:
        entry.setdefault("count", {"macs_with_norms": 1e9 * entry["level"]})
    return counts


def results(counts: dict, timed: dict | None = None) -> Results:
    timings = {} if timed is None else {"edit": timed}
    return Results({}, levels={"edit": counts}, level_latency=timings)


@pytest.mark.parametrize("name", TABLE_S8)
def test_table_s8_has_the_printed_macs(counted, name):
    steps, printed = TABLE_S8[name]
    for level, tmacs in printed.items():
        macs = image_macs(counted[name], level, steps)
        assert macs == pytest.approx(tmacs * 1e12, rel=0.001)


def test_the_control_branch_has_the_macs_of_the_recount(counted):
    branch = counted["control"]["branch"]
    assert branch["macs_with_norms"] == pytest.approx(116.48e9, rel=1e-4)


@pytest.mark.parametrize("name", FOOTPRINTS)
def test_the_footprints_of_the_abstract(counted, name):
    smaller, level = FOOTPRINTS[name]
    assert f"{100 * (1 - kept_share(counted[name], level)):.1f}" == str(smaller)


def test_the_last_level_costs_what_the_whole_unet_does(counted):
    levels = counted["edit"]["levels"]
    whole = count_full(build_task_unet("edit"), 77)
    assert levels[-1]["count"] == whole.to_json()
    assert levels[7]["count"]["macs"] < levels[8]["count"]["macs"] < whole.macs
    assert levels[8]["count"]["parameters"] == 523_229_124


@pytest.mark.parametrize("name", TASKS)
def test_sizes_of_the_tasks(name):
    unet = build_task_unet(name)
    total = sum(p.numel() for p in unet.parameters())
    wide = TASKS[name].conditioned
    expected = 918_930_884 if TASKS[name].structure else 859_520_964 + 11_520 * wide
    assert total == expected
    assert unet.config.in_channels == (8 if wide else 4)
    assert ("structure" in call_inputs(unet, 77)) == TASKS[name].structure


def test_an_unknown_task():
    with pytest.raises(ValueError, match="'edits' is not one of edit, control"):
        build_task_unet("edits")


def test_table_s7_shows_the_printed_beside_the_counted(all_counted):
    spec = LevelTableSpec("Title", "Caption.", "edit", PUBLISHED)
    table = spec.table(results(all_counted))
    rows = table.rows
    assert len(rows) == 13
    for row in rows:
        for key in PUBLISHED:
            assert f"{row[key]:.2f}" == f"{row[f'{key}_published']:.2f}"
    assert rows[8]["level"] == "D09"
    assert rows[8]["encoder"] == "down2.r1 + a1"
    assert rows[3]["decoder"] == "up2.r2 + a2 + up"
    assert all(row["latency"] is None for row in rows)
    text = table.markdown()
    assert "| D09" in text and "17.47" in text and "—" in text
    # Latency is printed and not timed: LaTeX has no column of ours.
    assert "cumulative" in table.latex("s7") and "---" not in table.latex("s7")
    assert len(table.csv().splitlines()) == 14
    # Columns of which nothing is printed are not there.
    assert "latency_published" not in table.csv()


def test_latency_shares_are_those_of_what_a_level_adds(all_counted):
    times = {
        str(level): {"runs": [2.0 * level, 2.0 * level, 900.0]}
        for level in range(1, 14)
    }
    spec = LevelTableSpec("Title", "Caption.", "edit")
    timed = {"levels": times, "branch": None, "device": "d", "dtype": "float32"}
    rows = spec.table(results(all_counted, timed)).rows
    assert [row["latency"] for row in rows] == pytest.approx([100 / 13] * 13)
    assert rows[8]["latency_kept"] == pytest.approx(100 * 9 / 13)


def test_published_values_must_be_one_per_level(all_counted):
    spec = LevelTableSpec("Title", "Caption.", "edit", {"share": (1.0, 2.0)})
    with pytest.raises(ValueError, match="2 values are published as 'share', and the"):
        spec.table(results(all_counted))


def test_table_s8_shows_the_printed_beside_the_counted(counted):
    timed = {
        "levels": {"9": {"runs": [30.0]}},
        "branch": {"runs": [10.0]},
        "device": "d",
        "dtype": "float32",
    }
    spec = CostTableSpec(
        "Title",
        "Caption.",
        (
            CostRow("ControlNet, D9", "control", 9, 20, {"tmacs": 17.26}),
            CostRow("StableSR, D8", "restoration", 8, 50),
        ),
    )
    found = Results({}, levels=counted, level_latency={"control": timed})
    rows = spec.table(found).rows
    assert rows[0]["tmacs"] == pytest.approx(rows[0]["tmacs_published"], rel=1e-3)
    assert rows[0]["seconds"] == pytest.approx(20 * 0.040)
    assert rows[0]["kept"] == pytest.approx(60.78, abs=0.005)
    assert rows[1]["seconds"] is None
    assert rows[0]["saved"] == pytest.approx(39.2, abs=0.05)
    text = spec.table(found).markdown()
    assert "TMACs (published)" in text and "GMACs" not in text
    small = CostTableSpec("T", "C", spec.rows, "G").table(found).rows
    assert small[0]["gmacs"] == pytest.approx(1e3 * rows[0]["tmacs"])


def test_names_of_modules_in_few_letters():
    assert short(["conv_in"]) == "conv_in"
    assert short(["mid_block"]) == "mid"
    assert short([]) == ""
    assert short(["down_blocks.0.downsamplers.0"]) == "down0.down"
    assert short(["up_blocks.0.resnets.2", "up_blocks.0.upsamplers.0"]) == "up0.r2 + up"


def test_the_steps_set_and_draw_what_is_counted(tmp_path, all_counted):
    counts, timed = tmp_path / "edit.json", tmp_path / "timed" / "edit.json"
    storage.write_json(counts, all_counted)
    calls = {str(n): {"runs": [float(n)]} for n in range(1, 14)}
    device = {"device": "some device", "dtype": "float32"}
    storage.write_json(timed, {**device, "levels": calls, "branch": None})
    spec = {"title": "T", "caption": "C.", "translator": "edit"}
    given = {"levels": [counts], "output": tmp_path / "s7.csv"}

    def set_levels(spec: dict, **other) -> str:
        arguments = {"kind": "levels", **given, **other}
        set_step.table(spec=json.dumps(spec), **arguments)
        assert (tmp_path / "s7.tex").is_file()
        return (tmp_path / "s7.md").read_text("utf-8")

    assert "some device" not in set_levels(spec)
    assert "Timed on: some device, float32." in set_levels(spec, level_latency=[timed])
    row = {"label": "Edit", "translator": "edit", "level": 9, "steps": 10}
    costs = {"title": "T", "caption": "C.", "rows": [row]}
    assert "| Edit" in set_levels(costs, kind="level_costs", level_latency=[timed])
    assert "0.090" in (tmp_path / "s7.md").read_text("utf-8")
    figure = {**spec, "level": 9}
    arguments = {"kind": "level_map", "spec": json.dumps(figure), "levels": counts}
    set_step.figure(Namespace(**arguments, output=tmp_path / "map.png"))
    assert (tmp_path / "map.pdf").stat().st_size > 5000


def texts_of(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_the_map_shows_what_is_kept(all_counted):
    spec = LevelMapSpec("Title", "Caption.", "edit", 9)
    texts = texts_of(draw_level_map(spec, all_counted))
    assert "zeros\n1280 × 16 × 16" in texts
    assert any("60.8 % of the parameters" in text for text in texts)
    assert {"D01", "D13", "down2.r1 + a1", "middle block", "17.5 %"} <= set(texts)
    whole = texts_of(draw_level_map(LevelMapSpec("T", "C.", "edit", 13), all_counted))
    assert not any(text.startswith("zeros") for text in whole)
    with pytest.raises(ValueError, match="level 14 is not one of 1 to 13"):
        draw_level_map(LevelMapSpec("T", "C.", "edit", 14), all_counted)


# --- runs at a level --------------------------------------------------------------


def test_runs_at_a_level_cost_what_is_left():
    counts = {
        "full": {"flops": 100, "parameters": 50},
        "levels": {"9": {"flops": 90, "parameters": 30}},
        "adaptors": {"identity": {"parameters": 1, "step": {"flops": 20}}},
    }
    plain = {"sampler": {"steps": 8, "guidance": 1.0}, "adaptor": ""}
    clocked = {"sampler": {**plain["sampler"], "clock": 2}, "adaptor": "identity"}
    assert run_flops({**plain, "level": 9}, counts, "flops") == 8 * 90
    assert run_flops({**clocked, "level": 9}, counts, "flops") == 4 * 90 + 4 * 20
    assert run_flops(clocked, counts, "flops") == 4 * 100 + 4 * 20
    assert run_parameters({**clocked, "level": 9}, counts) == 31
    assert run_parameters(plain, counts) == 50
    with pytest.raises(ValueError, match="level 8 is not one of those counted: 9"):
        run_flops({**plain, "level": 8}, counts, "flops")


def test_the_step_samples_at_a_level(tmp_path, root):
    prompts = tmp_path / "prompts.json"
    storage.write_json(prompts, ["a red ring on the sea", "a blue disc on the sand"])
    sampler = {"scheduler": "dpmpp", "steps": 2, "guidance": 2.0}

    def images(**further):
        spec = {"sampler": sampler, "seed": 0, "batch_size": 2, **further}
        output = tmp_path / "images.safetensors"
        sample_images.sample_images(
            spec=json.dumps(spec),
            model=root / "resources/mini/stable-diffusion",
            prompts=prompts,
            shard=0,
            shards=1,
            state=tmp_path / "state",
            output=output,
        )
        return torch.from_numpy(storage.read_arrays(output)["images"])

    whole = images()
    assert torch.equal(images(level=13), whole)
    assert not torch.equal(images(level=9), whole)
    with pytest.raises(ValueError, match="give either a level or a branch, not both"):
        images(level=9, branch=2)


def test_timing_takes_a_call_of_each_level(tmp_path, root):
    output = tmp_path / "timed.json"
    config = root / "resources/mini/stable-diffusion/unet/config.json"
    spec = time_levels.LevelTimingSpec("control", tokens=5, repeats=2)
    time_levels.time_levels(spec, output, unet=config)
    timed = storage.read_json(output)
    assert list(timed["levels"]) == [str(level) for level in range(1, 14)]
    assert all(entry["mean_ms"] > 0 for entry in timed["levels"].values())
    assert timed["branch"]["mean_ms"] > 0 and timed["light"] == {}
    assert timed["rows"] == 2
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("task", ["text", "restoration"])
def test_light_passes_are_timed_beside_the_levels(tmp_path, monkeypatch, root, task):
    calls = {}

    def time_in_turns(loops, runs):
        calls.update(loops)
        return {name: latency.Timing(1.0, 0.0, (1.0,) * runs) for name in loops}

    monkeypatch.setattr(latency, "time_in_turns", time_in_turns)
    folder = {"text": "stable-diffusion", "restoration": "stablesr"}[task]
    adaptors = {"same": "stage2"}
    time_levels.time_levels(
        time_levels.LevelTimingSpec(task, tokens=5, repeats=2, adaptors=adaptors),
        tmp_path / "timed.json",
        root / "resources/mini" / folder / "unet/config.json",
    )
    timed = storage.read_json(tmp_path / "timed.json")
    assert list(timed["light"]) == ["same"] and len(timed["levels"]) == 13
    # It is what a run does on a step that is not full: the same here, as nothing moved.
    with torch.inference_mode():
        whole, light = calls["13"]()[0], calls["light same"]().eps
    assert torch.allclose(light, whole, atol=1e-5)
