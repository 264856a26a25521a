"""Turn seeds into tensors of scenes, kept in memory and made on first use."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch
from tqdm import tqdm

from clockwork_experiments.mini import scenes


def _render(seed: int) -> np.ndarray:
    image = scenes.render(scenes.sample_scene(seed))
    return np.round(image * 255).astype(np.uint8)


def scene_images(split: str, count: int, offset: int = 0) -> torch.Tensor:
    """Render scenes of a split.

    Returns:
        Images, uint8, shape ``(count, 3, 64, 64)``.
    """
    seeds = scenes.split_seeds(split, count, offset)
    with ProcessPoolExecutor() as pool:
        images = list(
            tqdm(
                pool.map(_render, seeds, chunksize=256),
                total=count,
                desc="scenes",
                disable=None,
            )
        )
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def to_unit(images: torch.Tensor) -> torch.Tensor:
    """Map uint8 images to float32 in ``[-1, 1]``, as the autoencoder takes them."""
    return images.float() / 127.5 - 1
