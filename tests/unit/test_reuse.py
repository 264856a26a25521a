"""Feature reuse at any branch, against DeepCache's own package where there is one."""

import copy

import pytest
import torch
from bare import sample_latents
from diffusers import ControlNetModel, StableDiffusionPipeline

from clockwork_diffusion.adaptors import IdentityAdaptor
from clockwork_diffusion.branches import BranchPasses, BranchUNet
from clockwork_diffusion.clock import Clock
from clockwork_diffusion.encoding import Prompts, encode_prompts
from clockwork_diffusion.passes import Passes
from clockwork_diffusion.unet import SplitUNet
from clockwork_experiments.cost.architectures import build_unet
from clockwork_experiments.generate.text import (
    SamplerSpec,
    initial_noise,
)
from clockwork_experiments.models.loading import load_pipeline

BRANCHES = range(12)


@pytest.fixture(scope="module")
def mini(root) -> StableDiffusionPipeline:
    return load_pipeline(root / "resources" / "mini" / "stable-diffusion")


@pytest.fixture(scope="module")
def prompts(mini) -> Prompts:
    return encode_prompts(mini, ["a red ring on the sea", "a blue square"])


def draw(mini, prompts, passes, steps: int, clock: int) -> torch.Tensor:
    spec = SamplerSpec("dpmpp", steps, 3.0, clock=clock)
    noise = initial_noise([0, 1], (4, 16, 16))
    return sample_latents(passes, mini.scheduler.config, prompts, noise, spec)


@pytest.mark.parametrize("branch", BRANCHES)
@torch.no_grad()
def test_full_and_reused_passes_equal_the_unet(unet, inputs, branch):
    split = BranchUNet(unet, branch)
    expected = unet(*inputs).sample
    step = split.full(*inputs)
    assert torch.equal(step.eps, expected)
    assert torch.equal(split.reuse(*inputs, step.feature).eps, expected)
    assert not torch.equal(split.reuse(*inputs, step.feature + 1).eps, expected)


@pytest.mark.parametrize("branch", BRANCHES)
@torch.no_grad()
def test_only_layers_above_the_branch_run(unet, inputs, branch):
    """Skips 0 to k take the first convolution and k layers; k + 1 take them up."""
    ran = []
    split = BranchUNet(unet, branch)
    feature = split.full(*inputs).feature
    handles = [
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
        for name, module in unet.named_modules()
        if ".resnets." in name and name.count(".") == 3 or "samplers." in name
    ]
    split.reuse(*inputs, feature)
    for handle in handles:
        handle.remove()
    down = [n for n in ran if n.startswith("down") and n.count(".") == 3]
    up = [n for n in ran if n.startswith("up") and "resnets" in n]
    assert len(down) == branch
    assert len(up) == branch + 1
    assert not any(name.startswith("mid") for name in ran)


def test_branch_2_is_clockworks_identity_at_stage_1(mini, prompts):
    branch = BranchPasses(BranchUNet(mini.unet, 2))
    identity = Passes(SplitUNet(mini.unet), IdentityAdaptor())
    ours = draw(mini, prompts, branch, 6, 2)
    assert torch.equal(ours, draw(mini, prompts, identity, 6, 2))
    assert not torch.equal(ours, draw(mini, prompts, branch, 6, 1))


@pytest.mark.parametrize("branch", [0, 1, 2, 3, 5])
def test_runs_equal_deepcaches_own(mini, prompts, branch):
    package = pytest.importorskip("DeepCache")
    helper = package.DeepCacheSDHelper(pipe=mini)
    helper.set_params(cache_interval=3, cache_branch_id=branch)
    helper.enable()
    try:
        theirs = mini(
            prompt_embeds=prompts.text,
            negative_prompt_embeds=prompts.empty.expand(2, -1, -1),
            latents=initial_noise([0, 1], (4, 16, 16)),
            num_inference_steps=6,
            guidance_scale=3.0,
            output_type="latent",
        ).images
    finally:
        helper.disable()
        # It leaves its own wrappers of the class's functions as attributes.
        for module in mini.unet.modules():
            vars(module).pop("forward", None)
    passes = BranchPasses(BranchUNet(mini.unet, branch))
    assert torch.equal(draw(mini, prompts, passes, 6, 3), theirs)
    assert not torch.equal(draw(mini, prompts, passes, 6, 1), theirs)


@pytest.mark.parametrize("branch", [0, 3, 6])
@torch.no_grad()
def test_controlnet_residuals_arrive(unet, inputs, branch):
    torch.manual_seed(2)
    control = ControlNetModel.from_unet(
        unet, conditioning_embedding_out_channels=(8, 16)
    )
    for parameter in control.parameters():
        parameter.add_(0.05)
    skips, middle = control(
        *inputs, controlnet_cond=torch.rand(2, 3, 32, 32), return_dict=False
    )

    def residuals():
        return {
            "down_block_additional_residuals": skips,
            "mid_block_additional_residual": middle,
        }

    expected = unet(*inputs, **residuals()).sample
    split = BranchUNet(unet, branch)
    step = split.full(*inputs, **residuals())
    assert torch.equal(step.eps, expected)
    reused = split.reuse(*inputs, step.feature, **residuals())
    assert torch.equal(reused.eps, expected)


@torch.no_grad()
def test_odd_sizes_and_freeu(unet, inputs):
    _, t, c = inputs
    x = torch.randn(2, 4, 17, 20)
    freed = copy.deepcopy(unet)
    freed.enable_freeu(s1=0.9, s2=0.2, b1=1.5, b2=1.6)
    for branch in (1, 3, 7):
        split = BranchUNet(freed, branch)
        step = split.full(x, t, c)
        assert torch.equal(step.eps, freed(x, t, c).sample)
        assert torch.equal(split.reuse(x, t, c, step.feature).eps, step.eps)


@pytest.mark.parametrize("backbone", ["sd", "efficient"])
def test_backbones_of_the_paper_have_every_branch(backbone):
    unet = build_unet(backbone)
    x = torch.zeros(1, 4, 64, 64, device="meta")
    t = torch.zeros(1, device="meta")
    c = torch.zeros(1, 77, 768, device="meta")
    with torch.no_grad():
        for branch, shape in {0: (320, 64, 64), 2: (640, 64, 64)}.items():
            split = BranchUNet(unet, branch)
            feature = split.full(x, t, c).feature
            assert tuple(feature.shape[1:]) == shape
            assert split.reuse(x, t, c, feature).eps.shape == x.shape


def test_what_cannot_be_reused_is_refused(unet):
    with pytest.raises(ValueError, match="branch 12 is not one of 0 to 11"):
        BranchUNet(unet, 12)
    with pytest.raises(ValueError, match="a branch only reuses"):
        BranchPasses(BranchUNet(unet, 0)).check(Clock(every_step=True))
