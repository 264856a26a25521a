"""Depth-skip against diffusers' own blocks, fed with zeros by hand."""

import copy

import pytest
import torch
from diffusers import (
    ControlNetModel,
    DDIMScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from clockwork_diffusion.adaptors import IdentityAdaptor
from clockwork_diffusion.branches import BranchUNet
from clockwork_diffusion.depth_skip import (
    DepthSkipUNet,
    apply_depth_skip,
    depth_skip,
    depth_skipped,
    describe_levels,
    levels_of,
    remove_depth_skip,
    shared_parameters,
)
from clockwork_diffusion.pipeline import apply_clockwork, clockwork, remove_clockwork
from clockwork_diffusion.stablesr.spade import SpadeUNet
from clockwork_diffusion.unet import SpadeInput, SplitUNet
from clockwork_experiments.cost.architectures import BACKBONES, SD_V15, build_unet
from clockwork_experiments.models import loading

LEVELS = 13
"""Levels of Stable Diffusion's UNet."""
CUT_LEVELS = range(1, LEVELS)


def reference(
    unet: UNet2DConditionModel, level: int, *inputs: torch.Tensor, **kwargs: object
) -> torch.Tensor:
    """Run a whole UNet by diffusers' code, with zeros fed in at the cut.

    All of its levels run; what they send up through the cut is lost.
    """
    layers = [resnet for block in unet.up_blocks for resnet in block.resnets]
    encoders = [unet.conv_in]
    for block in unet.down_blocks:
        encoders += [*block.resnets, *(block.downsamplers or ())]
    first = layers[len(layers) - level]
    skip = encoders[level - 1].out_channels

    def lose(_module: nn.Module, given: tuple) -> tuple:
        hidden, *rest = given
        below = hidden.shape[1] - skip
        return torch.cat([0 * hidden[:, :below], hidden[:, below:]], dim=1), *rest

    handles = [first.register_forward_pre_hook(lose)]
    structure = kwargs.pop("structure", None)
    if structure is not None:
        # diffusers' forward knows nothing of it.
        handles += [
            module.register_forward_pre_hook(
                lambda _m, given: (given[0], SpadeInput(given[1], structure))
            )
            for module in unet.modules()
            if isinstance(module, ResnetBlock2D)
        ]
    try:
        return UNet2DConditionModel.forward(unet, *inputs, **kwargs).sample
    finally:
        for handle in handles:
            handle.remove()


@pytest.fixture(scope="module")
def mini(root) -> UNet2DConditionModel:
    return loading.load_pipeline(root / "resources/mini/stable-diffusion").unet


@pytest.fixture(scope="module")
def wide(mini) -> UNet2DConditionModel:
    """Return the mini UNet with four further input channels, as of an editing model."""
    torch.manual_seed(5)
    new = UNet2DConditionModel.from_config(mini.config, in_channels=8).eval()
    weights = mini.state_dict()
    weights["conv_in.weight"] = torch.cat(
        [weights["conv_in.weight"], 0.1 * torch.randn(32, 4, 3, 3)], dim=1
    )
    new.load_state_dict(weights)
    return new.requires_grad_(False)


@pytest.fixture(scope="module")
def spade(mini) -> SpadeUNet:
    """Return the mini UNet with SPADE, of which something is to be seen."""
    torch.manual_seed(7)
    new = SpadeUNet.from_unet(mini, structure_channels=8, spade_channels=6).eval()
    for name, parameter in new.named_parameters():
        if ".gamma." in name or ".beta." in name:
            nn.init.normal_(parameter, std=0.05)
    return new.requires_grad_(False)


def structure_of(unet: SpadeUNet) -> dict[int, torch.Tensor]:
    generator = torch.Generator().manual_seed(9)
    channels = unet.config.structure_channels
    return {
        width: torch.randn(2, channels, width, width, generator=generator)
        for width in (16, 8, 4, 2)
    }


def given(unet: UNet2DConditionModel, size: tuple[int, int] = (16, 16)) -> tuple:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, unet.config.in_channels, *size, generator=generator)
    width = unet.config.cross_attention_dim
    return x, torch.tensor(500), torch.randn(2, 7, width, generator=generator)


