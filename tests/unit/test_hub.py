"""Folders that are ready for a hub: each with a card that the hub itself reads."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from checkout import ROOT
from huggingface_hub import ModelCard

from clockwork_experiments.config.load import read_config
from clockwork_experiments.config.needs.publishing import published
from clockwork_experiments.report import hub
from clockwork_experiments.steps.make_hub_folder import make_hub_folder

MINI = ROOT / "resources" / "mini"


@pytest.fixture
def in_checkout(monkeypatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture
def listed(in_checkout) -> dict:
    models = yaml.safe_load(Path("workflow/mini_models.yaml").read_text("utf-8"))
    return published(read_config({}, ROOT), models)


def test_each_shipped_model_is_published_once(listed):
    cards = {str(path.parent.relative_to(ROOT)) for path in MINI.glob("*/README.md")}
    assert cards <= {each["folder"] for each in listed.values()}
    assert len({each["spec"]["name"] for each in listed.values()}) == len(listed)
    bases = {
        name.removeprefix("clockwork-mini-"): each["spec"].get("base", "")
        for name, each in listed.items()
    }
    assert bases["efficient"] == "clockwork-mini-stable-diffusion"
    assert bases["distilled"] == "clockwork-mini-efficient"
    assert bases["stablesr-distilled"] == "clockwork-mini-stablesr"
    assert bases["stable-diffusion"] == bases["clip"] == ""
    # What a card says it was made from is published, too.
    assert {base for base in bases.values() if base} <= set(listed)


def test_every_card_is_read_by_the_hub_and_tells_what_was_measured(listed):
    for each in listed.values():
        spec, folder = hub.HubSpec(**each["spec"]), Path(each["folder"])
        card = ModelCard(hub.card(folder, spec, ROOT))
        data = card.data
        assert data.license == "apache-2.0", folder
        assert data.library_name and data.pipeline_tag, folder
        assert data.get("model_name", spec.name) == spec.name
        if "base" in each["spec"]:
            assert data.base_model == f"{spec.owner}/{spec.base}"
            assert data.base_model_relation in ("adapter", "finetune")
        # Every model's own card has a section of what was measured.
        assert data.eval_results, folder
        assert all(isinstance(e.metric_value, float | int) for e in data.eval_results)
        assert "<!--" not in card.text
        for code in re.findall(r"```python\n(.*?)```", card.text, re.DOTALL):
            compile(code, "card", "exec")
            assert f"{spec.owner}/{spec.name}" in code


def test_measured_values_are_those_of_the_results(listed):
    metrics = {
        metric["name"]: metric["value"]
        for metric in hub.measured(MINI / "efficient", ROOT)
    }
    told = json.loads(
        (ROOT / "docs/reference/mini/quality/efficient.json").read_text("utf-8")
    )["images"]["all that it says"]
    name = f"images all that it says (n {told['n']})"
    assert metrics[name] == round(told["value"], 6)
    assert 0 < metrics["mean of the last training losses"] < 1
    # How many images there were is no metric, and renderings are not the model's.
    assert not [name for name in metrics if "count" in name or "rendering" in name]


def test_quality_beside_a_model_is_read(tmp_path):
    folder = tmp_path / "adaptors" / "stable-diffusion"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(
        "# An adaptor\n\n## Measured\n\n| | |\n|---|---|\n"
    )
    (folder / "config.json").write_text('{"_class_name": "ResNetAdaptor"}')
    quality = {"fréchet": {"value": 1.25, "low": 1.0, "high": 1.5, "n": 64}}
    (folder / "quality.json").write_text(json.dumps(quality), "utf-8")
    assert hub.measured(folder, ROOT) == [
        {"type": "fr_chet_n_64", "name": "fréchet (n 64)", "value": 1.25}
    ]
    card = hub.card(folder, hub.HubSpec("adaptor", "me", "teacher"), ROOT)
    data = ModelCard(card).data
    assert data.library_name == "clockwork-diffusion"
    assert (data.base_model, data.base_model_relation) == ("me/teacher", "adapter")
    assert 'load_adaptor("me/adaptor")' in card


def test_the_folder_is_whole_and_loads(tmp_path, in_checkout):
    output = tmp_path / "made"
    (output / "old").mkdir(parents=True)
    spec = hub.HubSpec("small", "me")
    card = MINI / "stable-diffusion" / "README.md"
    make_hub_folder(spec=spec, card=card, output=output)
    names = {p.relative_to(output) for p in output.rglob("*") if p.is_file()}
    source = {p.relative_to(card.parent) for p in card.parent.rglob("*") if p.is_file()}
    assert names == source
    from clockwork_experiments.models import loading

    pipe = loading.load_pipeline(output, loading.default_device())
    assert type(pipe).__name__ == "StableDiffusionPipeline"
    shutil.rmtree(output)


@pytest.mark.parametrize("name", ["efficient", "stablesr"])
def test_what_lies_over_another_model_is_published_whole(name, tmp_path, in_checkout):
    from diffusers import DiffusionPipeline

    from clockwork_diffusion.stablesr.pipeline import StableSRPipeline
    from clockwork_experiments.models import overlay

    folder, output = MINI / name, tmp_path / "made"
    assert overlay.is_over(folder)
    make_hub_folder(
        spec=hub.HubSpec(name, "me"), card=folder / "README.md", output=output
    )
    assert not overlay.is_over(output)
    kind = StableSRPipeline if name == "stablesr" else DiffusionPipeline
    # Only what is in the folder, by diffusers' own loader.
    pipe = kind.from_pretrained(output, local_files_only=True)
    own = pipe.unet.state_dict()
    shipped = overlay.tensors_of(folder, "unet")
    assert own.keys() == shipped.keys()
    assert all((own[key] == shipped[key].float()).all() for key in own)
