"""UNets beside SD 1.x: SDXL's three blocks, GLIGEN, and those that are refused."""

import pytest
import torch
from diffusers import (
    ControlNetModel,
    UNet2DConditionModel,
    UNet2DModel,
    UNetMotionModel,
    UNetSpatioTemporalConditionModel,
)
from torch import nn

from clockwork_diffusion.adaptors import build_adaptor
from clockwork_diffusion.branches import BranchUNet
from clockwork_diffusion.depth_skip import DepthSkipUNet, depth_skip, describe_levels
from clockwork_diffusion.unet import SplitUNet

SDXL_LEVELS = 10
TINY = {"sample_size": 16, "attention_head_dim": 2, "norm_num_groups": 4}


@pytest.fixture(scope="module")
def sdxl() -> UNet2DConditionModel:
    """Return a UNet of SDXL's topology, random and small."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        **{**TINY, "attention_head_dim": (1, 2, 4)},
        block_out_channels=(8, 16, 32),
        down_block_types=(
            "DownBlock2D",
            "CrossAttnDownBlock2D",
            "CrossAttnDownBlock2D",
        ),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        use_linear_projection=True,
        cross_attention_dim=24,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + 8,
    ).eval()


@pytest.fixture(scope="module")
def given() -> dict:
    generator = torch.Generator().manual_seed(1)
    return {
        "sample": torch.randn(2, 4, 16, 12, generator=generator),
        "timestep": torch.tensor(500),
        "encoder_hidden_states": torch.randn(2, 5, 24, generator=generator),
        "added_cond_kwargs": {
            "text_embeds": torch.randn(2, 8, generator=generator),
            "time_ids": torch.tensor([[128, 96, 0, 0, 128, 96]]).float().expand(2, 6),
        },
    }


def split_call(given: dict, **more: object) -> tuple[tuple, dict]:
    """Return the arguments of a split UNet's pass."""
    names = ("sample", "timestep", "encoder_hidden_states")
    rest = {name: value for name, value in given.items() if name not in names}
    return tuple(given[name] for name in names), {**rest, **more}


@pytest.mark.parametrize("cut", ["stage1", "stage2"])
@torch.no_grad()
def test_sdxl_is_split_bit_for_bit(sdxl, given, cut):
    split = SplitUNet(sdxl, cut)
    inputs, more = split_call(given)
    step = split.full(*inputs, **more)
    assert torch.equal(step.eps, sdxl(**given).sample)
    light = split.reuse(*inputs, step.up, step.r_out, **more)
    assert torch.equal(light.eps, step.eps)
    adaptor = build_adaptor("resnet", sdxl, cut, 8)
    learned = split.adapt(*inputs, step.r_out, adaptor, torch.zeros(2, 8), **more)
    torch.testing.assert_close(learned.eps, step.eps, rtol=0, atol=1e-5)


@pytest.mark.parametrize("branch", range(9))
@torch.no_grad()
def test_sdxl_has_nine_branches(sdxl, given, branch):
    inputs, more = split_call(given)
    cut = BranchUNet(sdxl, branch)
    step = cut.full(*inputs, **more)
    assert torch.equal(step.eps, sdxl(**given).sample)
    assert torch.equal(cut.reuse(*inputs, step.feature, **more).eps, step.eps)
    with pytest.raises(ValueError, match="branch 9 is not one of 0 to 8"):
        BranchUNet(sdxl, 9)


@pytest.mark.parametrize("level", range(1, SDXL_LEVELS + 1))
@torch.no_grad()
def test_sdxl_at_a_level_equals_the_whole_with_zeros_at_the_cut(
    sdxl, given, tmp_path, level
):
    pruned = depth_skip(sdxl, level)
    output = pruned(**given).sample
    if level == SDXL_LEVELS:
        assert torch.equal(output, sdxl(**given).sample)
    else:
        with zeros_from_below(sdxl, level):
            expected = sdxl(**given).sample
        torch.testing.assert_close(output, expected, rtol=0, atol=1e-6)
        assert (output - sdxl(**given).sample).abs().max() > 1e-3
    pruned.save_pretrained(tmp_path)
    loaded = DepthSkipUNet.from_pretrained(tmp_path).eval()
    assert loaded.level == level
    assert torch.equal(loaded(**given).sample, output)


class zeros_from_below:
    """Lose what the layers below a level send up; all of them still run."""

    def __init__(self, unet: UNet2DConditionModel, level: int) -> None:
        layers = [resnet for block in unet.up_blocks for resnet in block.resnets]
        encoders = [unet.conv_in]
        for block in unet.down_blocks:
            encoders += [*block.resnets, *(block.downsamplers or ())]
        self.layer = layers[len(layers) - level]
        self.skip = encoders[level - 1].out_channels

    def lose(self, _module: nn.Module, given: tuple) -> tuple:
        hidden, *rest = given
        below = hidden.shape[1] - self.skip
        return torch.cat([0 * hidden[:, :below], hidden[:, below:]], dim=1), *rest

    def __enter__(self) -> None:
        self.handle = self.layer.register_forward_pre_hook(self.lose)

    def __exit__(self, *_: object) -> None:
        self.handle.remove()


