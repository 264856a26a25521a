"""Distilled backbones: where they start, what they learn, what is refused."""

from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel

from clockwork_experiments.cost.architectures import unet_config
from clockwork_experiments.train.backbones import (
    BackboneSpec,
    Data,
    Noise,
    Stage,
    implied_clean,
    make_backbone,
    start_student,
    two_steps,
)
from clockwork_experiments.train.training import Optimisation

SMALL = {
    "sample_size": 8,
    "block_out_channels": (8, 16, 16, 16),
    "layers_per_block": 1,
    "cross_attention_dim": 8,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}
SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}
RECIPE = Optimisation(steps=3, batch_size=4, lr=1e-3, optimizer="adamw", ema=0.5)


def scheduler(kind: str) -> dict[str, object]:
    return dict(DDIMScheduler(**SCHEDULER, prediction_type=kind).config)


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(0)
    config = unet_config("sd", SMALL)
    return UNet2DConditionModel.from_config(config).eval().requires_grad_(False)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 4, 8, 8, generator=generator)
    text = torch.randn(3, 5, 8, generator=generator)
    return x, torch.tensor([999, 500, 120]), text, torch.zeros(1, 5, 8)


def data() -> Data:
    generator = torch.Generator().manual_seed(2)
    text = torch.randn(6, 5, 8, generator=generator)
    latents = torch.randn(6, 4, 8, 8, generator=generator)
    return Data(latents, lambda rows: text[rows], torch.zeros(1, 5, 8))


def test_the_efficient_student_is_the_teacher_without_attention_at_the_top(teacher):
    student = start_student(teacher, "efficient")
    assert not hasattr(student.down_blocks[0], "attentions")
    assert not hasattr(student.up_blocks[-1], "attentions")
    assert len(student.down_blocks[1].attentions) == 1
    weights = teacher.state_dict()
    for name, value in student.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_a_teacher_that_lacks_layers_is_refused(teacher):
    efficient = start_student(teacher, "efficient")
    with pytest.raises(ValueError, match=r"no down_blocks\.0\.attentions\.0"):
        start_student(efficient, "sd")


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_a_ddim_step_is_that_of_diffusers(teacher, batch, kind):
    x, _, text, empty = batch
    noise = Noise(scheduler(kind), torch.device("cpu"))
    ddim = DDIMScheduler.from_config(
        scheduler(kind), clip_sample=False, set_alpha_to_one=False
    )
    ddim.set_timesteps(10)
    t, to = int(ddim.timesteps[2]), int(ddim.timesteps[3])
    times = torch.full((3,), t)
    with torch.no_grad():
        predicted = teacher(x, times, text).sample
        clean = implied_clean(teacher, noise, x, times, text, empty)
    ours = noise.step(clean, x, times, torch.full((3,), to))
    theirs = ddim.step(predicted, t, x).prev_sample
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@torch.no_grad()
def test_one_step_to_the_target_ends_where_two_steps_do(teacher, batch, kind):
    x, t, text, empty = batch
    noise = Noise(scheduler(kind), torch.device("cpu"))
    to = torch.tensor([874, 374, -1])
    target = two_steps(teacher, noise, x, t, to, text, empty, 3.0)
    middle = (t + to) // 2
    first = implied_clean(teacher, noise, x, t, text, empty, 3.0)
    halfway = noise.step(first, x, t, middle)
    second = implied_clean(teacher, noise, halfway, middle, text, empty, 3.0)
    end = noise.step(second, halfway, middle, to)
    torch.testing.assert_close(noise.step(target, x, t, to), end, rtol=1e-3, atol=1e-3)
    # Without noise at the end, the target is the second estimate itself.
    torch.testing.assert_close(target[2], second[2], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_guidance_is_that_of_the_prediction(teacher, batch):
    x, t, text, empty = batch
    noise = Noise(scheduler("v_prediction"), torch.device("cpu"))
    none = teacher(x, t, empty.expand_as(text)).sample
    some = teacher(x, t, text).sample
    expected = noise.clean(none + 3 * (some - none), x, t)
    guided = implied_clean(teacher, noise, x, t, text, empty, 3.0)
    torch.testing.assert_close(guided, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_a_perfect_student_has_no_loss(teacher, tmp_path, kind):
    """The same UNet, no guidance, one call for one: nothing is left to learn."""
    spec = BackboneSpec("sd", 0.1, (Stage(replace(RECIPE, steps=1)),))
    trained = make_backbone(spec, teacher, scheduler(kind), data(), tmp_path / "s.pt")
    assert trained.history[0][1] < 1e-8


def test_training_lowers_the_loss_and_repeats_itself(teacher, tmp_path):
    stages = (
        Stage(replace(RECIPE, steps=40, lr=3e-3), guidance=3.0),
        Stage(replace(RECIPE, steps=3), steps=4),
    )
    spec = BackboneSpec("efficient", 0.0, stages)
    config = scheduler("v_prediction")
    one = make_backbone(spec, teacher, config, data(), tmp_path / "one.pt")
    losses = [loss for _, loss in one.history[:40]]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    other = make_backbone(spec, teacher, config, data(), tmp_path / "other.pt")
    for a, b in zip(one.module.parameters(), other.module.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"guidance": 0.5}, "guidance 0.5 is less than 1"),
        ({"steps": -1}, "step count -1 is less than 0"),
        ({"blind_share": 1.5}, "blind_share 1.5 is not within 0 and 1"),
    ],
)
def test_bad_stages_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Stage(RECIPE, **values)


def test_other_prediction_types_are_refused():
    with pytest.raises(ValueError, match="'sample' is not epsilon or v_prediction"):
        Noise(scheduler("sample"), torch.device("cpu"))


def test_frozen_parts_stay_the_teachers(teacher, tmp_path):
    kept = ("mid_block", "up_blocks.0")
    spec = BackboneSpec("efficient", 0.1, (Stage(RECIPE),), kept)
    made = make_backbone(spec, teacher, scheduler("epsilon"), data(), tmp_path / "s.pt")
    before = teacher.state_dict()
    same = {
        name: torch.equal(value.half(), before[name].half())
        for name, value in made.module.state_dict().items()
    }
    assert all(same[name] for name in same if name.startswith(kept))
    assert not any(same[name] for name in same if name.startswith("up_blocks.3.resnet"))
    wrong = replace(spec, frozen=("up_blocks.9",))
    with pytest.raises(ValueError, match="the UNet has no module 'up_blocks.9'"):
        make_backbone(wrong, teacher, scheduler("epsilon"), data(), tmp_path / "t.pt")
