"""StableSR's UNet: SD-2.1-base that sees the low-quality image in every ResBlock.

Each ResBlock ends in spatially adaptive normalisation (SPADE) of its residual branch h,

    SPADE(h, s) = GroupNorm(h) · (1 + γ(s)) + β(s),   output = shortcut + SPADE(h, s)

where γ and β are maps that two convolutions draw from a third one's reading of s, the
structure encoder's features at the resolution of h (Wang et al. 2023, "Exploiting
Diffusion Prior for Real-World Image Super-Resolution", and its published weights; the
paper describes the same with an SFT layer).

The structure travels with the time embedding: diffusers' blocks hand what they get as
``temb`` to their ResBlocks untouched, so a `SpadeInput` reaches them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import (
    ModelMixin,  # noqa: F401  # where diffusers looks when a pipeline is loaded
    UNet2DConditionModel,
)
from diffusers.models.controlnets.controlnet import zero_module
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from clockwork_diffusion.depth_skip import DepthSkipUNet
from clockwork_diffusion.unet import SpadeInput

STABLESR_UNET: dict[str, Any] = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 1024,
    # Heads, not their width: 64 channels each.
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
}
"""StableSR's UNet where it differs from diffusers' defaults: SD-2.1-base."""

STRUCTURE_CHANNELS = 256
"""Channels of StableSR's structure, at every resolution."""

SPADE_CHANNELS = 128
"""Channels between structure and γ, β in StableSR."""


class Spade(nn.Module):
    """Normalise a feature and modulate it, position by position, by the structure.

    γ and β start at zero (ours: the official code leaves PyTorch's initialisation), so
    that a fresh block is a plain GroupNorm.
    """

    def __init__(
        self, channels: int, structure_channels: int, hidden: int, groups: int
    ) -> None:
        """Build the layers.

        Args:
            channels: Channels of the feature.
            structure_channels: Channels of the structure.
            hidden: Channels in between.
            groups: Groups of the normalisation.
        """
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.shared = nn.Conv2d(structure_channels, hidden, 3, padding=1)
        self.gamma = zero_module(nn.Conv2d(hidden, channels, 3, padding=1))
        self.beta = zero_module(nn.Conv2d(hidden, channels, 3, padding=1))

    def forward(self, hidden: torch.Tensor, structure: torch.Tensor) -> torch.Tensor:
        """Return the modulated feature, ``(N, C, H, W)``."""
        read = F.relu(self.shared(structure))
        output: torch.Tensor = self.norm(hidden) * (1 + self.gamma(read))
        return output + self.beta(read)


