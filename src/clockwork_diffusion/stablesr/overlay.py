"""Folders with what one StableSR differs in from another, and nothing else.

StableSR's training leaves Stable Diffusion's UNet as it is. Who trains a StableSR
further, in the same way, changes its SPADE layers and structure encoder alone, a
seventh of the mini model's weights; the others are not stored twice. The one file of
such a folder knows by checksum what it lies over.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from clockwork_diffusion.stablesr.spade import spades

WEIGHTS = "overlay.safetensors"
"""The file with the weights."""


def learned_parts(
    unet: nn.Module, structure_encoder: nn.Module
) -> dict[str, nn.Parameter]:
    """Return the parameters that StableSR's training changes, by name."""
    layers = {f"unet.{name}": spade for name, spade in spades(unet)}
    return {
        f"{name}.{key}": parameter
        for name, layer in {**layers, "structure_encoder": structure_encoder}.items()
        for key, parameter in layer.named_parameters()
    }


def save_overlay(
    folder: Path, unet: nn.Module, structure_encoder: nn.Module, base: Path
) -> None:
    """Save the learned parts of a StableSR as fp16.

    Args:
        folder: Where to.
        unet: Its UNet; but for SPADE, that of the base.
        structure_encoder: Its structure encoder.
        base: Folder of the StableSR that the rest is from.
    """
    parts = learned_parts(unet, structure_encoder)
    tensors = {name: part.detach().cpu().half() for name, part in parts.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS, {"base": _sha256(base)})


@torch.no_grad()
def lay_over(pipe: Any, folder: Path, base: Path) -> None:
    """Give a StableSR the learned parts of another.

    Args:
        pipe: The `stablesr.pipeline.StableSRPipeline`; changed in place.
        folder: The other's learned parts.
        base: Folder that the pipeline was loaded from.

    Raises:
        ValueError: If the parts are damaged, or of a StableSR that was made from
            another base, naming the folder.
    """
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            notes = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"{folder / WEIGHTS} is missing, or corrupt or truncated ({error})"
        ) from error
    if notes.get("base") != _sha256(base):
        raise ValueError(f"{folder} does not lie over {base}: it was made from another")
    parts = learned_parts(pipe.unet, pipe.structure_encoder)
    if tensors.keys() != parts.keys():
        name = min(tensors.keys() ^ parts.keys())
        raise ValueError(f"{folder} and {base} do not fit: only one of them has {name}")
    for name, part in parts.items():
        part.copy_(tensors[name])


def _sha256(folder: Path) -> str:
    """Return one SHA-256 for the weights under a folder, names included."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        total.update(path.relative_to(folder).as_posix().encode())
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").hexdigest().encode())
    return total.hexdigest()
