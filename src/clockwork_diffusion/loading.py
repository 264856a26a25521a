"""Load Stable Diffusion pipelines from folders; the same code at either scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from clockwork_diffusion import adaptors, storage
from clockwork_diffusion.sampling import Passes
from clockwork_diffusion.split import SplitUNet


def load_pipeline(
    folder: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> StableDiffusionPipeline:
    """Load a pipeline folder as diffusers saves it.

    Args:
        folder: Folder with ``model_index.json``.
        device: Where to put it.
        dtype: Precision to compute in; the files may be stored in another.

    Raises:
        ValueError: If the folder is not a Stable Diffusion pipeline, or one of its
            weight files is damaged; the message names the file.
    """
    index = storage.read_json(storage.existing(folder / "model_index.json"))
    if index.get("_class_name") != "StableDiffusionPipeline":
        raise ValueError(
            f"{folder} is a {index.get('_class_name')}, not a StableDiffusionPipeline"
        )
    storage.check_weights(folder)
    # Steps draw their own bars; loading takes a second and needs none.
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    pipe = StableDiffusionPipeline.from_pretrained(
        folder,
        dtype=dtype,
        local_files_only=True,
        safety_checker=None,
        requires_safety_checker=False,
    ).to(device)
    pipe.set_progress_bar_config(disable=True)
    pipe.unet.requires_grad_(False)
    return pipe


class Loaded(NamedTuple):
    """What a run's clock needs.

    Attributes:
        passes: The UNet's passes.
        pool: Maps texts to pooled embeddings for a learned adaptor, ``(N, P)``.
        checksums: Of the adaptor's and CLIP's weights, if there are any.
    """

    passes: Passes
    pool: Callable[[Sequence[str]], torch.Tensor] | None
    checksums: tuple[str, ...]


def load_passes(
    pipe: StableDiffusionPipeline,
    model: Path,
    cut: str,
    *,
    scheduler: str,
    steps: int | None,
    kind: str = "",
    adaptor: Path | None = None,
    clip: Path | None = None,
) -> Loaded:
    """Split a pipeline's UNet and load the adaptor that goes with it.

    Args:
        pipe: The pipeline.
        model: Its folder.
        cut: Where the UNet is split.
        scheduler: Key of the run's scheduler.
        steps: Its number of steps, which a learned adaptor must be made for; None for
            any, as in editing, where the paper does not say which.
        kind: Kind of an adaptor without weights, or empty.
        adaptor: Folder of a learned adaptor, or None.
        clip: Folder of the CLIP that a learned adaptor asks.

    Raises:
        ValueError: If the adaptor is for something else, or a file is damaged.
    """
    split = SplitUNet(pipe.unet, cut)
    if kind:
        if adaptors.is_learned(kind):
            raise ValueError(f"adaptor kind {kind!r} has weights; give its folder")
        built = adaptors.build_adaptor(kind, pipe.unet, cut, 1)
        return Loaded(Passes(split, built), None, ())
    if adaptor is None:
        return Loaded(Passes(split), None, ())
    if clip is None:
        raise ValueError(f"{adaptor} asks CLIP, and no --clip is given")
    learned = adaptors.load_adaptor(adaptor).to(pipe.device, pipe.unet.dtype)
    adaptors.check_made_for(
        learned,
        adaptor,
        model=storage.sha256_folder(model),
        scheduler=scheduler,
        steps=steps,
        cut=cut,
    )
    from clockwork_diffusion import encoders  # for seconds, and learned adaptors alone

    encoder = encoders.load_clip(clip, pipe.device)

    def pool(texts: Sequence[str]) -> torch.Tensor:
        return encoders.clip_text_features(encoder, list(texts))

    checksums = (storage.sha256_folder(adaptor), encoder.sha256)
    return Loaded(Passes(split, learned), pool, checksums)


def default_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
