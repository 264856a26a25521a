"""Turn seeds into tensors of scenes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from clockwork_experiments.world import scenes

Pixels = npt.NDArray[np.uint8]
Made = TypeVar("Made")


def eight_bit(image: scenes.Image) -> Pixels:
    """Round an image in ``[0, 1]`` to uint8."""
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _render(seed: int) -> Pixels:
    return eight_bit(scenes.render(scenes.sample_scene(seed)))


def scene_images(split: str, count: int, offset: int = 0) -> torch.Tensor:
    """Render scenes of a split.

    Returns:
        Images, uint8, shape ``(count, 3, 64, 64)``.
    """
    return images_of(_render, scenes.split_seeds(split, count, offset))


def images_of(draw: Callable[[int], Pixels], seeds: Sequence[int]) -> torch.Tensor:
    """Draw one image a seed.

    Args:
        draw: Makes a uint8 image, ``(64, 64, C)``; a function of a module's top level.
        seeds: The seeds.

    Returns:
        Images, uint8, shape ``(len(seeds), C, 64, 64)``.
    """
    return stacked(made_of(draw, seeds))


def made_of(make: Callable[[int], Made], seeds: Sequence[int]) -> list[Made]:
    """Make one thing a seed, on all cores that this process may use."""
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        made = pool.map(make, seeds, chunksize=256)
        return list(tqdm(made, total=len(seeds), desc="scenes", disable=None))


def stacked(images: Sequence[Pixels]) -> torch.Tensor:
    """Return images ``(H, W, C)`` as one tensor, ``(N, C, H, W)``."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def to_unit(images: torch.Tensor) -> torch.Tensor:
    """Map uint8 images to float32 in ``[-1, 1]``, as the autoencoder takes them."""
    return images.float() / 127.5 - 1