def residuals_of(unet: UNet2DConditionModel, inputs: tuple) -> dict:
    """Return the residuals of a ControlNet with random weights."""
    torch.manual_seed(2)
    control = ControlNetModel.from_unet(
        unet, conditioning_embedding_out_channels=(8, 16)
    )
    # The residuals of an untrained ControlNet are zero and would test nothing.
    for parameter in control.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))
    height, width = inputs[0].shape[2:]
    hint = torch.rand(2, 3, 2 * height, 2 * width)
    skips, middle = control(*inputs, controlnet_cond=hint, return_dict=False)
    return {
        "down_block_additional_residuals": skips,
        "mid_block_additional_residual": middle,
    }


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def weights_size(folder) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


# --- outputs --------------------------------------------------------------------------


@pytest.mark.parametrize("level", CUT_LEVELS)
@torch.no_grad()
def test_a_level_equals_the_whole_unet_with_zeros_at_the_cut(mini, level):
    inputs = given(mini)
    expected = reference(mini, level, *inputs)
    output = depth_skip(mini, level)(*inputs).sample
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-6)
    assert (output - mini(*inputs).sample).abs().max() > 1e-3


@pytest.mark.parametrize("level", CUT_LEVELS)
@torch.no_grad()
def test_so_it_does_with_further_input_channels(wide, level):
    inputs = given(wide)
    expected = reference(wide, level, *inputs)
    output = depth_skip(wide, level)(*inputs).sample
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("level", CUT_LEVELS)
@torch.no_grad()
def test_so_it_does_with_controlnet(mini, level):
    inputs = given(mini)
    residuals = residuals_of(mini, inputs)
    expected = reference(mini, level, *inputs, **residuals)
    pruned = depth_skip(mini, level)
    output = pruned(*inputs, **residuals).sample
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-6)
    assert (output - pruned(*inputs).sample).abs().max() > 1e-3


@pytest.mark.parametrize("level", CUT_LEVELS)
@torch.no_grad()
def test_so_it_does_with_structure(spade, level):
    inputs, structure = given(spade), structure_of(spade)
    expected = reference(spade, level, *inputs, structure=structure)
    pruned = depth_skip(spade, level)
    assert type(pruned) is SpadeUNet
    output = pruned(*inputs, structure=structure).sample
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-6)
    if level >= 4:
        step = SplitUNet(pruned).full(*inputs, structure=structure)
        assert torch.equal(step.eps, output)


@torch.no_grad()
def test_the_last_level_with_structure_is_the_whole_unet(spade):
    inputs, structure = given(spade), structure_of(spade)
    hooks = [
        module.register_forward_pre_hook(
            lambda _m, given: (given[0], SpadeInput(given[1], structure))
        )
        for module in spade.modules()
        if isinstance(module, ResnetBlock2D)
    ]
    expected = UNet2DConditionModel.forward(spade, *inputs).sample
    for hook in hooks:
        hook.remove()
    output = depth_skip(spade, LEVELS)(*inputs, structure=structure).sample
    assert torch.equal(output, expected)
    other = {width: 2 * value for width, value in structure.items()}
    assert not torch.equal(spade(*inputs, structure=other).sample, expected)


@torch.no_grad()
def test_residuals_of_levels_that_are_gone_are_not_used(mini):
    inputs = given(mini)
    residuals = residuals_of(mini, inputs)
    broken = {
        "down_block_additional_residuals": (
            *residuals["down_block_additional_residuals"][:9],
            *[torch.full((1,), float("nan"))] * 3,
        ),
        "mid_block_additional_residual": torch.full((1,), float("nan")),
    }
    pruned = depth_skip(mini, 9)
    expected = pruned(*inputs, **residuals).sample
    assert torch.equal(pruned(*inputs, **broken).sample, expected)


