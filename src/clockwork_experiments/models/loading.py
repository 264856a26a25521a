"""Load Stable Diffusion pipelines from folders; the same code at either scale."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from clockwork_experiments.base import storage


def load_pipeline(
    folder: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    kind: type[Any] = StableDiffusionPipeline,
) -> Any:
    """Load a pipeline folder as diffusers saves it.

    Args:
        folder: Folder with ``model_index.json``.
        device: Where to put it.
        dtype: Precision to compute in; the files may be stored in another.
        kind: Stable Diffusion's pipeline, or one that is made like it.

    Raises:
        ValueError: If the folder is not a pipeline of this kind, or one of its weight
            files is damaged; the message names the file.
    """
    index = storage.read_json(storage.existing(folder / "model_index.json"))
    if index.get("_class_name") != kind.__name__:
        raise ValueError(
            f"{folder} is a {index.get('_class_name')}, not a {kind.__name__}"
        )
    storage.check_weights(folder)
    # Steps draw their own bars; loading takes a second and needs none.
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    # Images are not checked. The extractor serves that alone, and published folders may
    # name a class that transformers no longer has.
    unchecked = {
        "safety_checker": None,
        "requires_safety_checker": False,
        "feature_extractor": None,
    }
    known = inspect.signature(kind).parameters
    pipe = kind.from_pretrained(
        folder,
        dtype=dtype,
        local_files_only=True,
        **{name: value for name, value in unchecked.items() if name in known},
    ).to(device)
    pipe.set_progress_bar_config(disable=True)
    pipe.unet.requires_grad_(False)
    return pipe


def default_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
