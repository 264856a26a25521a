"""Searching for time steps from the command line, with small random models."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from clockwork_diffusion.depth_skip import depth_skip
from clockwork_diffusion.timesteps import gamma_timesteps
from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.data import pair_sets
from clockwork_experiments.generate import text, translate, translators
from clockwork_experiments.models import encoders
from clockwork_experiments.score import metrics
from clockwork_experiments.search import methods
from clockwork_experiments.search.methods import StepSearchSpec
from clockwork_experiments.search.timesteps import resampled
from clockwork_experiments.steps import prepare_pairs, search_steps

MINI = Path(__file__).parents[2] / "resources" / "mini"
COUNT = 3
SPEC = {
    "translation": {"task": "edit", "steps": 6, "guidance": 3.0},
    "seed": 4,
    "batch_size": 2,
    "steps": [2, 3],
    "methods": {"greedy": [2, 3], "bracketed": [2, 3], "evolution_psnr": [3]},
    "most": 5,
    "evolution": {
        "population": 4,
        "epochs": 2,
        "parents": 2,
        "mutants": 2,
        "crossovers": 1,
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, random_translators) -> Path:
    """Return a folder with sets, and models with new weights at random."""
    folder = tmp_path_factory.mktemp("steps")
    shutil.copytree(random_translators, folder, dirs_exist_ok=True)
    for name, task, offset in (
        ("edit", "edit", 0),
        ("others", "edit", 10),
        ("control", "control", 0),
        ("edges", "control", 10),
    ):
        chosen = {"task": task, "source": "scenes", "count": COUNT, "offset": offset}
        spec = json.dumps(chosen)
        prepare_pairs.prepare_pairs(spec=spec, output=folder / f"{name}.json")
    return folder


def search(folder: Path, output: Path, **changed):
    options = {
        "translator": folder / "joined",
        "model": None,
        "set": folder / "edit.json",
        "heldout": folder / "others.json",
        "evolution_set": None,
        "clip": MINI / "clip",
        "frechet": None,
        "frechet_kind": None,
        "lpips": None,
        "lpips_kind": None,
        "also": [],
        "state": output.parent / "state" / output.stem,
        "references": None,
        "output": output,
    }
    options |= {key: changed.pop(key) for key in options.keys() & changed.keys()}
    spec = {**SPEC, **changed.pop("spec", {})}
    assert not changed
    search_steps.search_steps(parse(StepSearchSpec, spec), **options)
    return storage.read_json(output)


@pytest.fixture(scope="module")
def report(folder):
    return search(folder, folder / "report.json")


def entry(report, steps, method):
    (found,) = (
        each
        for each in report["searches"]
        if (each["steps"], each["method"]) == (steps, method)
    )
    return found


def sample(folder, pairs_of, timesteps, *, shared, level=None):
    """Return the images of a plain loop."""
    translator = translators.load_translator("edit", folder / "joined")
    pairs = pair_sets.read_set(folder / f"{pairs_of}.json")
    inputs, _ = pair_sets.read_images(folder / f"{pairs_of}.safetensors", pairs)
    seeds = [text.image_seed(4, 0 if shared else i) for i in range(COUNT)]
    pipe = translator.pipe
    pipe.unet = pipe.unet if level is None else depth_skip(pipe.unet, level)
    spec = translate.TranslationSpec(
        "edit", len(timesteps), 3.0, timesteps=tuple(timesteps)
    )
    latents = translator.translate(inputs, pairs.prompts, seeds, spec)
    return translator.decode(latents, inputs), inputs


def test_the_objective_is_psnr_to_many_uniform_steps_from_one_noise(folder, report):
    many, _ = sample(folder, "edit", gamma_timesteps(6, 1.0), shared=True)
    for found in (entry(report, 3, "uniform"), entry(report, 3, "greedy")):
        few, _ = sample(folder, "edit", found["timesteps"], shared=True)
        wanted = float(metrics.psnr(few, many).mean())
        assert found["quality"] == pytest.approx(wanted, abs=0.02)
        assert found["search"]["psnr_to_teacher"]["value"] == found["quality"]


def test_what_is_found_is_judged_on_other_pairs_from_noise_of_their_own(folder, report):
    found = entry(report, 3, "bracketed")
    many, inputs = sample(folder, "others", gamma_timesteps(6, 1.0), shared=False)
    few, _ = sample(folder, "others", found["timesteps"], shared=False)
    clip = encoders.load_clip(MINI / "clip")
    features = [encoders.clip_image_features(clip, each) for each in (inputs, few)]
    wanted = {
        "psnr_to_teacher": metrics.psnr(few, many),
        "clip_image": metrics.cosines(*features),
    }
    heldout = found["heldout"]
    for name, values in wanted.items():
        assert heldout["pairs"][name] == pytest.approx(values.tolist(), abs=0.02)
        assert heldout["scores"][name]["value"] == pytest.approx(
            float(values.mean()), abs=0.02
        )
    uniform = entry(report, 3, "uniform")["heldout"]
    assert "minus_uniform" not in uniform
    apart = torch.tensor(heldout["pairs"]["psnr_to_teacher"])
    apart = (apart - torch.tensor(uniform["pairs"]["psnr_to_teacher"])).mean()
    gain = heldout["minus_uniform"]["psnr_to_teacher"]
    assert gain["value"] == pytest.approx(float(apart), abs=1e-5)
    assert gain["low"] <= gain["value"] <= gain["high"]


def test_every_method_says_what_it_found_and_what_that_took(report):
    assert report["task"] == "edit" and report["reference"] == 6
    assert report["level"] is None and report["clock"] == 1
    assert report["pairs"] == {"search": 3, "evolution": 3, "heldout": 3}
    # Three rows of guidance, three pairs.
    assert report["references"]["unet_calls"] == 6 * 3 * 3
    assert report["references"]["seconds"] > 0
    asked = [(each["steps"], each["method"]) for each in report["searches"]]
    assert asked == [
        (2, "uniform"),
        (2, "greedy"),
        (2, "bracketed"),
        (3, "uniform"),
        (3, "greedy"),
        (3, "bracketed"),
        (3, "evolution_psnr"),
    ]
    for each in report["searches"]:
        trials = each["trials"]
        assert each["evaluations"] == len(trials) >= 1
        assert each["unet_calls"] == len(trials) * each["steps"] * 3 * 3
        assert each["seconds"] > 0
        assert each["quality"] == max(trial["quality"] for trial in trials)
        assert trials[0]["timesteps"] == list(gamma_timesteps(each["steps"], 1.0))
        if each["method"] == "evolution_psnr":
            assert each["gamma"] is None and len(trials) == 3 + 4
        else:
            expected = gamma_timesteps(each["steps"], each["gamma"])
            assert tuple(each["timesteps"]) == expected
    for steps in (2, 3):
        greedy, ours = (entry(report, steps, name) for name in ("greedy", "bracketed"))
        assert ours["evaluations"] <= greedy["evaluations"] <= 5


def test_a_killed_search_goes_on_where_it_was(folder, report, monkeypatch):
    calls = []
    real = translate.Translator.translate

    def watched(*args, **kwargs):
        calls.append(args)
        return real(*args, **kwargs)

    monkeypatch.setattr(translate.Translator, "translate", watched)
    again = folder / "report.json"
    before = storage.read_json(again)
    again.unlink()
    assert search(folder, again) == before and not calls
    # Another n measures that n alone: its reference is known.
    spec = {"steps": [2, 3, 4], "methods": {"greedy": [2, 3]}}
    search(folder, again, spec=spec)
    assert len(calls) == 2 * 2


def test_searches_of_one_model_share_their_reference(folder, tmp_path, monkeypatch):
    asked = []
    real = translate.Translator.translate

    def watched(*args, **kwargs):
        asked.append(args[4].visited)
        return real(*args, **kwargs)

    monkeypatch.setattr(translate.Translator, "translate", watched)
    references = tmp_path / "references"
    many = gamma_timesteps(6, 1.0)
    spec = {"steps": [3], "methods": {}}
    clocked = {"translation": {**SPEC["translation"], "clock": 2}, "kind": "identity"}
    plain = search(folder, tmp_path / "a.json", spec=spec, references=references)
    made = asked.count(many)
    # Two sets, the search's and the other, in two batches each.
    assert made == 4
    clock = {**spec, **clocked}
    found = search(folder, tmp_path / "b.json", spec=clock, references=references)
    assert asked.count(many) == made
    one, other = (each["references"]["heldout"] for each in (found, plain))
    assert one == other
    # Another guidance, or level, has a reference of its own.
    other = {**SPEC["translation"], "guidance": 2.0}
    for changed in ({"translation": other}, {"level": 6}):
        options = {"spec": {**spec, **changed}, "references": references}
        search(folder, tmp_path / "c.json", **options)
        made += 4
        assert asked.count(many) == made
    # A file of other models or pairs is not believed.
    (first, *_) = sorted(references.glob("edit_*.safetensors"))
    for each in sorted(references.glob("*.safetensors")):
        tensors, notes = storage.read_tensors(each)
        storage.write_tensors(each, tensors, {**notes, "marks": "others"})
    search(folder, tmp_path / "d.json", spec=spec, references=references)
    assert asked.count(many) == made + 4 and first.is_file()


def test_level_and_clock_are_in_place_while_steps_are_searched(folder, tmp_path):
    quick = {"steps": [3], "methods": {"bracketed": [3]}, "most": 3}
    even, uniform = gamma_timesteps(3, 1.0), gamma_timesteps(6, 1.0)
    few, _ = sample(folder, "edit", even, shared=True, level=6)
    # Compared with many steps of the same model, or of the whole one.
    for whole, level in ((False, 6), (True, None)):
        many, _ = sample(folder, "edit", uniform, shared=True, level=level)
        spec = {**quick, "level": 6, "whole_reference": whole}
        found = search(folder, tmp_path / f"{whole}.json", spec=spec)
        wanted = float(metrics.psnr(few, many).mean())
        assert found["level"] == 6
        assert entry(found, 3, "uniform")["quality"] == pytest.approx(wanted, abs=0.02)
    clocked = {"translation": {**SPEC["translation"], "clock": 2}, "kind": "identity"}
    found = search(folder, tmp_path / "clock.json", spec={**quick, **clocked})
    plain = search(folder, tmp_path / "plain.json", spec=quick)
    assert found["clock"] == 2
    one, other = (entry(each, 3, "uniform")["quality"] for each in (found, plain))
    assert one != pytest.approx(other, abs=1e-3)
    # The reference runs without the clock: that of the plain search.
    one, other = (each["references"]["heldout"] for each in (found, plain))
    assert one == other


def test_steps_of_another_search_are_measured_too(folder, report, tmp_path):
    spec = {"steps": [3, 4], "methods": {}, "level": 9}
    options = {"spec": spec, "also": [folder / "plain.json"]}
    shutil.copy(folder / "report.json", folder / "plain.json")
    storage.write_json(folder / "plain.json", report)
    found = search(folder, tmp_path / "cut.json", **options)
    asked = [(each["steps"], each["method"]) for each in found["searches"]]
    assert asked == [(3, "uniform"), (3, "from_plain"), (4, "uniform")]
    best = max(
        (entry(report, 3, name) for name in ("greedy", "bracketed")),
        key=lambda each: each["quality"],
    )
    taken = entry(found, 3, "from_plain")
    assert taken["timesteps"] == best["timesteps"] and taken["gamma"] == best["gamma"]
    assert taken["evaluations"] == taken["unet_calls"] == 0
    assert "minus_uniform" in taken["heldout"]


def test_a_search_for_gamma_alone_holds_nothing_out(folder, report, tmp_path):
    spec = {"steps": [3], "methods": {"bracketed": [3]}}
    found = search(folder, tmp_path / "alone.json", heldout=None, spec=spec)
    assert found["pairs"]["heldout"] == 0
    assert found["references"]["heldout"]["scores"] == {}
    for own in found["searches"]:
        assert own["heldout"] == {"scores": {}, "pairs": {}, "frechet": None}
        assert own["search"] == entry(report, 3, own["method"])["search"]


def test_resampled_searches_cost_only_what_no_search_had_tried(
    folder, report, tmp_path
):
    spec = {"steps": [3], "methods": {"bracketed": [3]}, "resamples": 4}
    found = search(folder, tmp_path / "again.json", heldout=None, spec=spec)
    own = entry(found, 3, "bracketed")
    assert len(own.pop("resampled")) == 4
    # γ itself, and what its search took, are as without them.
    alone = {"steps": [3], "methods": {"bracketed": [3]}}
    plain = search(folder, tmp_path / "once.json", heldout=None, spec=alone)
    for key in ("gamma", "trials", "evaluations", "unet_calls"):
        assert own[key] == entry(plain, 3, "bracketed")[key]


class OfPairs:
    """An evaluator of pairs that each have a middle time step that suits them best."""

    def __init__(self, best: list[float]) -> None:
        self.best, self.asked = torch.tensor(best), set()

    def __len__(self) -> int:
        return len(self.best)

    def values(self, timesteps):
        self.asked.add(timesteps)
        return {"psnr_to_teacher": -((timesteps[1] - self.best) ** 2)}


def test_resampled_searches_find_what_suits_the_pairs_that_were_drawn():
    best = [300.0, 380.0, 420.0, 500.0, 340.0, 600.0]
    on = OfPairs(best)
    spec = parse(
        StepSearchSpec,
        {**SPEC, "methods": {"bracketed": [3]}, "most": 30, "resamples": 60},
    )
    found = resampled(methods.find("bracketed"), spec, 3, on, lambda each: each, {})
    middles = torch.tensor([float(gamma_timesteps(3, each)[1]) for each in found])
    # Of squares the best is the mean of what was drawn; its spread is that of a mean.
    assert float(middles.mean()) == pytest.approx(sum(best) / 6, abs=15)
    error = float(torch.tensor(best).std(correction=0)) / 6**0.5
    assert float(middles.std()) == pytest.approx(error, rel=0.3)
    assert (
        resampled(methods.find("bracketed"), spec, 3, on, lambda each: each, {})
        == found
    )


def test_autodiffusion_goes_by_a_set_of_its_own(folder, tmp_path):
    found = search(
        folder,
        tmp_path / "control.json",
        translator=folder / "controlnet",
        model=MINI / "stable-diffusion",
        set=folder / "control.json",
        heldout=folder / "edges.json",
        evolution_set=folder / "edges.json",
        frechet=MINI / "features",
        frechet_kind="mini",
        lpips=MINI / "features",
        lpips_kind="mini",
        spec={
            "translation": {"task": "control", "steps": 3},
            "steps": [2],
            "methods": {"evolution_frechet": [2]},
        },
    )
    evolved = entry(found, 2, "evolution_frechet")
    uniform = entry(found, 2, "uniform")
    assert evolved["quality"] == max(each["quality"] for each in evolved["trials"]) < 0
    # Both sets are the same here, and so is the noise of their pairs.
    assert evolved["heldout"]["frechet"] == pytest.approx(-evolved["quality"])
    assert evolved["heldout"]["frechet"] <= uniform["heldout"]["frechet"]
    assert {"psnr", "lpips"} <= evolved["heldout"]["scores"].keys()
    assert "lpips" not in evolved["search"]
    assert found["encoders"].keys() == {"clip", "frechet", "lpips"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"spec": {"batch_size": 0}}, "batch_size 0 is less than 1"),
        ({"spec": {"steps": []}}, r"steps \[\] are none, or do not ascend"),
        ({"spec": {"steps": [3, 2]}}, r"steps \[3, 2\] are none, or do not ascend"),
        ({"spec": {"steps": [1, 2]}}, "1 steps are not between 2 and 1000"),
        ({"spec": {"methods": {"typo": [2]}}}, "method 'typo' is not one of greedy"),
        (
            {"spec": {"methods": {"greedy": [4]}}},
            "4 steps of method 'greedy' are not one of 2, 3",
        ),
        ({"spec": {"resamples": 1}}, "resamples 1 are not 0, nor 2 or more"),
        ({"spec": {"most": 0}}, "0 evaluations are not 1 or more"),
        (
            {"spec": {"steps": [2], "methods": {"evolution_frechet": [2]}}},
            "AutoDiffusion by the Fréchet distance needs its network",
        ),
        ({"set": "control.json"}, "the set is for control, not for edit"),
        ({"spec": {"level": 14}}, "level 14"),
    ],
)
def test_wrong_searches_are_refused(folder, tmp_path, changed, message):
    if "set" in changed:
        changed = {"set": folder / changed["set"]}
    with pytest.raises(ValueError, match=message) as caught:
        search(folder, tmp_path / "report.json", **changed)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report.json").exists()


def test_a_set_without_images_is_refused(folder, tmp_path):
    shutil.copy(folder / "edit.json", tmp_path / "edit.json")
    with pytest.raises((ValueError, OSError), match="edit.safetensors"):
        search(folder, tmp_path / "report.json", set=tmp_path / "edit.json")
