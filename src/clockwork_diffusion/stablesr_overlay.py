"""Folders with what one StableSR differs in from another, and nothing else.

StableSR's training leaves Stable Diffusion's UNet as it is. Who trains a StableSR
further, in the same way, changes its SPADE layers and structure encoder alone, a
seventh of the mini model's weights; the others are not stored twice. The one file of
such a folder knows by checksum what it lies over.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from clockwork_diffusion import storage
from clockwork_diffusion.spade import spades

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
    """Save the learned parts of a StableSR as fp16, with their checksum.

    Args:
        folder: Where to.
        unet: Its UNet; but for SPADE, that of the base.
        structure_encoder: Its structure encoder.
        base: Folder of the StableSR that the rest is from.
    """
    parts = learned_parts(unet, structure_encoder)
    tensors = {name: part.detach().cpu().half() for name, part in parts.items()}
    notes = {"base": storage.sha256_folder(base)}
    storage.write_tensors(folder / WEIGHTS, tensors, notes)
    storage.write_checksums(folder)


@torch.no_grad()
def lay_over(pipe: Any, folder: Path, base: Path) -> None:
    """Give a StableSR the learned parts of another.

    Args:
        pipe: The `clockwork_diffusion.stablesr.StableSRPipeline`; changed in place.
        folder: The other's learned parts.
        base: Folder that the pipeline was loaded from.

    Raises:
        ValueError: If the parts are damaged, or of a StableSR that was made from
            another base, naming the folder.
    """
    storage.check_weights(folder)
    tensors, notes = storage.read_tensors(folder / WEIGHTS)
    if notes.get("base") != storage.sha256_folder(base):
        raise ValueError(f"{folder} does not lie over {base}: it was made from another")
    parts = learned_parts(pipe.unet, pipe.structure_encoder)
    if tensors.keys() != parts.keys():
        name = min(tensors.keys() ^ parts.keys())
        raise ValueError(f"{folder} and {base} do not fit: only one of them has {name}")
    for name, part in parts.items():
        part.copy_(tensors[name])
