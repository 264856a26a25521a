"""Encode images and prompts, and decode latents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline

from clockwork_diffusion import tokens
from clockwork_diffusion.finite import check_finite

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

    Raises:
        NotFiniteError: If latents are not finite, naming the rows.
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
    latents = torch.cat(parts)
    check_finite(latents, "latents of images")
    return latents


@dataclass(frozen=True)
class Prompts:
    """Encoded prompts, one row each.

    Attributes:
        text: Features for cross attention, ``(N, L, D)``.
        pooled: Pooled embedding for the adaptor, ``(N, P)``, or None.
        empty: The empty prompt's features, ``(1, L, D)``.
        empty_pooled: The empty prompt's pooled embedding, ``(1, P)``, or None.
    """

    text: torch.Tensor
    empty: torch.Tensor
    pooled: torch.Tensor | None = None
    empty_pooled: torch.Tensor | None = None

    def __getitem__(self, index: slice) -> Prompts:
        """Return some of the prompts."""
        pooled = None if self.pooled is None else self.pooled[index]
        return Prompts(self.text[index], self.empty, pooled, self.empty_pooled)

    def __len__(self) -> int:
        """Return the number of prompts."""
        return len(self.text)


@torch.inference_mode()
def encode_prompts(
    pipe: StableDiffusionPipeline,
    prompts: Sequence[str],
    pool: Callable[[Sequence[str]], torch.Tensor] | None = None,
) -> Prompts:
    """Encode prompts with the pipeline's text encoder, and pool them for an adaptor.

    Args:
        pipe: The pipeline.
        prompts: The prompts.
        pool: Maps texts to pooled embeddings, ``(N, P)``; the paper takes OpenCLIP's.

    Raises:
        ValueError: If the tokenizer knows nothing of a prompt; of those that it cuts
            the log says how many they are.
    """
    tokens.count_lost(pipe.tokenizer, prompts)
    text, empty = pipe.encode_prompt(
        list(prompts),
        device=pipe.device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=True,
    )
    if pool is None:
        return Prompts(text, empty[:1])
    like = {"device": pipe.device, "dtype": text.dtype}
    return Prompts(text, empty[:1], pool(prompts).to(**like), pool([""]).to(**like))


@torch.inference_mode()
@torch.no_grad()
def decode_latents(
    pipe: StableDiffusionPipeline, latents: torch.Tensor, batch_size: int = 64
) -> torch.Tensor:
    """Decode latents to uint8 images, ``(N, 3, H, W)``, on the CPU.

    Raises:
        NotFiniteError: If latents or pixels are not finite, naming the rows.
    """
    # Rounded where they are: a fraction of the bytes comes to the CPU.
    return torch.cat([to_bytes(p).cpu() for p in _decoded(pipe, latents, batch_size)])


@torch.no_grad()
def decode_pixels(
    pipe: StableDiffusionPipeline, latents: torch.Tensor, batch_size: int = 64
) -> torch.Tensor:
    """Decode latents to pixels from 0 to 1, ``(N, 3, H, W)``, on the CPU.

    Raises:
        NotFiniteError: If latents or pixels are not finite, naming the rows.
    """
    return torch.cat([p.cpu() for p in _decoded(pipe, latents, batch_size)])


def _decoded(
    pipe: StableDiffusionPipeline, latents: torch.Tensor, batch_size: int
) -> Iterator[torch.Tensor]:
    check_finite(latents, "latents")
    for batch in latents.split(batch_size):
        pixels = pipe.vae.decode(batch / pipe.vae.config.scaling_factor).sample
        check_finite(pixels, "decoded pixels")
        yield (pixels / 2 + 0.5).clamp(0, 1)


def to_bytes(pixels: torch.Tensor) -> torch.Tensor:
    """Round pixels from 0 to 1 to uint8."""
    return (pixels * 255).round().byte()
