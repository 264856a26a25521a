"""Training of the mini translators, in a few updates."""

import dataclasses
import json
import subprocess
import sys

import pytest
import torch

from clockwork_experiments.generate import translators
from clockwork_experiments.mini import cfw, restorer
from clockwork_experiments.mini import translators as mini
from clockwork_experiments.models import loading
from clockwork_experiments.models.mini import Restorer, save
from clockwork_experiments.score.metrics import psnr
from clockwork_experiments.train.training import Optimisation
from clockwork_experiments.world import edits, pairs, scenes

SHORT = Optimisation(steps=3, batch_size=4, lr=1e-4)
PARTS = mini.StableSRParts(8, 8, (8, 8, 16, 16), cfw.FuseSpec(1, 4, 4, 2, SHORT))


def spec_of(task, **changes):
    further = {"edit": {"reading": SHORT}, "restoration": {"parts": PARTS}}
    settings = {
        "pairs": 12,
        "offset": 50,
        "judged": 2,
        **further.get(task, {}),
        **changes,
    }
    return mini.TranslatorSpec(task, optimisation=SHORT, **settings)


@pytest.fixture(scope="module")
def pipe(root):
    return loading.load_pipeline(root / "resources/mini/stable-diffusion")


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(3)
    noisy = torch.randn(2, 4, 16, 16, generator=generator)
    given = torch.randn(2, 4, 16, 16, generator=generator)
    tokens = torch.randint(0, 200, (2, 32), generator=generator)
    return noisy, torch.tensor([100, 900]), given, tokens


@torch.no_grad()
def teacher_output(pipe, noisy, timesteps, tokens):
    text = pipe.text_encoder(tokens).last_hidden_state
    return pipe.unet(noisy, timesteps, text).sample


@pytest.mark.parametrize("task", ["edit", "inpainting", "control"])
def test_training_starts_from_the_teacher(pipe, batch, task):
    noisy, timesteps, given, tokens = batch
    model = mini.build(spec_of(task), pipe)
    if task == "control":
        given = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        output = model(noisy, timesteps, given, tokens)
    expected = teacher_output(pipe, noisy, timesteps, tokens)
    assert torch.allclose(output, expected, atol=1e-5)


def test_calibrated_spade_starts_nearer_to_the_teacher(pipe, batch):
    noisy, timesteps, given, tokens = batch
    model = mini.build(spec_of("restoration"), pipe)
    expected = teacher_output(pipe, noisy, timesteps, tokens)

    def error():
        with torch.no_grad():
            output = model(noisy, timesteps, given, tokens)
        return float((output - expected).square().mean())

    before = error()
    latents = torch.randn(32, 4, 16, 16, generator=torch.Generator().manual_seed(4))
    mini.calibrate(model, pipe, latents, torch.Generator().manual_seed(5))
    assert error() < 0.5 * before


@pytest.mark.parametrize(
    ("task", "learns"),
    [
        ("edit", {"unet", "text_encoder"}),
        ("synthesis", {"unet"}),
        ("control", {"controlnet"}),
        ("restoration", {"unet", "structure_encoder"}),
    ],
)
def test_what_the_published_recipes_train_is_trained(pipe, task, learns):
    model = mini.build(spec_of(task), pipe)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert {name.partition(".")[0] for name in trained} == learns
    if task == "restoration":
        of_unet = [name for name in trained if name.startswith("unet.")]
        assert of_unet and all(".spade." in name for name in of_unet)


def test_a_wider_input_is_ignored_at_first_and_then_learned(pipe):
    wide = mini.widen_input(pipe.unet, 4)
    assert wide.config.in_channels == 8
    assert pipe.unet.config.in_channels == 4
    assert torch.equal(wide.conv_in.weight[:, :4], pipe.unet.conv_in.weight)
    assert not wide.conv_in.weight[:, 4:].any()
    model = mini.Joined(wide, pipe.text_encoder, learns=False)
    noisy, given = torch.randn(1, 4, 16, 16), torch.randn(1, 4, 16, 16)
    tokens = torch.zeros(1, 32, dtype=torch.long)
    model(noisy, torch.tensor([500]), given, tokens).square().mean().backward()
    assert model.unet.conv_in.weight.grad[:, 4:].abs().max() > 0