@pytest.mark.parametrize("level", [2, 6, 9, 10])
@torch.no_grad()
def test_so_it_does_at_sizes_that_are_no_multiples(mini, level):
    inputs = given(mini, (17, 20))
    expected = reference(mini, level, *inputs)
    output = depth_skip(mini, level)(*inputs).sample
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-6)


@torch.no_grad()
def test_the_last_level_is_the_whole_unet_bit_for_bit(mini):
    inputs = given(mini)
    whole = depth_skip(mini, LEVELS)
    assert torch.equal(whole(*inputs).sample, mini(*inputs).sample)
    residuals = residuals_of(mini, inputs)
    expected = mini(*inputs, **residuals).sample
    assert torch.equal(whole(*inputs, **residuals).sample, expected)
    assert torch.equal(whole(*inputs, return_dict=False)[0], mini(*inputs).sample)


@torch.no_grad()
def test_masks_and_freeu_arrive(mini):
    inputs = given(mini)
    mask = {"encoder_attention_mask": torch.tensor([[1] * 3 + [0] * 4] * 2)}
    pruned = depth_skip(copy.deepcopy(mini), 9)
    plain = pruned(*inputs).sample
    masked = pruned(*inputs, **mask).sample
    assert not torch.equal(plain, masked)
    expected = reference(mini, 9, *inputs, **mask)
    torch.testing.assert_close(masked, expected, rtol=0, atol=1e-6)
    pruned.enable_freeu(s1=0.9, s2=0.2, b1=1.5, b2=1.6)
    freed = copy.deepcopy(mini)
    freed.enable_freeu(s1=0.9, s2=0.2, b1=1.5, b2=1.6)
    expected = reference(freed, 9, *inputs)
    assert not torch.equal(plain, expected)
    torch.testing.assert_close(pruned(*inputs).sample, expected, rtol=0, atol=1e-6)
    pruned.disable_freeu()
    assert torch.equal(pruned(*inputs).sample, plain)


def test_gradients_reach_all_that_is_left(unet, inputs):
    pruned = depth_skip(copy.deepcopy(unet), 9)
    pruned(*inputs).sample.square().sum().backward()
    without = [n for n, p in pruned.named_parameters() if p.grad is None]
    assert not without


# --- what is left ---------------------------------------------------------------------


@pytest.mark.parametrize("level", range(1, LEVELS + 1))
def test_what_is_left_out_is_gone(mini, level):
    pruned = depth_skip(mini, level)
    levels = describe_levels(mini)
    kept = sum(entry.parameters for entry in levels[:level])
    assert count(pruned) == kept + sum(shared_parameters(mini).values())
    gone = [name for e in levels[level:] for name in e.encoder + e.decoder]
    whole, left = mini.state_dict(), pruned.state_dict()
    expected = [
        name for name in whole if not any(name.startswith(f"{g}.") for g in gone)
    ]
    assert sorted(left) == sorted(expected)
    assert all(left[name].data_ptr() == whole[name].data_ptr() for name in left)


def test_the_levels_hold_all_parameters_but_the_shared_ones(mini):
    shared = shared_parameters(mini)
    assert shared["time"] == count(mini.time_embedding)
    levels = sum(entry.parameters for entry in describe_levels(mini))
    assert levels + shared["time"] + shared["output"] == count(mini)


@torch.no_grad()
def test_the_unet_that_was_given_stays_as_it_is(mini):
    inputs = given(mini)
    before, names = mini(*inputs).sample, list(mini.state_dict())
    pruned = [depth_skip(mini, level) for level in range(1, LEVELS + 1)]
    assert pruned[0].level == 1
    assert type(mini) is UNet2DConditionModel and "level" not in mini.config
    assert list(mini.state_dict()) == names
    assert torch.equal(mini(*inputs).sample, before)


