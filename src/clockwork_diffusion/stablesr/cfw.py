"""Controllable feature wrapping (CFW): a decoder that looks at the low-quality image.

At each resolution between the first and the last, the decoder's feature d is corrected
by what the encoder saw of the low-quality image there, e:

    d + w · F(e, d)

w, the fidelity weight, is chosen when sampling: 0 is the plain decoder, and the larger
w, the closer the result stays to the low-quality image. F is a ResBlock on e and d, a
few dense blocks, and another ResBlock (Wang et al. 2023, Section 3.2, and the published
weights).
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    ModelMixin,  # noqa: F401  # where diffusers looks when a pipeline is loaded
)
from diffusers.models.autoencoders.autoencoder_kl import DiagonalGaussianDistribution
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

EPS = 1e-6
"""Of all normalisations here, as elsewhere in the autoencoder."""

SLOPE = 0.2
"""Of the leaky ReLU in dense blocks."""

RESIDUAL = 0.2
"""Weight of what a dense block adds."""


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees what all before it have yielded."""

    def __init__(self, channels: int, growth: int) -> None:
        """Build the layers.

        Args:
            channels: Channels of the feature.
            growth: Channels that each convolution but the last adds.
        """
        super().__init__()
        count = 5
        self.convs = nn.ModuleList(
            nn.Conv2d(
                channels + index * growth,
                channels if index == count - 1 else growth,
                3,
                padding=1,
            )
            for index in range(count)
        )

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the feature with what the block adds, ``(N, C, H, W)``."""
        seen = hidden
        for conv in list(self.convs)[:-1]:
            seen = torch.cat([seen, F.leaky_relu(conv(seen), SLOPE)], dim=1)
        output: torch.Tensor = hidden + RESIDUAL * self.convs[-1](seen)
        return output


class ResidualDenseBlocks(nn.Module):
    """Three dense blocks, within one more residual connection (an RRDB)."""

    def __init__(self, channels: int, growth: int) -> None:
        """Build the blocks; see `DenseBlock`."""
        super().__init__()
        self.blocks = nn.Sequential(*(DenseBlock(channels, growth) for _ in range(3)))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the feature with what the blocks add, ``(N, C, H, W)``."""
        output: torch.Tensor = hidden + RESIDUAL * self.blocks(hidden)
        return output


class FuseBlock(nn.Module):
    """F: what to add to a feature of the decoder, given the encoder's."""

    def __init__(self, channels: int, blocks: int, growth: int, groups: int) -> None:
        """Build the layers.

        Args:
            channels: Channels of either feature.
            blocks: How many `ResidualDenseBlocks`.
            growth: Channels that their convolutions add.
            groups: Groups of the normalisations.
        """
        super().__init__()
        shared: dict[str, Any] = {
            "out_channels": channels,
            "temb_channels": None,
            "groups": groups,
            "eps": EPS,
        }
        self.join = ResnetBlock2D(in_channels=2 * channels, **shared)
        self.dense = nn.Sequential(
            *(ResidualDenseBlocks(channels, growth) for _ in range(blocks))
        )
        self.out = ResnetBlock2D(in_channels=channels, **shared)

    def forward(self, encoded: torch.Tensor, decoded: torch.Tensor) -> torch.Tensor:
        """Return the correction, ``(N, C, H, W)``."""
        joined = self.join(torch.cat([encoded, decoded], dim=1), None)
        output: torch.Tensor = self.out(self.dense(joined), None)
        return output


