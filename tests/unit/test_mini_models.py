"""The mini models' registry and recipes, and the one step that trains by them."""

import importlib
import inspect
import json
import typing
from functools import reduce

import pytest
import yaml
from checkout import ROOT, resolved

from clockwork_experiments.base import provenance
from clockwork_experiments.config.parse import parse
from clockwork_experiments.mini import recipe as recipes

MODELS = yaml.safe_load((ROOT / "workflow/mini_models.yaml").read_text("utf-8"))
CONFIG = {"mini": resolved("mini")}
CLIP = "clockwork_experiments.mini.recipes.clip"
FEATURES = "clockwork_experiments.mini.recipes.features"


def settings_of(model):
    training = CONFIG["mini"]["training"]
    return model.get("spec") or reduce(lambda s, k: s[k], model["training"], training)


@pytest.mark.parametrize("name", MODELS)
def test_each_model_has_a_recipe_that_fits_its_entry(name):
    model = MODELS[name]
    train = importlib.import_module(model["recipe"]).train
    spec = parse(typing.get_type_hints(train)["spec"], settings_of(model))
    for stage in getattr(spec, "stages", (spec,)):
        assert getattr(stage, "optimisation", stage).steps > 1
    reads = model.get("reads", {})
    assert [*inspect.signature(train).parameters][2:] == list(reads)
    assert {*reads.values()} <= {*MODELS}


def test_no_recipe_is_left_out():
    used = {tuple(m["training"]) for m in MODELS.values() if "training" in m}
    training = dict(CONFIG["mini"]["training"])
    translators = {("translators", name) for name in training.pop("translators")}
    assert used == {*translators, *((name,) for name in training)}
    shipped = {f"resources/mini/{n}" for n, m in MODELS.items() if m.get("shipped")}
    backbones = {f"resources/mini/{name}" for name in CONFIG["mini"]["backbones"]}
    there = {p.relative_to(ROOT).as_posix() for p in ROOT.glob("resources/mini/*/")}
    assert shipped | backbones == there - {"resources/mini/adaptors"}


def test_a_net_s_loss_concerns_its_own_recipe_alone():
    def code(recipe):
        name = recipe.removeprefix("clockwork_experiments.")
        return {path.name for path in provenance.code_of(name)}

    assert "clip.py" in code(CLIP) - code(FEATURES)
    assert "features.py" in code(FEATURES) - code(CLIP)
    assert not {"clip.py", "features.py"} & {
        path.name for path in provenance.code_of("steps.train_mini")
    }


def test_state_of_other_work_is_refused_and_goes_when_the_model_is_there(
    tmp_path, monkeypatch
):
    spec = json.dumps(CONFIG["mini"]["training"]["restorer"])
    module = importlib.import_module("clockwork_experiments.mini.recipes.restorer")
    seen = []

    def train(spec, job):
        seen.append(spec.width)
        job.state.write_text("half", encoding="utf-8")
        raise InterruptedError

    train.__annotations__["spec"] = typing.get_type_hints(module.train)["spec"]
    monkeypatch.setattr(module, "train", train)
    place = tmp_path / "state" / "restorer.pt", tmp_path / "made"
    with pytest.raises(InterruptedError):
        recipes.train(module.__name__, spec, {}, *place)
    with pytest.raises(ValueError, match=r"restorer\.\* is the state of training by"):
        recipes.train(
            module.__name__, spec.replace('"width": 24', '"width": 8'), {}, *place
        )
    with pytest.raises(ValueError, match="reads no model, not teacher"):
        recipes.train(module.__name__, spec, {"teacher": tmp_path}, *place)
    assert seen == [24]