@torch.no_grad()
def test_a_level_of_a_level(mini):
    inputs = given(mini)
    twice = depth_skip(depth_skip(mini, 11), 5)
    assert twice.level == 5
    assert torch.equal(twice(*inputs).sample, depth_skip(mini, 5)(*inputs).sample)
    assert describe_levels(twice) == describe_levels(mini)[:5]


@pytest.mark.parametrize("level", [1, 4, 9, 12, LEVELS])
@torch.no_grad()
def test_a_folder_keeps_the_level_and_the_outputs(mini, tmp_path, level):
    pruned = depth_skip(mini, level)
    pruned.save_pretrained(tmp_path)
    loaded = DepthSkipUNet.from_pretrained(tmp_path).eval()
    assert loaded.level == loaded.config.level == level
    assert list(loaded.state_dict()) == list(pruned.state_dict())
    inputs = given(mini)
    assert torch.equal(loaded(*inputs).sample, pruned(*inputs).sample)


def test_a_file_shrinks_as_the_share_of_parameters_says(mini, tmp_path):
    mini.save_pretrained(tmp_path / "whole")
    depth_skip(mini, 9).save_pretrained(tmp_path / "d9")
    whole, cut = (weights_size(tmp_path / name) for name in ("whole", "d9"))
    assert cut <= 0.61 * whole + 1e6
    assert cut == pytest.approx(
        whole * count(depth_skip(mini, 9)) / count(mini), rel=0.01
    )


@torch.no_grad()
def test_a_whole_unets_folder_loads_at_a_level(mini, tmp_path):
    mini.save_pretrained(tmp_path)
    loaded = DepthSkipUNet.from_pretrained(tmp_path, level=6).eval()
    inputs = given(mini)
    expected = depth_skip(mini, 6)(*inputs).sample
    assert torch.equal(loaded(*inputs).sample, expected)


def test_a_subclass_is_kept(mini):
    class Own(DepthSkipUNet):
        def __init__(self, *, own: int = 1, **kwargs) -> None:
            super().__init__(**kwargs)
            self.register_to_config(own=own)

    made = Own.from_config(mini.config, own=2, level=12)
    cut = depth_skip(made, 8)
    assert type(cut) is Own
    assert (cut.config.own, cut.level, made.level) == (2, 8, 12)


def test_the_modules_of_sds_levels():
    levels = describe_levels(build_unet("sd"))
    assert levels[0].encoder == ("conv_in",)
    assert levels[3].encoder == ("down_blocks.0.downsamplers.0",)
    assert levels[3].decoder == tuple(
        f"up_blocks.2.{name}" for name in ("resnets.2", "attentions.2", "upsamplers.0")
    )
    assert levels[8].encoder == (
        "down_blocks.2.resnets.1",
        "down_blocks.2.attentions.1",
    )
    assert levels[11].decoder == ("up_blocks.0.resnets.0",)
    assert levels[12].decoder == ("mid_block",)
    zeros = [entry.zero_channels for entry in levels]
    assert zeros == [320] * 2 + [640] * 3 + [1280] * 7 + [0]
    skips = [entry.skip_channels for entry in levels]
    assert skips == [320] * 4 + [640] * 3 + [1280] * 5 + [0]
    sizes = [entry.resolution for entry in levels]
    assert sizes == [64] * 3 + [32] * 3 + [16] * 3 + [8] * 4


# --- with a clock ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cut", "level"), [("stage1", 4), ("stage1", 9), ("stage2", 7), ("stage2", 9)]
)
@torch.no_grad()
def test_it_can_be_split(mini, cut, level):
    inputs = given(mini)
    pruned = depth_skip(mini, level)
    split = SplitUNet(pruned, cut)
    residuals = residuals_of(mini, inputs)
    for further in ({}, residuals):
        expected = pruned(*inputs, **further).sample
        step = split.full(*inputs, **further)
        assert torch.equal(step.eps, expected)
        identity = IdentityAdaptor(cut=cut)
        light = split.adapt(*inputs, step.r_out, identity, **further)
        assert torch.equal(light.eps, expected)
        reused = split.reuse(*inputs, step.up, step.r_out, **further)
        assert torch.equal(reused.eps, expected)