def test_labels_say_what_an_instruction_changes():
    labels = mini.change_labels("train", 40, 50)
    made = pairs.scene_pairs("edit", "train", 40, 50)
    names, several = list(edits.VALUES), 0
    for row, kind, prompt in zip(labels, made.kinds, made.prompts, strict=True):
        (changed,) = row[: len(names)].nonzero().flatten().tolist()
        assert names[changed] == kind
        value = edits.VALUES[kind][row[changed] - 1]
        if kind in ("recolour", "retexture", "resize", "move", "hour"):
            assert prompt.endswith(value)
        spoken = row[len(names) :]
        assert bool(spoken.all()) == (kind not in ("background", "hour", "light"))
        several += bool(spoken.all())
    assert 0 < several < 40
    assert set(made.kinds) == set(names)


def test_instructions_are_learned(pipe, tmp_path):
    made = pairs.scene_pairs("edit", "train", 64, 50)
    tokens = mini.tokenize(pipe.tokenizer, list(made.prompts))
    labels = mini.change_labels("train", 64, 50)
    model = mini.build(spec_of("edit"), pipe)
    recipe = Optimisation(steps=25, batch_size=32, lr=1e-3)
    read = mini.learn_instructions(
        model.text_encoder, lambda: (tokens, labels), recipe, tmp_path / "state.pt"
    )
    assert read.history[-1][1] < 0.5 * read.history[0][1]


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("painting", {}, "task 'painting' is not one of edit, "),
        ("control", {"reading": SHORT}, "task 'control' and a recipe for reading"),
        ("inpainting", {"parts": PARTS}, "task 'inpainting' and parts of StableSR"),
        ("edit", {"empty_prompts": 0.5, "empty_inputs": 0.3}, "leave no sample"),
        ("edit", {"beside": ("control",)}, "'edit' does not learn 'control' beside"),
        ("inpainting", {"beside": ("synthesis",)}, "'inpainting' does not learn"),
    ],
)
def test_specs_that_fit_nothing_are_refused(task, changes, message):
    with pytest.raises(ValueError, match=message):
        spec_of(task, **changes)


@pytest.mark.parametrize("task", ["edit", "control", "restoration"])
def test_the_step_ships_what_loads_again(root, tmp_path, task):
    teacher = root / "resources/mini/stable-diffusion"
    recipe, reads, changes = "translator", [f"teacher={teacher}"], {}
    if task == "edit":
        save(Restorer(8, 1), tmp_path / "restorer")
        recipe, reads = "instruct", [*reads, f"restorer={tmp_path / 'restorer'}"]
        changes = {"beside": ("inpainting", "synthesis")}
    command = [
        *(sys.executable, "-m", "clockwork_experiments.steps.train_mini"),
        *("--recipe", f"clockwork_experiments.mini.recipes.{recipe}"),
        *("--spec", json.dumps(dataclasses.asdict(spec_of(task, **changes)))),
        *("--reads", *reads),
        *("--state", str(tmp_path / "state.pt"), "--output", str(tmp_path / "made")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    card = (tmp_path / "made/README.md").read_text(encoding="utf-8")
    model = teacher if task == "control" else None
    for each in (task, *changes.get("beside", ())):
        assert f"{each}: PSNR to the right answer, dB (2 validation pairs" in card
        loaded = translators.load_translator(each, tmp_path / "made", model)
        assert loaded.task == each
    stored = [path.read_bytes() for path in (tmp_path / "made").rglob("*.json")]
    assert not any(str(tmp_path).encode() in text for text in stored)
    assert not list(tmp_path.glob("state*"))


def test_the_state_of_other_work_is_refused(pipe, tmp_path):
    spec = spec_of("inpainting")
    made = pairs.scene_pairs("inpainting", "train", 12, 50)
    state = tmp_path / "state.pt"
    mini.train(spec, pipe, lambda: made, state, work="one teacher")
    with pytest.raises(ValueError, match="other data or with other code"):
        mini.train(spec, pipe, lambda: made, state, work="another teacher")


def test_the_restorer_learns_to_sharpen(tmp_path):
    recipe = Optimisation(steps=60, batch_size=16, lr=2e-3)
    spec = restorer.RestorerSpec(64, 0, 16, 2, recipe)
    device = torch.device("cpu")
    network = restorer.train(spec, tmp_path / "state.pt", device).module
    soft, sharp = pairs.blurred_scenes("validation", 16)
    restored = restorer.restore(network, soft)
    assert restored.dtype == torch.uint8
    assert psnr(restored, sharp).mean() > psnr(soft, sharp).mean() + 0.3


def test_a_fresh_restorer_changes_little_and_keeps_its_shape():
    network = Restorer(8, 1)
    network.last.weight.data.zero_()
    network.last.bias.data.zero_()
    images = torch.randint(0, 256, (2, 3, scenes.SIZE, scenes.SIZE)).byte()
    assert torch.equal(restorer.restore(network, images), images)
