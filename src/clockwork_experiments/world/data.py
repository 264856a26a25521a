"""Turn seeds into tensors of scenes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from clockwork_experiments.mini.data import to_unit as to_unit
from clockwork_experiments.world import scenes

Pixels = npt.NDArray[np.uint8]


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
    """Draw one image a seed, on all cores that this process may use.

    Args:
        draw: Makes a uint8 image, ``(64, 64, 3)``; a function of a module's top level.
        seeds: The seeds.

    Returns:
        Images, uint8, shape ``(len(seeds), 3, 64, 64)``.
    """
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        drawn = tqdm(
            pool.map(draw, seeds, chunksize=256),
            total=len(seeds),
            desc="scenes",
            disable=None,
        )
        stacked = np.stack(list(drawn))
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous()