@torch.no_grad()
def test_a_split_level_compiles_as_one_graph(unet, inputs):
    torch._dynamo.reset()
    split = SplitUNet(depth_skip(unet, 9))
    full = torch.compile(split.full, fullgraph=True, backend="eager")
    torch.testing.assert_close(full(*inputs).eps, split.full(*inputs).eps)


@torch.no_grad()
def test_structure_takes_the_place_of_the_time_embedding(mini):
    pruned = depth_skip(copy.deepcopy(mini), 9)
    seen = []

    class Spade(nn.Module):
        def __init__(self, inner: ResnetBlock2D) -> None:
            super().__init__()
            self.inner, self.in_channels = inner, inner.in_channels

        def forward(self, hidden, temb):
            seen.append(temb)
            return self.inner(hidden, temb.t_emb)

    for block in (*pruned.down_blocks, *pruned.up_blocks[1:]):
        for name, layer in block.resnets.named_children():
            setattr(block.resnets, name, Spade(layer))
    inputs, structure = given(mini), {16: torch.zeros(2, 8, 16, 16)}
    expected = depth_skip(mini, 9)(*inputs).sample
    assert torch.equal(pruned(*inputs, structure=structure).sample, expected)
    assert len(seen) == 6 + 9
    assert all(type(entry) is SpadeInput for entry in seen)
    assert all(entry.structure is structure for entry in seen)
    step = SplitUNet(pruned).full(*inputs, structure=structure)
    assert torch.equal(step.eps, expected)


# --- what is refused ------------------------------------------------------------------


@pytest.mark.parametrize("level", [0, 14, -1, 9.0, True, "9"])
def test_levels_that_there_are_not(unet, level):
    with pytest.raises(ValueError, match=r"level .* is not one of 1 to 13"):
        depth_skip(unet, level)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_number_of_levels_follows_from_the_unet(backbone):
    unet = build_unet(backbone)
    if unet.mid_block is None:
        with pytest.raises(ValueError, match="needs a UNet with a middle block"):
            depth_skip(unet, 5)
        return
    levels = 4 * (3 - BACKBONES[backbone].fewer_layers) + 1
    assert levels_of(unet) == levels
    shallow = depth_skip(unet, levels - 4)
    assert levels_of(shallow) == levels
    assert count(shallow) < count(unet)
    with pytest.raises(ValueError, match=f"level 14 is not one of 1 to {levels}"):
        depth_skip(unet, 14)


def test_unets_of_another_topology(unet):
    headless = UNet2DConditionModel.from_config(unet.config, mid_block_type=None)
    with pytest.raises(ValueError, match="needs a UNet with a middle block"):
        depth_skip(headless, 9)
    with pytest.raises(ValueError, match="Linear is not a UNet"):
        depth_skip(nn.Linear(2, 2), 9)


def test_levels_that_are_gone(unet):
    with pytest.raises(ValueError, match="level 10 is gone: .* to level 9"):
        depth_skip(depth_skip(unet, 9), 10)


@pytest.mark.parametrize(("cut", "level"), [("stage1", 3), ("stage2", 6)])
def test_cuts_that_are_gone(unet, cut, level):
    needed = {"stage1": 4, "stage2": 7}[cut]
    message = f"{cut!r} needs the UNet's levels down to {needed}, .* to level {level}"
    with pytest.raises(ValueError, match=message):
        SplitUNet(depth_skip(unet, level), cut)


def test_branches_of_what_is_left(unet):
    with pytest.raises(ValueError, match="depth-skip has kept this one to level 9"):
        BranchUNet(depth_skip(unet, 9), 2)


@torch.no_grad()
def test_residuals_of_another_controlnet(unet, mini):
    inputs = given(mini)
    residuals = residuals_of(mini, inputs)
    skips = residuals["down_block_additional_residuals"]
    few = {**residuals, "down_block_additional_residuals": skips[:6]}
    with pytest.raises(ValueError, match="6 residuals, and the UNet has 9 skip"):
        depth_skip(mini, 9)(*inputs, **few)
    other = depth_skip(unet, 9)
    with pytest.raises(ValueError, match=r"residual 1 is \(32, 16, 16\), and the skip"):
        other(*given(unet), **residuals)


