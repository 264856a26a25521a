"""Give a restored image the colours of the low-quality one.

Diffusion models shift colours, above all of large smooth areas. Both fixes take what is
coarse from the low-quality image and leave what is fine: `adain` (the paper's) matches
mean and deviation of each channel, `wavelet` exchanges the low frequencies.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

COLOUR_FIXES = ("adain", "wavelet", "none")
"""What `fix_colours` knows."""

EPS = 1e-5
"""Added to variances, so that flat channels stay finite."""

WAVELET_LEVELS = 5
"""Scales of detail that stay the restored image's own."""


def fix_colours(
    images: torch.Tensor, reference: torch.Tensor, method: str = "adain"
) -> torch.Tensor:
    """Return images with the colours of reference images.

    Args:
        images: ``(N, 3, H, W)``.
        reference: The low-quality images, of the same size and range.
        method: One of `COLOUR_FIXES`.

    Raises:
        ValueError: If the method is unknown.
    """
    if method not in COLOUR_FIXES:
        raise ValueError(
            f"colour fix {method!r} is not one of {', '.join(COLOUR_FIXES)}"
        )
    if method == "none":
        return images
    return (adain if method == "adain" else wavelet)(images, reference)


def adain(images: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Give each channel of each image the mean and deviation of the reference's.

    Adaptive instance normalisation (Huang and Belongie 2017) of pixels.

    Args:
        images: ``(N, C, H, W)``.
        reference: ``(N, C, h, w)``.
    """
    mean, deviation = _statistics(images)
    wanted_mean, wanted_deviation = _statistics(reference)
    return (images - mean) / deviation * wanted_deviation + wanted_mean


def wavelet(images: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Exchange the low frequencies of images for the reference's.

    Low is what five blurs leave, each twice as wide as the one before.

    Args:
        images: ``(N, C, H, W)``.
        reference: Of the same shape.
    """
    return images - _low_frequencies(images) + _low_frequencies(reference)


def _statistics(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and deviation per image and channel, ``(N, C, 1, 1)``."""
    variance, mean = torch.var_mean(images, dim=(2, 3), keepdim=True)
    return mean, (variance + EPS).sqrt()


def _low_frequencies(images: torch.Tensor) -> torch.Tensor:
    line = images.new_tensor([0.25, 0.5, 0.25])
    kernel = torch.outer(line, line).expand(images.shape[1], 1, 3, 3)
    for level in range(WAVELET_LEVELS):
        reach = 2**level
        padded = F.pad(images, (reach,) * 4, mode="replicate")
        images = F.conv2d(padded, kernel, dilation=reach, groups=images.shape[1])
    return images