class SpadeResnetBlock2D(ResnetBlock2D):  # type: ignore[misc]
    """A ResBlock with SPADE at the end of its residual branch."""

    @classmethod
    def around(
        cls, block: ResnetBlock2D, structure_channels: int, hidden: int
    ) -> SpadeResnetBlock2D:
        """Return a block with the layers of a plain one, and a fresh SPADE.

        Args:
            block: The plain block; its layers are shared.
            structure_channels: Channels of the structure.
            hidden: Channels between structure and modulation.

        Raises:
            ValueError: If the block is not one of Stable Diffusion's.
        """
        if (
            block.time_emb_proj is None
            or block.time_embedding_norm != "default"
            or block.skip_time_act
            or block.upsample is not None
            or block.downsample is not None
        ):
            raise ValueError(
                "a ResBlock that resamples, or takes no plain time embedding, "
                "cannot have SPADE"
            )
        groups = block.norm1.num_groups
        with torch.device("meta"):
            built = cls(
                in_channels=block.in_channels,
                out_channels=block.out_channels,
                temb_channels=block.time_emb_proj.in_features,
                groups=groups,
                eps=block.norm1.eps,
                dropout=block.dropout.p,
                output_scale_factor=block.output_scale_factor,
                use_in_shortcut=block.use_in_shortcut,
            )
        for name, layer in block.named_children():
            setattr(built, name, layer)
        built.spade = Spade(block.out_channels, structure_channels, hidden, groups)
        return built

    def forward(
        self, input_tensor: torch.Tensor, temb: SpadeInput, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Run the block.

        Args:
            input_tensor: Feature, ``(N, C, H, W)``.
            temb: Time embedding and structure.
            *args: Ignored, as diffusers does.
            **kwargs: Ignored, as diffusers does.

        Raises:
            ValueError: If there is no structure, or none of this feature's width.
        """
        if not isinstance(temb, SpadeInput):
            raise ValueError(
                "a UNet with SPADE needs the structure of the low-quality image: "
                "pass structure="
            )
        width = input_tensor.shape[-1]
        if width not in temb.structure:
            raise ValueError(
                f"the structure holds no features of width {width}, "
                f"only {', '.join(map(str, temb.structure))}: "
                "latents and low-quality image differ in size"
            )
        hidden = self.conv1(self.nonlinearity(self.norm1(input_tensor)))
        shift = self.time_emb_proj(self.nonlinearity(temb.t_emb))
        hidden = self.nonlinearity(self.norm2(hidden + shift[:, :, None, None]))
        hidden = self.conv2(self.dropout(hidden))
        hidden = self.spade(hidden, temb.structure[width])
        if self.conv_shortcut is not None:
            input_tensor = self.conv_shortcut(input_tensor)
        output: torch.Tensor = (input_tensor + hidden) / self.output_scale_factor
        return output


class SpadeUNet(DepthSkipUNet):
    """A UNet of Stable Diffusion's topology with SPADE in every ResBlock.

    Its ``forward`` needs ``structure``: features of the low-quality image by width.
    """

    def __init__(
        self,
        structure_channels: int = STRUCTURE_CHANNELS,
        spade_channels: int = SPADE_CHANNELS,
        **kwargs: Any,
    ) -> None:
        """Build the UNet; the defaults are StableSR's where they concern SPADE.

        Args:
            structure_channels: Channels of the structure.
            spade_channels: Channels between structure and modulation.
            **kwargs: The level to keep, and the configuration of diffusers' UNet.
        """
        super().__init__(**kwargs)
        self.register_to_config(
            structure_channels=structure_channels, spade_channels=spade_channels
        )
        for parent in list(self.modules()):
            for name, child in list(parent.named_children()):
                if type(child) is ResnetBlock2D:
                    block = SpadeResnetBlock2D.around(
                        child, structure_channels, spade_channels
                    )
                    setattr(parent, name, block)

    @classmethod
    def from_unet(
        cls,
        unet: UNet2DConditionModel,
        structure_channels: int = STRUCTURE_CHANNELS,
        spade_channels: int = SPADE_CHANNELS,
    ) -> SpadeUNet:
        """Return a UNet with SPADE that starts from the weights of a plain one.

        Convolutional projections around its transformers become linear ones, as in
        SD 2.1. The result does *not* compute what the plain UNet does, neither here
        nor in the official code: SPADE normalises what was not normalised before.
        `calibrate_spade` brings it close, before any training.

        Args:
            unet: The plain UNet, which is left alone.
            structure_channels: Channels of the structure.
            spade_channels: Channels between structure and modulation.
        """
        config = {k: v for k, v in unet.config.items() if not k.startswith("_")}
        config["use_linear_projection"] = True
        result = cls(structure_channels, spade_channels, **config)
        weights = {
            name: value.flatten(1) if _is_projection(name, value) else value
            for name, value in unet.state_dict().items()
        }
        # Casting in one call makes diffusers warn, whatever the precision.
        nn.Module.to(result, unet.device, unet.dtype)
        missing, surplus = result.load_state_dict(weights, strict=False)
        assert not surplus
        assert all(".spade." in name for name in missing)
        return result


def spades(unet: nn.Module) -> Iterator[tuple[str, Spade]]:
    """Yield the SPADE layers of a UNet, with their names."""
    for name, module in unet.named_modules():
        if isinstance(module, Spade):
            yield name, module


@torch.no_grad()
def calibrate_spade(
    unet: SpadeUNet,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor | float, torch.Tensor]],
) -> SpadeUNet:
    """Let the normalisation in SPADE restore what it removes, on average.

    A GroupNorm takes mean and deviation of each group out of h, and its affine
    parameters can put in others. They are set to the averages over some inputs of the
    plain UNet, so that a fresh SPADE changes h only as far as its statistics vary from
    one input to the next. Ours: the official training starts from mean 0 and
    deviation 1, and learns the rest.

    Args:
        unet: A UNet fresh from `SpadeUNet.from_unet`; changed in place.
        batches: Noisy latents ``(N, C, H, W)``, timesteps and text features
            ``(N, L, D)``.

    Returns:
        The same UNet.

    Raises:
        ValueError: If there are no batches.
    """
    sums: dict[str, torch.Tensor] = {}
    count = 0
    with ExitStack() as hooks:
        for name, spade in spades(unet):

            def pass_through(
                module: Spade,
                args: tuple[torch.Tensor, ...],
                output: torch.Tensor,
                name: str = name,
            ) -> torch.Tensor:
                """Note the groups' mean and deviation; leave the feature as it is."""
                grouped = args[0].float().unflatten(1, (module.norm.num_groups, -1))
                grouped = grouped.flatten(2)
                found = torch.stack([grouped.std(2, correction=0), grouped.mean(2)])
                sums[name] = sums.get(name, 0) + found.sum(1)
                return args[0]

            hooks.callback(spade.register_forward_hook(pass_through).remove)
        for sample, timestep, text in batches:
            unet(sample, timestep, text, structure=_blank(unet, sample))
            count += len(sample)
    if not count:
        raise ValueError("calibrating SPADE takes at least one batch")
    for name, spade in spades(unet):
        deviation, mean = sums[name] / count
        per_group = spade.norm.num_channels // spade.norm.num_groups
        spade.norm.weight.copy_(deviation.repeat_interleave(per_group))
        spade.norm.bias.copy_(mean.repeat_interleave(per_group))
    return unet


def _blank(unet: SpadeUNet, sample: torch.Tensor) -> dict[int, torch.Tensor]:
    """Return a structure of zeros for latents ``(N, C, H, W)``."""
    structure = {}
    size = sample.shape[2:]
    for _ in unet.config.block_out_channels:
        shape = (len(sample), unet.config.structure_channels, *size)
        structure[size[-1]] = sample.new_zeros(shape)
        size = torch.Size((length + 1) // 2 for length in size)
    return structure


def _is_projection(name: str, value: torch.Tensor) -> bool:
    """Say whether a weight is a 1x1 convolution around a transformer."""
    around = name.endswith(("proj_in.weight", "proj_out.weight"))
    return around and value.ndim == 4
