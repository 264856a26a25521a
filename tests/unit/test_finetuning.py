"""Training on after depth-skip, with a small model and few updates."""

import json
from pathlib import Path

import pytest
import torch

from clockwork_diffusion.depth_skip import DepthSkipUNet, depth_skip
from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.generate import translators
from clockwork_experiments.mini.finetuning import FineTuneSpec, cut, finetune
from clockwork_experiments.mini.gains import FineTuneStepSpec
from clockwork_experiments.steps import finetune_translator, prepare_pairs
from clockwork_experiments.world.pairs import scene_pairs

MINI = Path(__file__).parents[2] / "resources" / "mini"
MODEL = MINI / "instruct-pix2pix"
TRAINING = {
    "level": 5,
    "recipe": {
        "task": "edit",
        "pairs": 16,
        "offset": 600000,
        "reading": {"steps": 5, "batch_size": 4, "lr": 0.1},
        "optimisation": {"steps": 6, "batch_size": 8, "lr": 1e-4},
    },
}


@pytest.fixture(scope="module")
def translator() -> translators.Translator:
    return translators.load_translator("edit", MODEL)


def pairs():
    return scene_pairs("edit", "train", 16, 600000)


def spec_of(**changed) -> FineTuneSpec:
    recipe = {**TRAINING["recipe"]}
    recipe["optimisation"] = {**recipe["optimisation"], **changed}
    return parse(FineTuneSpec, {**TRAINING, "recipe": recipe})


def test_what_is_left_learns_and_nothing_else(translator, tmp_path):
    before = {k: v.clone() for k, v in translator.pipe.unet.state_dict().items()}
    text = {k: v.clone() for k, v in translator.pipe.text_encoder.state_dict().items()}
    trained = finetune(spec_of(), translator, pairs, tmp_path / "state.pt")
    unet = trained.module
    assert isinstance(unet, DepthSkipUNet) and unet.level == 5
    assert (
        unet.state_dict().keys()
        == depth_skip(translator.pipe.unet, 5).state_dict().keys()
    )
    changed = [k for k, v in unet.state_dict().items() if not torch.equal(v, before[k])]
    assert len(changed) > 0.9 * len(unet.state_dict())
    # The translator itself is as it was, and instructions were not learnt again.
    for state, wanted in (
        (translator.pipe.unet.state_dict(), before),
        (translator.pipe.text_encoder.state_dict(), text),
    ):
        assert all(torch.equal(v, wanted[k]) for k, v in state.items())
    assert not (tmp_path / "state.text.pt").exists()


def test_no_learning_rate_is_depth_skip_itself(translator, tmp_path):
    still = finetune(
        spec_of(lr=0.0, steps=2), translator, pairs, tmp_path / "state.pt"
    ).module
    x, t = torch.randn(2, 8, 16, 16), torch.tensor(500)
    text = torch.randn(2, 7, translator.pipe.unet.config.cross_attention_dim)
    wanted = depth_skip(translator.pipe.unet, 5)(x, t, text)[0]
    assert torch.allclose(still(x, t, text)[0], wanted, atol=1e-5)


def test_the_loss_is_that_of_the_translator(translator, tmp_path):
    trained = finetune(
        spec_of(lr=3e-4, steps=25), translator, pairs, tmp_path / "state.pt"
    )
    first = sum(loss for _, loss in trained.history[:5])
    last = sum(loss for _, loss in trained.history[-5:])
    assert last < first


def test_only_what_is_left_is_copied(translator):
    model = cut(translator.pipe, 5)
    trainable = [p for p in model.parameters() if p.requires_grad]
    left = depth_skip(translator.pipe.unet, 5)
    assert sum(p.numel() for p in trainable) == sum(
        p.numel() for p in left.parameters()
    )
    shared = {id(p) for p in translator.pipe.unet.parameters()}
    assert not shared & {id(p) for p in model.parameters()}


@pytest.mark.parametrize(
    ("task", "message"),
    [("control", "task 'control' is not one of edit, inpainting, synthesis")],
)
def test_tasks_whose_unet_is_not_trained_are_refused(task, message):
    recipe = {**TRAINING["recipe"], "task": task}
    del recipe["reading"]
    with pytest.raises(ValueError, match=message):
        parse(FineTuneSpec, {"level": 5, "recipe": recipe})


def test_translators_for_other_tasks_are_refused(translator, tmp_path):
    recipe = {**TRAINING["recipe"], "task": "inpainting"}
    del recipe["reading"]
    spec = parse(FineTuneSpec, {"level": 5, "recipe": recipe})
    with pytest.raises(ValueError, match="for edit is not trained for inpainting"):
        finetune(spec, translator, pairs, tmp_path / "state.pt")


def test_the_step_saves_a_unet_and_says_what_it_gains(tmp_path):
    chosen = json.dumps({"task": "edit", "source": "scenes", "count": 3})
    prepare_pairs.prepare_pairs(spec=chosen, output=tmp_path / "set.json")
    spec = {
        "training": TRAINING,
        "translation": {"task": "edit", "steps": 2, "guidance": 2.0},
        "seed": 0,
        "batch_size": 3,
    }
    finetune_translator.finetune_translator(
        spec=parse(FineTuneStepSpec, spec),
        translator=MODEL,
        set=tmp_path / "set.json",
        clip=MINI / "clip",
        restorer=None,
        state=tmp_path / "state",
        output=tmp_path / "tuned",
    )
    unet = DepthSkipUNet.from_pretrained(tmp_path / "tuned", local_files_only=True)
    assert unet.level == 5 and unet.mid_block is None
    storage.check_weights(tmp_path / "tuned")
    report = storage.read_json(tmp_path / "tuned" / "gain.json")
    assert report["level"] == 5 and report["updates"] == 6
    scores = report["scores"]
    assert scores["whole"]["psnr_to_teacher"]["value"] > 58
    for key, gain in report["gain"].items():
        wanted = scores["tuned"][key]["value"] - scores["cut"][key]["value"]
        assert gain["value"] == pytest.approx(wanted)
        assert gain["n"] == 3
    assert report["gain"]["psnr"]["value"] != 0
    missing = report["missing"]["psnr_to_teacher"]["value"]
    assert missing < 0
    assert "kept to level 5" in (tmp_path / "tuned" / "README.md").read_text()