# --- the door for pipelines -----------------------------------------------------------


@pytest.fixture
def pipe(root):
    pipe = loading.load_pipeline(root / "resources/mini/stable-diffusion")
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    return pipe


def draw(pipe, **kwargs) -> torch.Tensor:
    return pipe(
        "a red ring",
        num_inference_steps=4,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
        **kwargs,
    ).images


def by_hand(pipe, level: int, **kwargs) -> torch.Tensor:
    """Draw with a whole UNet, and zeros at the cut."""
    unet = pipe.unet
    whole = copy.deepcopy(unet)
    unet.forward = lambda *inputs, return_dict=True, **rest: (
        reference(whole, level, *inputs, **rest),
    )
    try:
        return draw(pipe, **kwargs)
    finally:
        del unet.forward


def test_a_pipeline_draws_at_a_level_and_gets_its_unet_back(pipe):
    unet, plain = pipe.unet, draw(pipe)
    expected = by_hand(pipe, 9)
    apply_depth_skip(pipe, 9)
    torch.testing.assert_close(draw(pipe), expected, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="applied to this UNet already"):
        apply_depth_skip(pipe, 8)
    remove_depth_skip(pipe)
    assert pipe.unet is unet
    assert torch.equal(draw(pipe), plain)
    with depth_skipped(pipe, LEVELS):
        assert torch.equal(draw(pipe), plain)
    with pytest.raises(RuntimeError), depth_skipped(pipe, 9):
        raise RuntimeError
    assert pipe.unet is unet
    remove_depth_skip(pipe)
    assert pipe.unet is unet


def test_a_pipeline_of_the_refused_stays_as_it_is(pipe):
    unet = pipe.unet
    with pytest.raises(ValueError, match="level 14"):
        apply_depth_skip(pipe, 14)
    assert pipe.unet is unet
    apply_depth_skip(pipe, 9)


def test_a_clock_runs_on_what_is_left(pipe):
    cut = depth_skip(pipe.unet, 9)
    with depth_skipped(pipe, 9):
        plain = draw(pipe)
        calls = []
        handle = (
            pipe.unet.up_blocks[1]
            .resnets[0]
            .register_forward_hook(lambda *_: calls.append(1))
        )
        with clockwork(pipe, clock=1):
            assert torch.equal(draw(pipe), plain)
        calls.clear()
        with clockwork(pipe, clock=2):
            clocked = draw(pipe)
        handle.remove()
        assert len(calls) == 2, "two of four steps are full"
        assert not torch.equal(clocked, plain)
        torch.testing.assert_close(
            clocked, clocked_by_hand(pipe, cut), rtol=0, atol=1e-5
        )
        with pytest.raises(ValueError, match="as by Clockwork; remove that first"):
            depth_skip(pipe.unet, 9)


def test_a_clock_and_a_depth_come_and_go_in_any_order(pipe):
    keys = set(vars(pipe.unet))
    with clockwork(pipe, clock=2):
        clocked = draw(pipe)
    with depth_skipped(pipe, 9):
        cut = draw(pipe)
        with clockwork(pipe, clock=2):
            both = draw(pipe)
        assert torch.equal(draw(pipe), cut)
    apply_clockwork(pipe, clock=2)
    apply_depth_skip(pipe, 9)
    assert torch.equal(draw(pipe), both)
    remove_depth_skip(pipe)
    assert torch.equal(draw(pipe), clocked)
    apply_depth_skip(pipe, 9)
    remove_clockwork(pipe)
    assert torch.equal(draw(pipe), cut)
    remove_depth_skip(pipe)
    assert set(vars(pipe.unet)) == keys