@torch.no_grad()
def test_sdxls_levels_hold_all_parameters_but_the_shared_ones(sdxl):
    levels = describe_levels(sdxl)
    assert [level.resolution for level in levels] == [16] * 3 + [8] * 3 + [4] * 4
    shared = sum(
        parameter.numel()
        for part in (
            sdxl.time_embedding,
            sdxl.add_embedding,
            sdxl.conv_norm_out,
            sdxl.conv_out,
        )
        for parameter in part.parameters()
    )
    whole = sum(parameter.numel() for parameter in sdxl.parameters())
    assert sum(level.parameters for level in levels) + shared == whole


@torch.no_grad()
def test_sdxl_takes_a_controlnets_residuals(sdxl, given):
    torch.manual_seed(2)
    control = ControlNetModel.from_unet(
        sdxl, conditioning_embedding_out_channels=(8, 16)
    )
    for parameter in control.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))
    skips, middle = control(
        **given, controlnet_cond=torch.rand(2, 3, 32, 24), return_dict=False
    )
    residuals = {
        "down_block_additional_residuals": skips,
        "mid_block_additional_residual": middle,
    }
    expected = sdxl(**given, **residuals).sample
    inputs, more = split_call(given, **residuals)
    assert torch.equal(SplitUNet(sdxl).full(*inputs, **more).eps, expected)
    pruned = depth_skip(sdxl, SDXL_LEVELS)
    assert torch.equal(pruned(**given, **residuals).sample, expected)


@torch.no_grad()
def test_gligens_boxes_arrive():
    torch.manual_seed(3)
    unet = UNet2DConditionModel(
        **TINY,
        block_out_channels=(8, 16, 16),
        down_block_types=("CrossAttnDownBlock2D",) * 2 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=8,
        attention_type="gated",
    ).eval()
    for name, parameter in unet.named_parameters():
        if "alpha" in name:
            parameter.fill_(0.5)  # as zero, a gate is closed
    boxes = {
        "boxes": torch.rand(1, 30, 4),
        "positive_embeddings": torch.randn(1, 30, 8),
        "masks": torch.ones(1, 30),
    }
    inputs = (torch.randn(1, 4, 16, 16), torch.tensor(10), torch.randn(1, 5, 8))
    more = {"cross_attention_kwargs": {"gligen": boxes}}
    expected = unet(*inputs, **more).sample
    assert not torch.equal(unet(*inputs).sample, expected)
    assert torch.equal(SplitUNet(unet).full(*inputs, **more).eps, expected)
    assert more["cross_attention_kwargs"]["gligen"] is boxes


def motion() -> nn.Module:
    return UNetMotionModel(
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        up_block_types=("UpBlockMotion", "CrossAttnUpBlockMotion"),
        norm_num_groups=4,
        cross_attention_dim=8,
        num_attention_heads=2,
        motion_num_attention_heads=2,
    )


def video() -> nn.Module:
    return UNetSpatioTemporalConditionModel(
        block_out_channels=(32, 64),
        down_block_types=(
            "CrossAttnDownBlockSpatioTemporal",
            "DownBlockSpatioTemporal",
        ),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        cross_attention_dim=8,
        num_attention_heads=2,
        projection_class_embeddings_input_dim=24,
        addition_time_embed_dim=8,
    )


def unconditional() -> nn.Module:
    return UNet2DModel(
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
    )


def kandinsky() -> nn.Module:
    return UNet2DConditionModel(
        **TINY,
        block_out_channels=(8, 16),
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        encoder_hid_dim=8,
        encoder_hid_dim_type="image_proj",
        addition_embed_type="image",
        cross_attention_dim=8,
        resnet_time_scale_shift="scale_shift",
        class_embed_type=None,
    )


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (motion, "UNetMotionModel is not a UNet"),
        (video, "UNetSpatioTemporalConditionModel is not a UNet"),
        (unconditional, "UNet2DModel is not a UNet"),
        (kandinsky, "its block ResnetDownsampleBlock2D is not one of DownBlock2D"),
    ],
)
@pytest.mark.parametrize(
    "use", [SplitUNet, lambda unet: depth_skip(unet, 3), lambda u: BranchUNet(u, 2)]
)
def test_unets_that_cannot_be_split_are_refused(build, named, use):
    with torch.device("meta"):
        unet = build()
    with pytest.raises(ValueError, match=named):
        use(unet)
