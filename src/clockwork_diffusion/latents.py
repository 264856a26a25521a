"""Encode images to the latents that UNets see."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL

PIXELS = 256 * 64**2
"""Pixels per call; of 512×512 images that are 4, and 6 GB of activations."""


@torch.inference_mode()
def encode_images(
    vae: AutoencoderKL,
    images: torch.Tensor,
    *,
    scale: bool = True,
    batch_size: int = 0,
) -> torch.Tensor:
    """Return the mean latents of images, float32, on the CPU.

    Args:
        vae: The autoencoder.
        images: uint8, ``(N, 3, H, W)``.
        scale: Multiply by the model's ``scaling_factor``, as Stable Diffusion does.
        batch_size: Images per call; 0 for what `PIXELS` allows.

    Returns:
        ``(N, C, h, w)``.
    """
    factor = vae.config.scaling_factor if scale else 1.0
    height, width = images.shape[-2:]
    size = batch_size or max(1, PIXELS // (height * width))
    parts = [
        vae.encode((batch.float() / 127.5 - 1).to(vae.device, vae.dtype))
        .latent_dist.mean.float()
        .cpu()
        * factor
        for batch in images.split(size)
    ]
    return torch.cat(parts)
