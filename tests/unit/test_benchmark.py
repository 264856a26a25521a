"""The benchmark: methods by name, what is measured of them, and how they compare."""

import json
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from checkout import ROOT, resolved

from clockwork_diffusion.depth_skip import depth_skip
from clockwork_diffusion.plan import Plan
from clockwork_diffusion.schedulers import new_scheduler
from clockwork_experiments.base import storage
from clockwork_experiments.benchmark import comparison, measure
from clockwork_experiments.benchmark.comparison import Row
from clockwork_experiments.benchmark.methods import METHODS, find, made
from clockwork_experiments.benchmark.subject import (
    LightSpec,
    TaskSpec,
    open_subject,
)
from clockwork_experiments.config.checks import check_scale
from clockwork_experiments.config.needs import benchmarking
from clockwork_experiments.config.registry import Registry
from clockwork_experiments.cost import flops
from clockwork_experiments.data import pair_sets
from clockwork_experiments.models import encoders
from clockwork_experiments.report.figures.benchmark import draw_pareto, family
from clockwork_experiments.report.kinds import Given
from clockwork_experiments.report.tables.benchmark import (
    BenchmarkSpec,
    MasksSpec,
    PlansSpec,
    ShownMethod,
)
from clockwork_experiments.rivals.grids import GRIDS
from clockwork_experiments.score.metrics import ROUNDING_PSNR
from clockwork_experiments.search import masks
from clockwork_experiments.steps import (
    find_grids,
    make_plan,
    measure_masks,
    measure_method,
    sample_reference,
)
from clockwork_experiments.steps.list_measures import list_measures
from clockwork_experiments.world.pairs import scene_pairs

MINI = ROOT / "resources" / "mini"
TASK = TaskSpec("text", "dpmpp", 3, 4, 2.0, 7, 2, 4)


# --- kinds ---------------------------------------------------------------------------


def test_a_kind_is_found_by_its_name_and_others_are_refused():
    assert made("tgate", {"gate": 2}).gate == 2
    with pytest.raises(ValueError, match="'tgat' is not one of plain, reuse, depth"):
        find("tgat")
    with pytest.raises(ValueError, match="unknown key 'ratio' in settings; known are"):
        made("tgate", {"ratio": 0.5})
    with pytest.raises(ValueError, match="gate 9 is not between 1 and the 8 steps"):
        made("tgate", {"gate": 9})
    with pytest.raises(ValueError, match="clock 1 has no light step"):
        made("reuse", {"clock": 1})
    with pytest.raises(ValueError, match="a plan chooses its own time steps"):
        made("planned", {"grid": "ays"})


def test_a_kind_from_elsewhere_is_a_method_or_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my_rival.py").write_text(
        "from dataclasses import dataclass\n"
        "from clockwork_experiments.benchmark.methods.plain import Plain\n"
        "@dataclass(frozen=True)\n"
        "class Rival(Plain):\n"
        "    every: int = 2\n"
        "class Other: pass\n"
    )
    assert made("my_rival:Rival", {"every": 3, "steps": 5}).every == 3
    with pytest.raises(ValueError, match="is no clockwork_experiments.benchmark.meth"):
        find("my_rival:Other")
    with pytest.raises(ValueError, match="kind 'my_rival:Missing'"):
        find("my_rival:Missing")


def test_axes_tell_one_change_from_two():
    assert made("plain", {"steps": 5}).axes == ("time steps",)
    assert made("reuse", {}).axes == ("reuse",)
    assert made("reuse", {"grid": "ays"}).axes == ("reuse", "time steps")
    assert made("planned", {}).axes == ("time steps", "depth", "reuse")
    alone = made("planned", {"choose": ["steps", "time steps"]})
    assert alone.axes == ("time steps",)
    with pytest.raises(ValueError, match="'masks'.* is not some of mask, predictor"):
        made("planned", {"choose": ["masks"]})
    assert made("planned", {"choose": ["mask"]}).axes == ("reuse",)
    assert set(METHODS) == {*("plain", "reuse", "depth", "tgate", "tome", "planned")}


