"""The paper's backbones and its competitors, as configurations of diffusers' UNet.

- ``sd``: the UNet of Stable Diffusion v1.5.
- ``efficient``: the same without the transformer blocks of the highest resolution.
- ``distilled``: the efficient UNet, distilled to run without guidance, at batch 1.
- ``bk_sdm_base``: SD's UNet with one layer less per block.
- ``bk_sdm_small``: that without the middle block.
- ``bk_sdm_tiny``: that without the innermost level either.

Sources: Clockwork Diffusion, Section 5.1 and supplement; Kim et al. 2023, "BK-SDM: A
Lightweight, Fast, and Cheap Version of Stable Diffusion", and its configurations. The
other competitors of Table 1 that can be counted, Meng et al. and InstaFlow, run ``sd``
without guidance, for 8 steps and for 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from clockwork_experiments.base import storage

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

SDXL_BASE: dict[str, Any] = {
    "sample_size": 128,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": (
        "DownBlock2D",
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
    ),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2, 10),
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
"""The UNet of Stable Diffusion XL base 1.0 (Podell et al. 2023)."""

LCM_SD: dict[str, Any] = {**SD_V15, "time_cond_proj_dim": 256}
"""SD v1.5's UNet as a latent consistency model (Luo et al. 2023), told its guidance."""

VIT_G14_WIDTH = 1024
"""Width of the pooled text embedding of OpenCLIP's ViT-g/14."""


DOWN, CROSS_DOWN = "DownBlock2D", "CrossAttnDownBlock2D"
UP, CROSS_UP = "UpBlock2D", "CrossAttnUpBlock2D"

SD_TOPOLOGY: dict[str, Any] = {
    "block_out_channels": SD_V15["block_out_channels"],
    "layers_per_block": SD_V15["layers_per_block"],
    "down_block_types": (CROSS_DOWN, CROSS_DOWN, CROSS_DOWN, DOWN),
    "up_block_types": (UP, CROSS_UP, CROSS_UP, CROSS_UP),
}
"""Entries of SD's UNet that a configuration may leave to diffusers' defaults."""


PER_LEVEL = ("down_block_types", "block_out_channels", "attention_head_dim")
"""Entries that list a value per level, or may."""


@dataclass(frozen=True)
class Backbone:
    """A backbone, described by how it differs from the SD UNet.

    Attributes:
        attention_at_top: Whether the highest resolution has transformer blocks.
        guided: Whether it samples with guidance, two UNet samples per image.
        competitor: Whether the paper compares with it rather than builds on it.
        fewer_layers: Layers taken out of each block.
        middle: Whether it has a middle block.
        innermost: Whether it has the level of the lowest resolution.
    """

    attention_at_top: bool = True
    guided: bool = True
    competitor: bool = False
    fewer_layers: int = 0
    middle: bool = True
    innermost: bool = True

    @property
    def samples_per_step(self) -> int:
        """Return how many samples the UNet sees per image and sampling step."""
        return 2 if self.guided else 1


BACKBONES: dict[str, Backbone] = {
    "sd": Backbone(),
    "efficient": Backbone(attention_at_top=False),
    "distilled": Backbone(attention_at_top=False, guided=False),
    "bk_sdm_base": Backbone(competitor=True, fewer_layers=1),
    "bk_sdm_small": Backbone(competitor=True, fewer_layers=1, middle=False),
    "bk_sdm_tiny": Backbone(
        competitor=True, fewer_layers=1, middle=False, innermost=False
    ),
}


def unet_config(backbone: str, base: Mapping[str, Any] = SD_V15) -> dict[str, Any]:
    """Return the UNet configuration of a backbone.

    Args:
        backbone: A key of `BACKBONES`.
        base: Configuration of the SD UNet that it derives from.

    Raises:
        ValueError: If the backbone is unknown, or the base has too few layers for it.
    """
    if backbone not in BACKBONES:
        raise ValueError(f"backbone {backbone!r} is not one of {', '.join(BACKBONES)}")
    chosen = BACKBONES[backbone]
    config = {**SD_TOPOLOGY, **base}
    down, up = (CROSS_DOWN, CROSS_UP) if chosen.attention_at_top else (DOWN, UP)
    config["down_block_types"] = (down, *config["down_block_types"][1:])
    config["up_block_types"] = (*config["up_block_types"][:-1], up)
    if chosen.fewer_layers:
        layers = config["layers_per_block"] - chosen.fewer_layers
        if layers < 1:
            raise ValueError(
                f"backbone {backbone!r} needs a base of at least "
                f"{chosen.fewer_layers + 1} layers per block, "
                f"not {config['layers_per_block']}"
            )
        config["layers_per_block"] = layers
    if not chosen.middle:
        config["mid_block_type"] = None
    if not chosen.innermost:
        # Down blocks run from the highest resolution to the lowest, up blocks back.
        config["up_block_types"] = config["up_block_types"][1:]
        for key in PER_LEVEL:
            if isinstance(config.get(key), Sequence):
                config[key] = config[key][:-1]
    return config


def read_config(path: Path | None) -> dict[str, Any] | None:
    """Return a network's configuration from a file; None if there is none.

    Raises:
        ValueError: If the file does not exist, or cannot be read.
    """
    return None if path is None else storage.read_json(storage.existing(path))


def build_unet(
    backbone: str,
    base: Mapping[str, Any] | None = None,
    device: str | torch.device = "meta",
) -> UNet2DConditionModel:
    """Build a backbone's UNet with random weights; by default with none at all.

    Args:
        backbone: A key of `BACKBONES`.
        base: Configuration of the SD UNet that it derives from; SD v1.5's if left out.
        device: Where to build it.
    """
    config = unet_config(backbone, SD_V15 if base is None else base)
    with torch.device(device):
        return UNet2DConditionModel.from_config(config).eval()
