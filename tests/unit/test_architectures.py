"""Configurations of the backbones: what each takes out of the SD UNet."""

import pytest
import torch

from clockwork_experiments.cost.architectures import (
    BACKBONES,
    SD_V15,
    build_unet,
    unet_config,
)

MINI = {
    **SD_V15,
    "sample_size": 16,
    "block_out_channels": [16, 32, 64, 64],
    "attention_head_dim": [2, 2, 4, 4],
    "cross_attention_dim": 24,
    "norm_num_groups": 8,
}
CROSS_DOWN, CROSS_UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"


@pytest.mark.parametrize(
    ("backbone", "parameters"),
    [
        ("sd", 859_520_964),
        ("efficient", 846_789_764),
        ("distilled", 846_789_764),
        ("bk_sdm_base", 579_384_964),
        ("bk_sdm_small", 482_346_884),
        ("bk_sdm_tiny", 323_384_964),
    ],
)
def test_parameters(backbone, parameters):
    unet = build_unet(backbone)
    assert sum(p.numel() for p in unet.parameters()) == parameters
    assert next(unet.parameters()).is_meta


def test_bk_sdm_is_configured_as_published():
    base, small, tiny = (
        unet_config(f"bk_sdm_{size}") for size in ("base", "small", "tiny")
    )
    assert base == unet_config("sd") | {"layers_per_block": 1}
    assert small == base | {"mid_block_type": None}
    assert tiny == small | {
        "block_out_channels": (320, 640, 1280),
        "down_block_types": (CROSS_DOWN,) * 3,
        "up_block_types": (CROSS_UP,) * 3,
    }


def test_the_efficient_unet_has_no_attention_at_the_top_only():
    unet = build_unet("efficient", MINI, "cpu")
    attends = [hasattr(block, "attentions") for block in unet.down_blocks]
    assert attends == [False, True, True, False]
    attends = [hasattr(block, "attentions") for block in unet.up_blocks]
    assert attends == [False, True, True, False]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_runs_on_another_base(backbone):
    torch.manual_seed(0)
    unet = build_unet(backbone, MINI, "cpu")
    x, c = torch.randn(2, 4, 16, 16), torch.randn(2, 5, 24)
    with torch.no_grad():
        assert unet(x, 10, c).sample.shape == x.shape


def test_bk_sdm_tiny_keeps_the_outer_levels_of_base():
    base, tiny = (build_unet(f"bk_sdm_{size}") for size in ("base", "tiny"))
    pairs = [
        (base.down_blocks[0], tiny.down_blocks[0]),
        (base.down_blocks[1], tiny.down_blocks[1]),
        (base.up_blocks[2], tiny.up_blocks[1]),
        (base.up_blocks[3], tiny.up_blocks[2]),
    ]
    for kept, same in pairs:
        shapes = {name: p.shape for name, p in same.named_parameters()}
        assert shapes == {name: p.shape for name, p in kept.named_parameters()}
    assert tiny.mid_block is None
    assert tiny.down_blocks[-1].downsamplers is None


def test_the_base_is_left_as_it_was():
    before = dict(MINI)
    unet_config("bk_sdm_tiny", MINI)
    assert before == MINI


def test_unknown_backbone():
    with pytest.raises(ValueError, match="'sdxl' is not one of sd, efficient"):
        unet_config("sdxl")


def test_a_base_that_lost_its_layers_already():
    with pytest.raises(ValueError, match="at least 2 layers per block, not 1"):
        unet_config("bk_sdm_base", unet_config("bk_sdm_base"))
