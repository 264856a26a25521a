"""Find the edges of images by Canny's detector, as ControlNet's canny model takes them.

OpenCV does the work, at ControlNet's own thresholds. Of a colour image it follows the
channel with the steepest gradient, so the order of the channels does not matter.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch

LOW, HIGH = 100, 200
"""Thresholds of the gradient: edges start above the second and end below the first."""


def edges(
    image: npt.NDArray[np.uint8], low: float = LOW, high: float = HIGH
) -> npt.NDArray[np.uint8]:
    """Return the edges of one RGB image.

    Args:
        image: uint8, ``(H, W, 3)``.
        low: Lower threshold.
        high: Upper threshold.

    Returns:
        0 or 255 in three equal channels, ``(H, W, 3)``.

    Raises:
        ValueError: If the image is of another type or shape, or the thresholds are not
            ``0 <= low <= high``.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image is {image.dtype} {image.shape}, not uint8 (H, W, 3)")
    if not 0 <= low <= high:
        raise ValueError(f"thresholds {low} and {high} are not 0 <= low <= high")
    found = cv2.Canny(np.ascontiguousarray(image), low, high)
    return np.repeat(found[..., None], 3, axis=2).astype(np.uint8)


def edge_images(images: torch.Tensor) -> torch.Tensor:
    """Return the edges of images, uint8 ``(N, 3, H, W)`` as they are."""
    found = [edges(image.permute(1, 2, 0).contiguous().numpy()) for image in images]
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).contiguous()
