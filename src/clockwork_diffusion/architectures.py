"""The papers' three backbones, as configurations of diffusers' UNet.

- ``sd``: the UNet of Stable Diffusion v1.5.
- ``efficient``: the same without the transformer blocks of the highest resolution.
- ``distilled``: the efficient UNet, distilled to run without guidance, at batch 1.

Source: Clockwork Diffusion, Section 5.1 and supplement.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet2DConditionModel

SD_V15: dict[str, Any] = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    # Heads, not their width: diffusers keeps the misnomer for these checkpoints.
    "attention_head_dim": 8,
}
"""SD v1.5's UNet where it differs from diffusers' defaults."""

SD_V15_TEXT = (77, 768)
"""Tokens and width of SD v1.5's text features."""

VIT_G14_WIDTH = 1024
"""Width of the pooled text embedding of OpenCLIP's ViT-g/14."""


@dataclass(frozen=True)
class Backbone:
    """A backbone.

    Attributes:
        attention_at_top: Whether the highest resolution has transformer blocks.
        guided: Whether it samples with guidance, two UNet samples per image.
    """

    attention_at_top: bool
    guided: bool


BACKBONES: dict[str, Backbone] = {
    "sd": Backbone(attention_at_top=True, guided=True),
    "efficient": Backbone(attention_at_top=False, guided=True),
    "distilled": Backbone(attention_at_top=False, guided=False),
}


def unet_config(backbone: str, base: Mapping[str, Any] = SD_V15) -> dict[str, Any]:
    """Return the UNet configuration of a backbone.

    Args:
        backbone: A key of `BACKBONES`.
        base: Configuration of the SD UNet that it derives from.

    Raises:
        ValueError: If the backbone is unknown.
    """
    if backbone not in BACKBONES:
        raise ValueError(f"backbone {backbone!r} is not one of {', '.join(BACKBONES)}")
    config = dict(base)
    top = BACKBONES[backbone].attention_at_top
    config["down_block_types"] = (
        "CrossAttnDownBlock2D" if top else "DownBlock2D",
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "DownBlock2D",
    )
    config["up_block_types"] = (
        "UpBlock2D",
        "CrossAttnUpBlock2D",
        "CrossAttnUpBlock2D",
        "CrossAttnUpBlock2D" if top else "UpBlock2D",
    )
    return config


def build_unet(
    backbone: str,
    base: Mapping[str, Any] = SD_V15,
    device: str | torch.device = "meta",
) -> UNet2DConditionModel:
    """Build a backbone's UNet with random weights; by default with none at all."""
    with torch.device(device):
        return UNet2DConditionModel.from_config(unet_config(backbone, base)).eval()