class CFWAutoencoder(AutoencoderKL):  # type: ignore[misc]
    """An autoencoder whose decoder can mix in features of the low-quality image.

    ``encode`` and ``decode`` are the plain autoencoder's.
    """

    def __init__(
        self, *, fuse_blocks: int = 2, fuse_growth: int = 32, **kwargs: Any
    ) -> None:
        """Build the autoencoder; the defaults are StableSR's where they concern CFW.

        Args:
            fuse_blocks: `ResidualDenseBlocks` per fuse block.
            fuse_growth: Channels that their convolutions add.
            **kwargs: The arguments of the plain autoencoder.

        Raises:
            ValueError: If no resolution lies between the first and the last.
        """
        super().__init__(**kwargs)
        self.register_to_config(fuse_blocks=fuse_blocks, fuse_growth=fuse_growth)
        inner = self.config.block_out_channels[1:-1]
        if not inner:
            raise ValueError(
                "CFW needs an autoencoder of at least 3 resolutions, "
                f"not {len(self.config.block_out_channels)}"
            )
        groups = self.config.norm_num_groups
        self.fuse = nn.ModuleList(
            FuseBlock(channels, fuse_blocks, fuse_growth, groups) for channels in inner
        )

    @staticmethod
    def _get_init_keys(input_class: type) -> set[str]:
        """Return the keys of a configuration: those of a class and of its bases."""
        keys: set[str] = set()
        for kind in input_class.__mro__:
            if issubclass(kind, AutoencoderKL):
                keys |= set(inspect.signature(vars(kind)["__init__"]).parameters)
        return keys

    @classmethod
    def from_autoencoder(
        cls, vae: AutoencoderKL, *, fuse_blocks: int = 2, fuse_growth: int = 32
    ) -> CFWAutoencoder:
        """Return an autoencoder with fresh fuse blocks and the weights of a plain one.

        Args:
            vae: The plain autoencoder, which is left alone.
            fuse_blocks: `ResidualDenseBlocks` per fuse block.
            fuse_growth: Channels that their convolutions add.
        """
        config = {k: v for k, v in vae.config.items() if not k.startswith("_")}
        result = cls(fuse_blocks=fuse_blocks, fuse_growth=fuse_growth, **config)
        missing, surplus = result.load_state_dict(vae.state_dict(), strict=False)
        assert not surplus
        assert all(name.startswith("fuse.") for name in missing)
        # ModuleMixin's own warns of a cast, whatever the precision.
        nn.Module.to(result, vae.device, vae.dtype)
        return result

    def encode_with_features(
        self, images: torch.Tensor
    ) -> tuple[DiagonalGaussianDistribution, tuple[torch.Tensor, ...]]:
        """Encode images, and keep what the decoder can mix in.

        Args:
            images: ``(N, 3, H, W)`` in [-1, 1].

        Returns:
            The latents' distribution, and the encoder's last feature of each inner
            resolution, from the highest.
        """
        encoder = self.encoder
        hidden = encoder.conv_in(images)
        features = []
        for block in encoder.down_blocks:
            for resnet in block.resnets:
                hidden = resnet(hidden, temb=None)
            features.append(hidden)
            for downsampler in block.downsamplers or ():
                hidden = downsampler(hidden)
        hidden = encoder.conv_norm_out(encoder.mid_block(hidden))
        moments = encoder.conv_out(encoder.conv_act(hidden))
        if self.quant_conv is not None:
            moments = self.quant_conv(moments)
        return DiagonalGaussianDistribution(moments), tuple(features[1:-1])

    def decode_with_features(
        self, latents: torch.Tensor, features: tuple[torch.Tensor, ...], weight: float
    ) -> torch.Tensor:
        """Decode latents with features of the low-quality image mixed in.

        Args:
            latents: Unscaled latents, ``(N, C, h, w)``.
            features: Of `encode_with_features`, for an image of the same size.
            weight: Fidelity weight w; 0 is the plain decoder.

        Returns:
            Images ``(N, 3, H, W)``, about [-1, 1].
        """
        decoder = self.decoder
        if self.post_quant_conv is not None:
            latents = self.post_quant_conv(latents)
        hidden = decoder.mid_block(decoder.conv_in(latents), None)
        last = len(decoder.up_blocks) - 1
        for index, block in enumerate(decoder.up_blocks):
            for resnet in block.resnets:
                hidden = resnet(hidden, temb=None)
            level = last - index - 1  # of the inner resolutions
            if weight and 0 <= level < len(self.fuse):
                hidden = hidden + weight * self.fuse[level](features[level], hidden)
            for upsampler in block.upsamplers or ():
                hidden = upsampler(hidden)
        hidden = decoder.conv_act(decoder.conv_norm_out(hidden))
        images: torch.Tensor = decoder.conv_out(hidden)
        return images
