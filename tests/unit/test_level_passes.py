"""A level for each step, on the mini teacher's UNet."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionInstructPix2PixPipeline

from clockwork_diffusion import adaptors
from clockwork_diffusion.clock import Clock
from clockwork_diffusion.depth_skip import depth_skip
from clockwork_diffusion.hook import sampling_with
from clockwork_diffusion.level_schedule import LevelPasses
from clockwork_diffusion.passes import Passes, WholePasses
from clockwork_diffusion.unet import SplitUNet
from clockwork_experiments.generate.translate import TranslationSpec, Translator
from clockwork_experiments.mini.translators import widen_input
from clockwork_experiments.models import loading
from clockwork_experiments.world.data import scene_images

MODEL = Path(__file__).parents[2] / "resources" / "mini" / "stable-diffusion"
STEPS = (999, 700, 320, 40)
EDIT = {"task": "edit", "steps": 4, "timesteps": STEPS, "guidance": 3.0}


@pytest.fixture(scope="module")
def translator() -> Translator:
    parts = loading.load_pipeline(MODEL).components
    parts["unet"] = widen_input(parts["unet"], 4).eval().requires_grad_(False)
    pipe = StableDiffusionInstructPix2PixPipeline(
        **parts, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    return Translator("edit", pipe)


@pytest.fixture(scope="module")
def run(translator):
    images = scene_images("test", 2)
    prompts = ["make the red star blue", "turn it into a cross"]

    def run(passes, **changed):
        spec = TranslationSpec(**{**EDIT, **changed})
        with sampling_with(translator.pipe, passes, Clock(spec.clock)):
            return translator.translate(images, prompts, [3, 4], spec)

    return run


@pytest.mark.parametrize("level", [1, 6, 9, 13])
def test_a_constant_schedule_is_depth_skip_at_that_level(translator, run, level):
    unet = translator.pipe.unet
    passes = LevelPasses(unet, (level,) * 4, STEPS)
    assert passes.unet.level == level
    assert torch.equal(run(passes), run(WholePasses(depth_skip(unet, level))))


def test_each_step_runs_its_own_level(translator, run):
    unet = translator.pipe.unet
    schedule = (13, 9, 11, 6)
    seen = []
    cuts = {
        t: depth_skip(unet, level) for t, level in zip(STEPS, schedule, strict=True)
    }

    class Watched(LevelPasses):
        def full(self, x, t, c, **kwargs):
            step = super().full(x, t, c, **kwargs)
            assert torch.equal(step.eps, cuts[int(t)](x, t, c)[0])
            seen.append(int(t))
            return step

    mixed = run(Watched(unet, schedule, STEPS))
    assert tuple(seen) == STEPS
    assert not torch.allclose(mixed, run(WholePasses(depth_skip(unet, 13))), atol=1e-3)
    assert not torch.equal(mixed, run(LevelPasses(unet, (13, 9, 6, 11), STEPS)))


@pytest.mark.parametrize("schedule", [(9, 6, 8, 7), (4, 4, 3, 10), (12, 12, 12, 1)])
def test_nothing_runs_below_the_deepest_level(translator, run, schedule):
    unet = translator.pipe.unet
    deepest = depth_skip(unet, max(schedule))
    kept = {id(module) for module in deepest.modules() if list(module.parameters())}
    ran, hooks = set(), []
    for module in unet.modules():
        if list(module.parameters(recurse=False)):
            hooks.append(
                module.register_forward_hook(lambda m, *_: ran.add(id(m)) or None)
            )
    try:
        run(LevelPasses(unet, schedule, STEPS))
    finally:
        for hook in hooks:
            hook.remove()
    assert ran
    assert ran <= kept


def test_all_depths_share_the_deepest_one(translator):
    passes = LevelPasses(translator.pipe.unet, (9, 6, 8, 7), STEPS)
    theirs = {id(parameter) for parameter in passes.unet.parameters()}
    for level in (6, 7, 8):
        cut = depth_skip(passes.unet, level)
        assert {id(parameter) for parameter in cut.parameters()} < theirs


def test_a_clock_is_composed_with_levels(translator, run):
    unet = translator.pipe.unet
    adaptor = adaptors.build_adaptor("identity", unet, "stage1", 1)
    clocked = run(LevelPasses(unet, (9, 9, 9, 9), STEPS, adaptor), clock=2)
    wanted = Passes(SplitUNet(depth_skip(unet, 9)), adaptor)
    assert torch.equal(clocked, run(wanted, clock=2))
    # Light steps run nothing that levels from 4 on differ in.
    other = run(LevelPasses(unet, (9, 4, 9, 13), STEPS, adaptor), clock=2)
    assert torch.equal(clocked, other)
    mixed = run(LevelPasses(unet, (9, 4, 6, 13), STEPS, adaptor), clock=2)
    assert not torch.allclose(clocked, mixed, atol=1e-4)


def test_what_makes_no_passes_is_refused(translator, run):
    unet = translator.pipe.unet
    identity = adaptors.build_adaptor("identity", unet, "stage1", 1)
    with pytest.raises(ValueError, match="there are no steps"):
        LevelPasses(unet, (), ())
    with pytest.raises(ValueError, match="3 levels are not 4 timesteps"):
        LevelPasses(unet, (9, 9, 9), STEPS)
    with pytest.raises(ValueError, match="a timestep comes twice"):
        LevelPasses(unet, (9, 8), (7, 7))
    with pytest.raises(ValueError, match="level 14 is not one of 1 to 13"):
        LevelPasses(unet, (9, 14, 9, 9), STEPS)
    with pytest.raises(ValueError, match="'stage1' needs the UNet's levels down to 4"):
        LevelPasses(unet, (9, 3, 9, 9), STEPS, identity)
    with pytest.raises(ValueError, match="clock 2 needs an adaptor"):
        run(LevelPasses(unet, (9, 8, 9, 9), STEPS), clock=2)
    with pytest.raises(ValueError, match="timestep 40 has no level"):
        run(LevelPasses(unet, (9, 8, 9, 9), (999, 700, 320, 41)))