@torch.no_grad()
def clocked_by_hand(pipe, unet: UNet2DConditionModel) -> torch.Tensor:
    """Draw with features kept by hooks on a layer, instead of a split."""
    unet = copy.deepcopy(unet)
    calls, kept = [], []
    place = unet.up_blocks[2].upsamplers[0]

    def keep(_module: nn.Module, _given: tuple, output: torch.Tensor):
        full = len(calls) % 2 == 0
        calls.append(1)
        if full:
            kept[:] = [output]
            return None
        return kept[0]

    handle = place.register_forward_hook(keep)
    whole, pipe.unet = pipe.unet, unet
    try:
        return draw(pipe)
    finally:
        handle.remove()
        pipe.unet = whole


def test_a_controlnet_pipeline_draws_at_a_level(pipe):
    torch.manual_seed(6)
    control = ControlNetModel.from_unet(
        pipe.unet, conditioning_embedding_out_channels=(8, 16)
    ).eval()
    with torch.no_grad():
        for parameter in control.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    scale = pipe.vae_scale_factor
    size = pipe.unet.config.sample_size * scale
    guided = StableDiffusionControlNetPipeline(
        **{**pipe.components, "controlnet": control}, requires_safety_checker=False
    )
    guided.set_progress_bar_config(disable=True)
    hint = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    # The hint net of this ControlNet halves once, whatever the autoencoder does.
    hint = hint[..., : 2 * size // scale, : 2 * size // scale]
    arguments = {"image": hint, "height": size, "width": size}
    control.controlnet_cond_embedding.register_forward_pre_hook(
        lambda _m, inputs: (inputs[0][..., :: scale // 2, :: scale // 2],)
    )
    expected = by_hand(guided, 9, **arguments)
    with depth_skipped(guided, 9):
        output = draw(guided, **arguments)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-5)
    assert not torch.allclose(output, draw(guided, **arguments), atol=1e-3)


# --- Table S7 -------------------------------------------------------------------------

TABLE_S7 = """
D01 0.69 0.70
D02 1.25 1.95
D03 1.37 3.32
D04 2.85 6.17
D05 4.39 10.56
D06 5.06 15.62
D07 10.98 26.60
D08 16.71 43.31
D09 17.47 60.78
D10 9.17 69.95
D11 9.37 79.32
D12 9.37 88.68
D13 11.32 100.0
"""


def test_table_s7_has_the_printed_shares():
    unet = build_unet("sd", {**SD_V15, "in_channels": 8})
    levels, shared = describe_levels(unet), shared_parameters(unet)
    whole = sum(entry.parameters for entry in levels)
    assert round(whole / 1e6, 2) == 857.47
    # The output layers count in the cumulative column alone.
    kept = shared["output"]
    for entry, line in zip(levels, TABLE_S7.split("\n")[1:-1], strict=True):
        name, share, cumulative = line.split()
        kept += entry.parameters
        assert name == f"D{entry.level:02}"
        assert f"{100 * entry.parameters / whole:.2f}" == share
        assert float(f"{100 * kept / whole:.2f}") == float(cumulative)
    deep = sum(entry.parameters for entry in levels[7:])
    assert f"{100 * deep / whole:.1f}" == "73.4"


def test_a_saved_pipeline_loads_again_and_keeps_its_level(root, tmp_path):
    pipe = loading.load_pipeline(root / "resources/mini/stable-diffusion")
    pipe.unet = depth_skip(pipe.unet, 9)
    pipe.save_pretrained(tmp_path)
    loaded = StableDiffusionPipeline.from_pretrained(tmp_path, local_files_only=True)
    assert isinstance(loaded.unet, DepthSkipUNet)
    assert loaded.unet.config.level == 9
    assert loaded.unet.mid_block is None
    x, c = torch.randn(1, 4, 16, 16), torch.randn(1, 32, 64)
    with torch.no_grad():
        expected = pipe.unet(x, torch.tensor(500), c).sample
        assert torch.equal(loaded.unet(x, torch.tensor(500), c).sample, expected)
