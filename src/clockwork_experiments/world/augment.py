"""Disturb images as generated ones are disturbed: blurred, noisy, too bright or flat.

Images are float32 ``(N, 3, H, W)`` in ``[-1, 1]``; every strength is one number per
image, ``(N,)``.
"""

from __future__ import annotations

import torch


def blur(images: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Convolve with a Gaussian of ``sigma`` pixels; 0 changes nothing."""
    rows = _gaussian(images.shape[-2], sigma.to(images.device))
    columns = _gaussian(images.shape[-1], sigma.to(images.device))
    # As two products with band matrices: convolution with a kernel per image is slow.
    return rows[:, None] @ images @ columns[:, None].transpose(-1, -2)


def _gaussian(size: int, sigma: torch.Tensor) -> torch.Tensor:
    place = torch.arange(size, device=sigma.device)
    distance = (place[:, None] - place[None, :]).float()
    scale = sigma.clamp(min=1e-3)[:, None, None]
    weights = torch.exp(-0.5 * (distance / scale).square())
    # Normalised rows: at the border, only what lies inside counts.
    return weights / weights.sum(dim=-1, keepdim=True)


def add_noise(
    images: torch.Tensor, sigma: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Add Gaussian noise of standard deviation ``sigma``, and clip."""
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    return (images + sigma.to(images.device).view(-1, 1, 1, 1) * noise).clamp(-1, 1)


def relight(
    images: torch.Tensor, contrast: torch.Tensor, brightness: torch.Tensor
) -> torch.Tensor:
    """Multiply by ``contrast``, add ``brightness``, and clip."""
    factor = contrast.to(images.device).view(-1, 1, 1, 1)
    offset = brightness.to(images.device).view(-1, 1, 1, 1)
    return (images * factor + offset).clamp(-1, 1)


def uniform(
    count: int, low: float, high: float, generator: torch.Generator
) -> torch.Tensor:
    """Draw strengths evenly from ``[low, high]``."""
    return low + (high - low) * torch.rand(count, generator=generator)


def disturb_mildly(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Blur, relight and add noise by little, each in half of the images.

    For networks that recognise contents and must not trip over a rendering's quality.
    """
    count = len(images)

    def half(low: float, high: float, neutral: float) -> torch.Tensor:
        strength = uniform(count, low, high, generator)
        used = torch.rand(count, generator=generator) < 0.5
        return torch.where(used, strength, torch.full_like(strength, neutral))

    images = blur(images, half(0.3, 1.0, 0.0))
    images = relight(images, half(0.85, 1.15, 1.0), half(-0.12, 0.12, 0.0))
    return add_noise(images, half(0.0, 0.12, 0.0), generator)
