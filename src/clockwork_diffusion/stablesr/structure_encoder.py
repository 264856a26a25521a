"""StableSR's structure encoder: what the low-quality image shows, at each resolution.

Half a UNet, with its own time embedding, reads the latents of the low-quality image.
The last features at each resolution, each brought to the same number of channels by one
more ResBlock, are the structure that the UNet's SPADE layers take. As the encoder knows
the timestep, it can give more where the noise leaves less to see.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.controlnets.controlnet import zero_module
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d_blocks import (
    AttnDownBlock2D,
    DownBlock2D,
    UNetMidBlock2D,
)
from torch import nn

EPS = 1e-5
"""Of all normalisations here."""


class StructureEncoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Map latents and timestep to the structure; the defaults are StableSR's."""

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        in_channels: int = 4,
        block_out_channels: Sequence[int] = (256, 256, 512, 512),
        attention: Sequence[bool] = (True, True, True, False),
        structure_channels: int = 256,
        layers_per_block: int = 2,
        heads: int = 4,
        norm_num_groups: int = 32,
    ) -> None:
        """Build the layers.

        Args:
            in_channels: Channels of the latents.
            block_out_channels: Channels per resolution, from the highest.
            attention: Whether a resolution has self attention; the middle always has.
            structure_channels: Channels of the structure, at every resolution.
            layers_per_block: ResBlocks per resolution.
            heads: Attention heads.
            norm_num_groups: Groups of the normalisations.

        Raises:
            ValueError: If the two lists differ in length.
        """
        super().__init__()
        if len(block_out_channels) != len(attention):
            raise ValueError(
                f"block_out_channels has {len(block_out_channels)} entries, "
                f"and attention {len(attention)}: not the same"
            )
        first, last = block_out_channels[0], block_out_channels[-1]
        width = 4 * first
        self.time_proj = Timesteps(first, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(first, width)
        self.conv_in = nn.Conv2d(in_channels, first, 3, padding=1)
        down: list[nn.Module] = []
        channels = first
        for index, (out, attends) in enumerate(
            zip(block_out_channels, attention, strict=True)
        ):
            innermost = index == len(block_out_channels) - 1
            shared = {
                "in_channels": channels,
                "out_channels": out,
                "temb_channels": width,
                "num_layers": layers_per_block,
                "resnet_eps": EPS,
                "resnet_groups": norm_num_groups,
            }
            if attends:
                down.append(
                    AttnDownBlock2D(
                        **shared,
                        attention_head_dim=out // heads,
                        downsample_type="none" if innermost else "conv",
                    )
                )
            else:
                down.append(DownBlock2D(**shared, add_downsample=not innermost))
            channels = out
        self.down_blocks = nn.ModuleList(down)
        self.mid_block = UNetMidBlock2D(
            in_channels=last,
            temb_channels=width,
            resnet_eps=EPS,
            resnet_groups=norm_num_groups,
            attention_head_dim=last // heads,
        )
        self.to_structure = nn.ModuleList(
            ResnetBlock2D(
                in_channels=channels,
                out_channels=structure_channels,
                temb_channels=width,
                groups=norm_num_groups,
                eps=EPS,
            )
            for channels in block_out_channels
        )
        # As the official code does, residual branches start at zero.
        for module in self.modules():
            if isinstance(module, ResnetBlock2D):
                zero_module(module.conv2)
            elif hasattr(module, "to_out"):
                zero_module(module.to_out[0])

    def forward(
        self, latents: torch.Tensor, timestep: torch.Tensor | float
    ) -> dict[int, torch.Tensor]:
        """Return the structure by width.

        Args:
            latents: Scaled latents of the low-quality image, ``(N, C, H, W)``.
            timestep: A scalar or ``(N,)``.

        Returns:
            Features ``(N, S, h, w)`` of each resolution under their width w.

        Raises:
            ValueError: If the latents are too small for all resolutions.
        """
        smallest = 2 ** (len(self.down_blocks) - 1)
        if min(latents.shape[2:]) < smallest:
            height, width = latents.shape[2:]
            raise ValueError(
                f"latents of {height}x{width} are too small for the structure "
                f"encoder: at least {smallest}x{smallest}"
            )
        steps = torch.as_tensor(timestep, device=latents.device).expand(len(latents))
        t_emb = self.time_embedding(self.time_proj(steps).to(latents.dtype))
        hidden = self.conv_in(latents)
        features = []
        for block in self.down_blocks[:-1]:
            hidden, states = block(hidden, t_emb)
            # The last state is downsampled already.
            features.append(states[-2])
        hidden, _ = self.down_blocks[-1](hidden, t_emb)
        features.append(self.mid_block(hidden, t_emb))
        return {
            feature.shape[-1]: layer(feature, t_emb)
            for feature, layer in zip(features, self.to_structure, strict=True)
        }
