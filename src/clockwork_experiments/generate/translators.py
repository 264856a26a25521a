"""Load models for the tasks.

On disk: ``edit``, ``inpainting`` and ``synthesis`` are folders of diffusers'
InstructPix2Pix pipeline, whose UNet takes the input's latents as further channels;
``text`` is one of Stable Diffusion's; ``control`` is a ControlNet's folder, beside the
pipeline that it controls; ``restoration`` is a StableSR folder
(`clockwork_diffusion.stablesr.pipeline`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    StableDiffusionControlNetPipeline,
    StableDiffusionInstructPix2PixPipeline,
    UNet2DConditionModel,
)

from clockwork_diffusion.stablesr.cfw import CFWAutoencoder
from clockwork_diffusion.stablesr.pipeline import FIDELITY, StableSRPipeline
from clockwork_experiments.base import storage
from clockwork_experiments.generate.tasks import JOINED, check_task
from clockwork_experiments.generate.translate import Translator
from clockwork_experiments.models import loading


def load_translator(
    task: str,
    path: Path,
    model: Path | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    fidelity: float | None = None,
) -> Translator:
    """Load a model for a task.

    Args:
        task: A key of `clockwork_experiments.generate.tasks.TASKS`.
        path: Its folder.
        model: Folder of the pipeline that a ControlNet controls.
        device: Where to put it.
        dtype: Precision to compute in.
        fidelity: Weight of the input's features in the decoder of restoration; its
            usual one if left out.

    Raises:
        ValueError: If the task is unknown, or a folder holds something else, is
            damaged, or does not fit, naming it.
    """
    check_task(task)
    if (model is not None) != (task == "control"):
        raise ValueError(
            f"task {task!r}: control needs the pipeline that it controls, and no other "
            "task has one"
        )
    if task == "restoration":
        restoring = loading.load_pipeline(path, device, dtype, StableSRPipeline)
        # Our input images are of the size of the result.
        restoring.register_to_config(upscale=1)
        # A plain decoder has no features of the input to weigh.
        corrects = isinstance(restoring.vae, CFWAutoencoder)
        if fidelity is None:
            fidelity = FIDELITY if corrects else 0.0
        return Translator(task, restoring, fidelity)
    try:
        pipe: Any
        if task in JOINED:
            kind = StableDiffusionInstructPix2PixPipeline
            pipe = loading.load_pipeline(path, device, dtype, kind)
        else:
            pipe = loading.load_pipeline(model or path, device, dtype)
        check_channels(pipe, 2 if task in JOINED else 1, task)
        if task == "control":
            controlnet = _load_controlnet(path, device, dtype)
            check_controlnet(controlnet, pipe.unet, pipe.vae)
            pipe = StableDiffusionControlNetPipeline(
                **pipe.components, controlnet=controlnet, requires_safety_checker=False
            )
            pipe.set_progress_bar_config(disable=True)
        return Translator(task, pipe)
    except ValueError as error:
        if str(path) in str(error) or str(model) in str(error):
            raise
        raise ValueError(f"{path}: {error}") from error


def _load_controlnet(
    path: Path, device: torch.device | str, dtype: torch.dtype
) -> ControlNetModel:
    config = storage.read_json(storage.existing(path / "config.json"))
    if config.get("_class_name") != "ControlNetModel":
        raise ValueError(f"{path} is a {config.get('_class_name')}, not a ControlNet")
    storage.check_weights(path)
    controlnet = loading.load_network(ControlNetModel, path, dtype)
    return controlnet.to(device).requires_grad_(False)


def check_channels(pipe: Any, images: int, task: str) -> None:
    """Refuse a UNet that does not take the latents of so many images.

    Raises:
        ValueError: In one line.
    """
    found, each = pipe.unet.config.in_channels, pipe.vae.config.latent_channels
    if found != images * each:
        what = "the noisy latents" if images == 1 else "the noisy latents and the input"
        raise ValueError(
            f"{task} needs a UNet of {images * each} input channels, for {what}, "
            f"and this one has {found}"
        )


def check_controlnet(
    controlnet: ControlNetModel, unet: UNet2DConditionModel, vae: AutoencoderKL
) -> None:
    """Refuse a ControlNet that is not for a UNet, or reads images of another scale.

    Raises:
        ValueError: In one line that names the first difference.
    """
    for key in (
        "in_channels",
        "block_out_channels",
        "down_block_types",
        "layers_per_block",
        "cross_attention_dim",
    ):
        theirs, ours = controlnet.config[key], unet.config[key]
        if _plain(theirs) != _plain(ours):
            raise ValueError(
                f"the ControlNet does not fit the UNet: its {key} is {theirs}, "
                f"the UNet's {ours}"
            )
    widths = controlnet.config.conditioning_embedding_out_channels
    shrunk = 2 ** (len(widths) - 1)
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    if shrunk != factor:
        raise ValueError(
            f"the ControlNet does not fit the autoencoder: it makes images {shrunk} "
            f"times smaller, and the autoencoder {factor} times"
        )


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else value
