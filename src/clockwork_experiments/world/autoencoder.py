"""Train the mini autoencoder: 64×64 RGB ↔ 4×16×16 latents, as SD's at f = 4.

Some batches are decoded at half the resolution, from latents that were averaged, and
compared with averaged images. That keeps the layout in the latents' low frequencies,
which makes them easier to model (Kouzelis et al. 2025, "EQ-VAE").
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch.nn import functional

from clockwork_diffusion.encoding import encode_images
from clockwork_experiments.train.training import (
    Optimisation,
    Trained,
    fit,
    generator_for,
)
from clockwork_experiments.world.data import scene_images, to_unit


@dataclass(frozen=True)
class AutoencoderSpec:
    """Data, size and recipe of the mini autoencoder.

    Attributes:
        images: Number of training scenes.
        channels: Channels of the three levels.
        kl_weight: Weight of the KL term against the pixel terms.
        half_share: Share of batches that are decoded at half the resolution.
        optimisation: The recipe.
    """

    images: int
    channels: tuple[int, int, int]
    kl_weight: float
    half_share: float
    optimisation: Optimisation


def build(spec: AutoencoderSpec) -> AutoencoderKL:
    """Return an untrained autoencoder."""
    torch.manual_seed(spec.optimisation.seed)
    return AutoencoderKL(
        block_out_channels=spec.channels,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
    )


def train(spec: AutoencoderSpec, state: Path, device: torch.device) -> Trained:
    """Train on scenes; the result's ``scaling_factor`` gives latents unit variance."""

    @cache
    def images() -> torch.Tensor:
        # Made on first use: a run that is resumed after its last step needs none.
        return scene_images("train", spec.images)

    # channels_last nearly doubles the speed of narrow convolutions on a CPU.
    model = build(spec).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss_of_step(step: int) -> torch.Tensor:
        generator = generator_for(spec.optimisation.seed, step)
        chosen = torch.randint(
            spec.images, (spec.optimisation.batch_size,), generator=generator
        )
        half = float(torch.rand((), generator=generator)) < spec.half_share
        pixels = to_unit(images()[chosen]).to(device)
        posterior = model.encode(pixels).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
        latents = posterior.mean + posterior.std * noise
        if half:
            latents = functional.avg_pool2d(latents, 2)
            pixels = functional.avg_pool2d(pixels, 2)
        error = model.decode(latents).sample - pixels
        # Differences of neighbours weigh edges and textures, which a plain L1 blurs.
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        return (
            error.abs().mean()
            + error.square().mean()
            + 0.5 * edges
            + spec.kl_weight * kl
        )

    trained = fit(model, loss_of_step, spec.optimisation, state, name="autoencoder")
    assert isinstance(trained.module, AutoencoderKL)
    latents = encode_images(trained.module, scene_images("train", 2048), scale=False)
    trained.module.register_to_config(scaling_factor=round(1 / float(latents.std()), 5))
    return trained


@torch.inference_mode()
def reconstruction_psnr(model: torch.nn.Module, images: torch.Tensor) -> float:
    """Return the mean PSNR in dB of decoded against given uint8 images."""
    assert isinstance(model, AutoencoderKL)
    values = []
    for batch in images.split(128):
        pixels = to_unit(batch).to(model.device)
        decoded = model.decode(model.encode(pixels).latent_dist.mean).sample
        error = (decoded.clamp(-1, 1) - pixels).square().mean(dim=(1, 2, 3)) / 4
        values.append(-10 * error.log10())
    return float(torch.cat(values).mean())