# --- the configuration ---------------------------------------------------------------


@pytest.mark.parametrize("scale", ["mini", "paper"])
def test_every_entry_is_a_method_and_each_task_has_its_plain_steps(scale):
    config = {scale: resolved(scale)}
    names = config[scale]["benchmark"]
    assert {benchmarking.built(config, scale, name).steps for name in names} >= {3, 8}
    for task in config[scale]["benchmark_tasks"]:
        assert benchmarking.plain_of(config, scale, task) == f"{task}_plain8"
        assert benchmarking.shown_of(config, scale, task)[:2] == ["methods", "plans"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kind": "plain", "settings": {"grid": "gitz"}}, "'gitz' is not one of the"),
        ({"kind": "reuse"}, "reuses features, and names no adaptor"),
        ({"task": "ip2p", "kind": "tgate"}, "tgate is for text-to-image"),
        ({"kind": "reuse", "adaptor": "efficient_resnet"}, "must have the same model"),
        (
            {"kind": "plain", "than": "ip2p_plain8"},
            "must have the same task, not 't2i' and 'ip2p'",
        ),
        ({"kind": "tome", "settings": {"rate": 1}}, "unknown key 'rate'"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_runs(changed, message):
    config = {"mini": resolved("mini")}
    entry = {"task": "t2i", "label": "mine", **changed}
    config["mini"]["benchmark"] = {**config["mini"]["benchmark"], "mine": entry}
    with pytest.raises(ValueError, match=message):
        check_scale(Registry(config, {}), "mini")


def test_planning_on_what_is_measured_is_refused():
    config = {"mini": resolved("mini")}
    tasks = config["mini"]["benchmark_tasks"]
    tasks["t2i"] = {**tasks["t2i"], "planning": "benchmark"}
    with pytest.raises(ValueError, match="plans on what it is measured on"):
        check_scale(Registry(config, {}), "mini")


def test_the_checks_know_the_grids_that_there_are():
    from clockwork_experiments.config import checks

    assert set(checks.GRIDS) == set(GRIDS)


# --- measuring -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Return two captions of the mini model, each from two noises."""
    prompts = tmp_path_factory.mktemp("prompts") / "prompts.json"
    captions = ["a red ring on the sea", "a blue square on the grass"]
    prompts.write_text(json.dumps(captions * 2))
    model = MINI / "stable-diffusion"
    light = LightSpec("stage1", "identity")
    found = open_subject(TASK, model, prompts=prompts, light=light)
    assert len(found.subject) == 4
    return found


@pytest.fixture(scope="module")
def reference(opened, tmp_path_factory):
    frechet = encoders.load_frechet("mini", MINI / "features")
    state = tmp_path_factory.mktemp("state") / "reference"
    made = measure.sample_reference(opened.subject, 4, 3, frechet, state, "")
    return frechet, measure.Reference(made["images"], made["features"])


def values(opened, reference, method, state) -> dict:
    frechet, images = reference
    return measure.measure_images(
        *(opened.subject, method, opened.given, images, frechet, None, 2, 2, state, "")
    )


def test_the_reference_by_another_batch_is_the_same_image(opened, reference, tmp_path):
    found = values(opened, reference, made("plain", {"steps": 4}), tmp_path / "state")
    assert found["values"]["psnr_to_reference"] == [ROUNDING_PSNR] * 4
    assert found["frechet"]["value"] == pytest.approx(0, abs=1e-4)


def test_a_light_step_costs_quality_and_saves_flops(opened, reference, tmp_path):
    whole = made("plain", {"steps": 3})
    light = made("reuse", {"steps": 3, "mask": "101"})
    near = values(opened, reference, whole, tmp_path / "whole")
    far = values(opened, reference, light, tmp_path / "light")
    assert near["values"] != far["values"]
    costs = [
        measure.count_flops(opened.subject, each, opened.given)
        for each in (
            whole,
            light,
            made("tgate", {"steps": 3, "gate": 1}),
            made("depth", {"steps": 3, "level": 6}),
        )
    ]
    # Three steps of both branches.
    once = flops.count_full(opened.given.pipe.unet, 32)
    assert costs[0]["flops"] == 6 * once.flops
    assert costs[0]["flops_with_attention"] == 6 * once.flops_with_attention
    assert costs[1]["flops"] < costs[0]["flops"]
    # One branch alone after the gate, and its cross-attention not at all.
    assert costs[2]["flops"] < 4 * once.flops
    # Depth-skip at every step, light ones as they are.
    level = flops.count_full(depth_skip(opened.given.pipe.unet, 6), 32)
    assert costs[3]["flops"] == 6 * level.flops < costs[0]["flops"]


def test_a_grid_is_visited(opened):
    given = replace(opened.given, grids={"even": {"3": [999, 500, 0]}})
    method = made("plain", {"steps": 3, "grid": "even"})
    assert method.sampled(given) == (3, (999, 500, 0))
    own = opened.subject.latents(slice(0, 1), 3)
    moved = opened.subject.latents(slice(0, 1), 3, (999, 500, 0))
    assert not torch.equal(own, moved)


def drawn_dead(opened, monkeypatch) -> None:
    """Let all images be of one colour."""
    blank = torch.full((4, 3, 64, 64), 7, dtype=torch.uint8)
    monkeypatch.setattr(opened.subject, "images", lambda _, rows: blank[rows])


def test_a_dead_model_is_no_reference(opened, reference, tmp_path, monkeypatch):
    drawn_dead(opened, monkeypatch)
    with pytest.raises(ValueError, match="reference: of 4 images, 4 are of one colour"):
        measure.sample_reference(opened.subject, 1, 4, reference[0], tmp_path, "")


def test_a_method_of_dead_images_is_not_measured(
    opened, reference, tmp_path, monkeypatch
):
    drawn_dead(opened, monkeypatch)
    with pytest.raises(ValueError, match="a method's images: of 4 images, 4 are of"):
        values(opened, reference, made("plain", {"steps": 1}), tmp_path / "state")


def test_time_is_of_pairs(opened):
    found = measure.time_method(
        opened.subject, made("plain", {"steps": 1}), opened.given, 3, 2
    )
    assert found.pairs == 2 and found.overhead < 0


def test_the_method_of_the_page_is_measured(opened, reference, tmp_path, monkeypatch):
    page = (ROOT / "docs" / "extend.md").read_text("utf-8")
    (block,) = re.findall(r'title="my_methods.py"\n(.*?)```', page, re.DOTALL)
    (tmp_path / "my_methods.py").write_text(block)
    monkeypatch.chdir(tmp_path)
    found = {}
    for last in (1, 2):
        method = made("my_methods:Late", {"last": last, "steps": 3})
        found[last] = values(opened, reference, method, tmp_path / str(last))
        found[last] |= measure.count_flops(opened.subject, method, opened.given)
    assert found[2]["flops"] < found[1]["flops"]
    assert found[1]["values"] != found[2]["values"]


@pytest.fixture(scope="module")
def edits(tmp_path_factory) -> Path:
    """Return a set of two edits of scenes, prepared."""
    path = tmp_path_factory.mktemp("pairs") / "edits.json"
    found = scene_pairs("edit", "test", 2, 47000)
    tensors = {"inputs": found.inputs, "targets": found.targets}
    storage.write_tensors(path.with_suffix(".safetensors"), tensors)
    said = (found.prompts, found.source_captions, found.target_captions, found.kinds)
    pair_sets.write_set(path, pair_sets.PairSet("edit", ("a", "b"), *said))
    return path


def test_a_plan_of_edits_is_made_and_measured_by_the_steps(edits, tmp_path):
    model, frechet = MINI / "instruct-pix2pix", MINI / "features"
    task = TaskSpec("edit", "dpmpp", 3, 4, 2.0, 7, 2, 4)
    make_plan.make_plan(
        make_plan.PlanSpec(task, 0.9, 3, 2, ("steps", "mask", "time steps")),
        *(model, tmp_path / "plan.json"),
        set=edits,
    )
    planned = Plan.load(tmp_path / "plan.json")
    assert planned.prompts == 2 and planned.steps <= 3 and planned.share <= 0.9
    sample_reference.sample_reference(
        *(task, model, frechet, "mini", tmp_path / "state"),
        tmp_path / "reference.safetensors",
        set=edits,
    )
    measure_method.measure_method(
        measure_method.MethodSpec(task, "planned", {"budget": 0.9, "steps": 3}),
        *(model, tmp_path / "reference.safetensors", frechet, "mini"),
        *(tmp_path / "state", tmp_path / "planned.json"),
        set=edits,
        plan=tmp_path / "plan.json",
    )
    found = storage.read_json(tmp_path / "planned.json")
    # Two pairs, each from two noises.
    assert len(found["values"]["psnr_to_reference"]) == 4
    assert tuple(found["timesteps"]) == planned.timesteps
    assert found["planned"] and len(found["axes"]) == 3
    once = flops.count_full(open_subject(task, model, pairs=edits).given.pipe.unet, 32)
    assert found["flops"] / (9 * once.flops) == pytest.approx(planned.share, abs=0.05)


def test_edits_visit_the_time_steps_that_they_are_planned_on(
    edits, tmp_path, monkeypatch
):
    model = MINI / "instruct-pix2pix"
    task = TaskSpec("edit", "dpmpp", 3, 4, 2.0, 7, 2, 4)
    planned: list[int] = []

    class Kept:
        def save(self, path):
            Path(path).write_text("{}")

    def plan(pipe, *_, **__):
        planned.extend(pipe.scheduler.timesteps.tolist())
        return Kept()

    monkeypatch.setattr(make_plan, "plan", plan)
    spec = make_plan.PlanSpec(task, 0.9, 3, 2, ("mask",))
    make_plan.make_plan(spec, model, tmp_path / "plan.json", set=edits)
    opened = open_subject(task, model, pairs=edits)
    pipe, visited = opened.given.pipe, []
    pipe.unet.register_forward_pre_hook(lambda _, args: visited.append(int(args[1])))
    opened.subject.latents(slice(0, 1), *made("plain", {"steps": 3}).sampled(None))
    own = new_scheduler("dpmpp", pipe.scheduler.config, 3).timesteps.tolist()
    assert visited == planned == own
    assert visited[-1] > 0


def test_grids_and_masks_are_found_by_the_steps(tmp_path):
    model, prompts = MINI / "stable-diffusion", tmp_path / "prompts.json"
    prompts.write_text(json.dumps(["a red ring on the sea", "a blue square"]))
    task = replace(TASK, reference=8, steps=5)
    asked = {"even": (3,), "gits": (3, 4)}
    find_grids.find_grids(
        find_grids.GridsSpec(task, asked, 1),
        *(model, tmp_path / "grids.json"),
        prompts=prompts,
    )
    found = storage.read_json(tmp_path / "grids.json")
    assert found["captions"] == 1 and found["grids"]["even"]["3"][0] == 999
    assert len(found["grids"]["gits"]["4"]) == 4
    measure_masks.measure_masks(
        measure_masks.MasksSpec(task, 1, LightSpec("stage1", "extrapolation")),
        *(model, prompts, tmp_path / "state", tmp_path / "masks.json"),
    )
    found = storage.read_json(tmp_path / "masks.json")
    assert set(found["errors"]) == set(masks.all_masks(5))
    assert found["predicted"]["spans"]["10111"] == found["errors"]["10111"]
    assert not (tmp_path / "state").exists()


# --- comparing -----------------------------------------------------------------------


def row(label: str, flops: float, quality: float, **more) -> Row:
    draw = random.Random(label)
    noise = [draw.gauss(0, 0.1) for _ in range(60)]
    each = tuple(quality + one - sum(noise) / 60 for one in noise)
    base = Row(
        *(label, (label,), {"psnr_to_reference": each}, (quality,), 2, flops),
        *(flops, 0.0, ("reuse",), False, False, False),
    )
    return replace(base, **more)


PLAIN = row("8 steps", 100, 30, axes=("time steps",))


def test_the_front_leaves_out_what_is_dearer_and_no_better():
    rows = [PLAIN, row("worse", 60, 20), row("cheap", 50, 25), row("dear", 110, 30.5)]
    assert [each.label for each in comparison.front(rows)] == [
        *("cheap", "8 steps", "dear"),
    ]


def test_the_best_single_axis_is_within_the_budget_and_changes_one_thing():
    rows = [
        PLAIN,
        row("clock", 64, 26),
        row("joint", 60, 29, axes=("reuse", "time steps")),
        row("plan", 60, 28, axes=("reuse", "time steps"), planned=True),
        row("over", 66, 27),
        row("mask", 50, 24, planned=True),
    ]
    assert comparison.best_single(rows, PLAIN, 0.65).label == "clock"
    assert comparison.best_single(rows, PLAIN, 0.7).label == "over"
    assert comparison.best_single(rows, PLAIN, 0.5).label == "mask"
    assert comparison.best_single(rows, PLAIN, 0.3) is None


def test_differences_are_of_the_same_images_and_resample_captions():
    one, other = row("a", 50, 26), row("b", 50, 25)
    gap = one.minus(other)
    assert gap.low < gap.value < gap.high and gap.clear
    assert gap.value == pytest.approx(one.quality - other.quality)
    assert not row("c", 50, 25).minus(row("d", 50, 25)).clear
    # Two noises of a caption are not two captions: copies add no certainty.
    single = replace(one, seeds=1, values={"psnr_to_reference": tuple(range(30))})
    twice = replace(one, values={"psnr_to_reference": tuple(range(30)) * 2})
    assert twice.mean().low == pytest.approx(single.mean().low)
    with pytest.raises(ValueError, match="a and 8 steps make no pairs"):
        one.minus(replace(PLAIN, seeds=1))


def measured(quality: float, flops: float = 1e9, **more) -> dict:
    shown = row(str(quality), 0, quality).values
    return {
        "values": {name: list(each) for name, each in shown.items()},
        "frechet": {"value": 0.5},
        "flops": flops,
        "flops_with_attention": flops,
        **{"seeds": 2, "steps": 8, "timesteps": [], "axes": ["reuse"]},
        **{"planned": False, "trained": False},
        **more,
    }


MEASURED = {
    "plain8": measured(30, 2e9, axes=["time steps"]),
    "identity": measured(25),
    "resnet": measured(26, trained=True),
    "resnet_seed1": measured(28, trained=True),
    "plan": measured(29.5, planned=True, axes=["reuse", "time steps"]),
}
LISTED = (
    ShownMethod("plain8", "8 steps"),
    ShownMethod("identity", "identity"),
    ShownMethod("resnet", "ResNet", "identity"),
    ShownMethod("resnet_seed1", "ResNet"),
    ShownMethod("plan", "plan for 50 %"),
)


@pytest.fixture
def given(tmp_path) -> Given:
    paths, times = [], []
    for name, data in MEASURED.items():
        for folder, found, kept in (
            ("methods", data, paths),
            ("times", {"overhead": -0.3, "low": -0.4, "high": -0.2}, times),
        ):
            path = tmp_path / folder / f"{name}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(found))
            kept.append(path)
    return Given({"methods": paths, "times": times})


def test_training_seeds_of_a_label_are_one_row_with_their_spread(given):
    spec = BenchmarkSpec("t", "c", "t2i", LISTED, "plain8", (0.5,))
    table = spec.make(given)
    (resnet,) = (each for each in table.rows if each["label"] == "ResNet")
    assert resnet["training_seeds"] == 2
    assert resnet["spread"] == pytest.approx(2, abs=0.1)
    assert resnet["psnr_to_reference"].value == pytest.approx(27, abs=0.1)
    assert resnet["share"] == 0.5 and resnet["time"].value == pytest.approx(0.7)
    assert [each["label"] for each in table.rows][-1] == "8 steps"
    said = "\n".join(table.notes)
    assert "Within 50 % of the FLOPs of 8 steps, plan for 50 % is best at 29.5" in said
    assert "ResNet is not told from identity: +2.0" in said
    assert "2 training seeds 26.00 to 28.00 dB" in said
    assert "front, where none is better" in said and "plan for 50 %, 8 steps" in said


@pytest.mark.parametrize(
    ("of_seeds", "verdict"),
    [
        ((26.9, 27.0, 27.1), "ResNet is better than"),
        ((25.2, 27.0, 28.8), "ResNet is not told from"),
        ((27.0,), "ResNet (one training seed) is better than"),
    ],
)
def test_what_is_told_holds_for_other_training_seeds(of_seeds, verdict):
    """The captions alone tell all of these apart."""
    other = row("identity", 50, 25)
    trained = row("ResNet", 50, 27, of_seeds=of_seeds, trained=True, than="identity")
    said = comparison.sentences([PLAIN, other, trained], PLAIN, (0.5,))
    assert said[-1].startswith(f"{verdict} identity: +2.0")
    (budget,) = (each for each in said if each.startswith("Within"))
    told = "not told from it" if "not told" in verdict else "behind it"
    assert f"identity is {told}" in budget


def test_random_weights_are_told_behind_the_label():
    listed = [("plain8", "8 steps", ""), ("mine", "mine", "")]
    found = {"plain8": measured(30), "mine": measured(25, random_weights=True)}
    labels = [each.label for each in comparison.rows_of(listed, found, {})]
    assert labels == ["8 steps", "mine (random weights)"]


def test_the_plan_is_compared_with_the_best_that_changes_one_thing(given):
    spec = PlansSpec("t", "c", "t2i", LISTED, "plain8", (0.5,))
    table = spec.make(given)
    (only,) = table.rows
    assert only["single"] == "ResNet"
    assert only["difference"].value == pytest.approx(2.5, abs=0.1)
    # Two trainings of what it is held against are too few to tell.
    assert table.notes[0].startswith("0 of 1 plans are better than the best single")
    once = tuple(each for each in LISTED if each.method != "resnet_seed1")
    (note,) = replace(spec, methods=once).make(given).notes
    assert note.startswith("1 of 1 plans are better than the best single")


def test_the_figure_draws_each_family_once(given):
    spec = BenchmarkSpec("t", "c", "t2i", LISTED, "plain8", (0.5,))
    rows = spec.rows(given)
    assert len({family(each) for each in rows}) == 4
    figure = draw_pareto(rows, rows[0], "title")
    assert len(figure.axes) == 2
    untimed = draw_pareto([replace(each, ratio=None) for each in rows], rows[0], "t")
    assert len(untimed.axes) == 1


def test_masks_are_a_row_for_each_budget(tmp_path):
    draw = random.Random(1)
    errors = {mask: draw.random() + 0.1 for mask in masks.all_masks(5)}
    errors["11111"] = 0.0
    path = tmp_path / "identity.json"
    found = {"captions": 3, "sums": masks.report(errors, 5), "errors": errors}
    path.write_text(json.dumps(found))
    spec = MasksSpec("t", "c", "t2i", ("identity",), 5)
    table = spec.make(Given({"masks": [path]}))
    assert [each["full"] for each in table.rows] == [1, 2, 3, 4]
    for each in table.rows:
        budget = [mask for mask in errors if mask.count("1") == each["full"]]
        assert each["best"] == min(budget, key=errors.__getitem__)
        gap = errors[each["of_spans"]] / errors[each["best"]] - 1
        assert each["gap_of_spans"] == pytest.approx(gap)
    assert "identity, 3 captions: sums of single steps have an R² of" in table.notes[0]


def test_every_value_is_a_line(tmp_path):
    path = tmp_path / "one.json"
    path.write_text(json.dumps({"seeds": 2, "values": {"psnr": [1.0, 2.0, 3.0, 4.0]}}))
    list_measures([path], tmp_path / "images.csv")
    lines = (tmp_path / "images.csv").read_text().splitlines()
    assert lines[0] == "method,caption,seed,metric,value"
    assert lines[1:] == [
        *("one,0,0,psnr,1.0", "one,1,0,psnr,2.0"),
        *("one,0,1,psnr,3.0", "one,1,1,psnr,4.0"),
    ]
