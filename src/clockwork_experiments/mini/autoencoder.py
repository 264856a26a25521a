"""Train the mini autoencoder: 64×64 RGB ↔ 4×16×16 latents, as SD's at f = 4.

Some batches are decoded at half the resolution, from latents that were averaged, and
compared with averaged images. That keeps the layout in the latents' low frequencies,
which makes them easier to model (Kouzelis et al. 2025, "EQ-VAE").
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn import functional

from clockwork_diffusion.encoding import encode_images
from clockwork_experiments.train.training import (
    Optimisation,
    Trained,
    fit_in_stages,
    generator_for,
)
from clockwork_experiments.world import scenes
from clockwork_experiments.world.data import (
    Pixels,
    eight_bit,
    images_of,
    scene_images,
    to_unit,
)


@dataclass(frozen=True)
class AutoencoderStage:
    """A stage of training.

    Attributes:
        kl_weight: Weight of the KL term against the pixel terms.
        half_share: Share of batches that are decoded at half the resolution.
        object_weight: By how much a pixel of an object weighs more than one of the
            ground, which is most of a picture and the least of what it shows.
        optimisation: The recipe.
    """

    kl_weight: float
    half_share: float
    object_weight: float
    optimisation: Optimisation


@dataclass(frozen=True)
class AutoencoderSpec:
    """Data, size and recipe of the mini autoencoder.

    Attributes:
        images: Number of training scenes.
        channels: Channels of the three levels.
        stages: The recipes, one after the other; each starts from the average of the
            one before.
    """

    images: int
    channels: tuple[int, int, int]
    stages: tuple[AutoencoderStage, ...]


def build(spec: AutoencoderSpec) -> AutoencoderKL:
    """Return an untrained autoencoder."""
    torch.manual_seed(spec.stages[0].optimisation.seed)
    return AutoencoderKL(
        block_out_channels=spec.channels,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
    )


def _mask(seed: int) -> Pixels:
    mask = eight_bit(scenes.object_mask(scenes.sample_scene(seed)))
    # A little beyond the outline, which is what tells one kind from another.
    wide = cv2.dilate(mask, np.ones((5, 5), np.uint8))
    return np.asarray(wide, np.uint8)[..., None]


def train(spec: AutoencoderSpec, state: Path, device: torch.device) -> Trained:
    """Train on scenes; the result's ``scaling_factor`` gives latents unit variance."""
    seeds = scenes.split_seeds("train", spec.images)

    # Made on first use: a run that is resumed after its last step needs none.
    @cache
    def images() -> torch.Tensor:
        return scene_images("train", spec.images)

    @cache
    def masks() -> torch.Tensor:
        return images_of(_mask, seeds)

    def loss(model: AutoencoderKL, stage: AutoencoderStage, step: int) -> torch.Tensor:
        recipe = stage.optimisation
        generator = generator_for(recipe.seed, step)
        chosen = torch.randint(spec.images, (recipe.batch_size,), generator=generator)
        half = float(torch.rand((), generator=generator)) < stage.half_share
        pixels = to_unit(images()[chosen]).to(device)
        weight = torch.ones_like(pixels[:, :1])
        if stage.object_weight:
            weight += stage.object_weight * masks()[chosen].to(device) / 255
            weight /= weight.mean()
        posterior = model.encode(pixels).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
        latents = posterior.mean + posterior.std * noise
        if half:
            latents, pixels, weight = (
                functional.avg_pool2d(each, 2) for each in (latents, pixels, weight)
            )
        error = (model.decode(latents).sample - pixels) * weight
        # Differences of neighbours weigh edges and textures, which a plain L1 blurs.
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        squared = (error.square() / weight).mean()
        return error.abs().mean() + squared + 0.5 * edges + stage.kl_weight * kl

    trained = fit_in_stages(
        # channels_last nearly doubles the speed of narrow convolutions on a CPU.
        build(spec).to(device, memory_format=torch.channels_last),  # type: ignore[call-overload]
        [stage.optimisation for stage in spec.stages],
        lambda model, index: partial(loss, model, spec.stages[index]),
        state,
        name="autoencoder",
    )
    model = trained.module
    assert isinstance(model, AutoencoderKL)
    latents = encode_images(model, scene_images("train", 2048), scale=False)
    model.register_to_config(scaling_factor=round(1 / float(latents.std()), 5))
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
