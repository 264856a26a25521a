"""Distilling the mini StableSR into few steps, and weights that lie over others."""

import dataclasses
import json
import subprocess
import sys

import pytest
import torch

from clockwork_diffusion.stablesr import pipeline
from clockwork_experiments.generate import translators
from clockwork_experiments.generate.text import image_seed, initial_noise
from clockwork_experiments.generate.translate import Translator
from clockwork_experiments.mini import few_steps
from clockwork_experiments.models import loading
from clockwork_experiments.train.backbones import Noise
from clockwork_experiments.train.training import Optimisation
from clockwork_experiments.world import pairs

STEPS = (999, 600, 200)
SHORT = Optimisation(steps=2, batch_size=6, lr=1e-3, ema=0.5, seed=5)


@pytest.fixture(scope="module")
def base(root):
    return root / "resources/mini/stablesr"


@pytest.fixture(scope="module")
def pipe(base):
    return loading.load_pipeline(base, kind=pipeline.StableSRPipeline)


@pytest.fixture(scope="module")
def made():
    return pairs.scene_pairs("restoration", "train", 8, 50)


def spec_of(**changes):
    settings = {"pairs": 8, "offset": 50, "timesteps": STEPS, "reference": 6}
    settings |= {"optimisation": SHORT, "judged": 2, **changes}
    return few_steps.FewStepsSpec(**settings)


def latents_of(pipe, images, seed=5):
    seeds = [image_seed(seed, index) for index in range(len(images))]
    noise = initial_noise(seeds, (4, 16, 16))
    low = pipe.encode(images.float() / 127.5 - 1).detach()
    return low, pipe.start(low, noise, STEPS[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"timesteps": (600, 999)}, "999 comes after 600"),
        ({"timesteps": ()}, "0 timesteps are not fewer than the teacher's 6, or none"),
        ({"reference": 3}, "3 timesteps are not fewer than the teacher's 3"),
    ],
)
def test_wrong_recipes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        spec_of(**changes)


def test_what_stablesr_trains_learns_and_nothing_else(pipe):
    student = few_steps.Student(pipe)
    learns = {name for name, p in student.named_parameters() if p.requires_grad}
    assert learns == set(
        few_steps.learned_parts(student.unet, student.structure_encoder)
    )
    assert all(".spade." in name for name in learns if name.startswith("unet."))
    assert any(name.startswith("structure_encoder.") for name in learns)
    count = {
        kind: sum(p.numel() for p in student.parameters() if p.requires_grad == kind)
        for kind in (True, False)
    }
    assert count[True] < 0.2 * count[False]


def test_an_untrained_student_goes_where_the_sampler_goes(pipe, made):
    """Each place of its chain has the latents and x̂₀ of the sampler that will run."""
    images = made.inputs[:3]
    low, start = latents_of(pipe, images)
    seen = []
    hook = pipe.unet.register_forward_pre_hook(
        lambda _unet, given: seen.append(given[0].clone())
    )
    seeds = [image_seed(5, index) for index in range(3)]
    translator = Translator("restoration", pipe)
    ends = translator.translate(images, [""] * 3, seeds, spec_of().few)
    hook.remove()
    assert torch.equal(seen[0], start)
    student = few_steps.Student(pipe).eval()
    noise = Noise(pipe.scheduler.config, pipe.device)
    timesteps, place = torch.tensor(STEPS), torch.tensor([0, 1, 2])
    found = few_steps.follow(student, noise, start, low, timesteps, place)
    for row, before in enumerate(seen):
        assert torch.allclose(found[row], before[row], atol=1e-3), row
    t = timesteps[place]
    with torch.no_grad():
        clean = noise.clean(student(found, t, low), found, t)
    assert torch.allclose(clean[2], ends[2], atol=1e-3)


def test_a_student_comes_nearer_to_its_teacher(pipe, made, tmp_path):
    recipe = dataclasses.replace(SHORT, steps=16, batch_size=8, lr=1e-4)
    spec = spec_of(optimisation=recipe, timesteps=(STEPS[0],))
    trained = few_steps.train(spec, pipe, lambda: made, tmp_path / "state.pt")
    low, start = latents_of(pipe, made.inputs)
    teacher = Translator("restoration", pipe)
    right = few_steps.restore(teacher, made.inputs, spec.many, 5)
    noise = Noise(pipe.scheduler.config, pipe.device)
    t = torch.full((len(low),), STEPS[0])

    def error(student):
        with torch.no_grad():
            clean = noise.clean(student(start, t, low), start, t)
        return float((clean - right).square().mean())

    fresh = few_steps.Student(pipe).eval()
    assert trained.history[0][1] < 3 * error(fresh)
    assert error(trained.module) < 0.9 * error(fresh)
    # Of the UNet nothing else has moved.
    moved = trained.module.unet.state_dict()
    for name, value in pipe.unet.state_dict().items():
        assert (".spade." in name) or torch.equal(value, moved[name]), name


def test_a_killed_training_goes_on_to_the_same_weights(
    pipe, made, tmp_path, monkeypatch
):
    whole = few_steps.train(spec_of(), pipe, lambda: made, tmp_path / "a.pt")
    real, calls = few_steps.follow, []

    def killed(*args):
        if calls:
            raise KeyboardInterrupt
        calls.append(args)
        return real(*args)

    monkeypatch.setattr(few_steps, "follow", killed)
    with pytest.raises(KeyboardInterrupt):
        few_steps.train(spec_of(), pipe, lambda: made, tmp_path / "b.pt")
    monkeypatch.setattr(few_steps, "follow", real)
    # What the teacher has restored is kept, too.
    monkeypatch.delattr(few_steps, "restore")
    resumed = few_steps.train(spec_of(), pipe, lambda: made, tmp_path / "b.pt")
    for one, other in zip(
        whole.module.parameters(), resumed.module.parameters(), strict=True
    ):
        assert torch.equal(one, other)


def test_the_step_ships_what_loads_again(root, base, tmp_path):
    command = [
        *(sys.executable, "-m", "clockwork_experiments.steps.train_mini"),
        *("--recipe", "clockwork_experiments.mini.recipes.few_steps"),
        *("--spec", json.dumps(dataclasses.asdict(spec_of()))),
        *("--reads", f"teacher={base}", "--threads", "1"),
        *("--state", str(tmp_path / "state.pt"), "--output", str(tmp_path / "made")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    card = (tmp_path / "made/README.md").read_text(encoding="utf-8")
    assert "PSNR to the teacher's 6 steps, dB (2 validation pairs, 3 steps)" in card
    assert str(tmp_path) not in card
    loaded = translators.load_translator("restoration", tmp_path / "made")
    teacher = translators.load_translator("restoration", base)
    assert loaded.fidelity == teacher.fidelity > 0
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
