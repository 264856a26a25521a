"""Compare edited images with what they should show, and with their sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from clockwork_experiments.base import storage
from clockwork_experiments.models import encoders
from clockwork_experiments.score import metrics, structure

UNEDITED = "unedited"
"""The edit that leaves every source as it is; always scored, for scale."""


@dataclass(frozen=True)
class Judge:
    """What scores the edits of a set; rows are pairs.

    Attributes:
        clip: CLIP.
        vit: The ViT that compares structures.
        text: CLIP's features of the target prompts.
        originals: The source of each pair.
        targets: The exact edit of each pair, where there is one.
    """

    clip: encoders.ClipEncoder
    vit: structure.StructureEncoder
    text: torch.Tensor
    originals: torch.Tensor
    targets: torch.Tensor | None

    def values(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the scores of each pair."""
        values = {
            "clip": metrics.cosines(
                encoders.clip_image_features(self.clip, images), self.text
            ),
            "structure": structure.structure_distances(
                self.vit, images, self.originals
            ),
            "psnr_to_source": metrics.psnr(images, self.originals),
        }
        if self.targets is not None:
            values["psnr_to_true"] = metrics.psnr(images, self.targets)
        return values


def by_edit(paths: Sequence[Path]) -> dict[str, Path]:
    """Return files by edit, ``…/<edit>/<setting>.safetensors``, of one setting."""
    named: dict[str, Path] = {}
    for path in paths:
        name = path.parent.name
        if name == UNEDITED:
            raise ValueError(f"{path}: {name!r} needs no file, and names no other edit")
        if name in named:
            raise ValueError(f"the edit {name!r} is given twice: {named[name]}, {path}")
        named[name] = path
    settings = sorted({path.stem for path in paths})
    if len(settings) > 1:
        raise ValueError(f"the edits are of several settings: {', '.join(settings)}")
    return named


def read_edited(path: Path, sources: torch.Tensor) -> torch.Tensor:
    """Read edited images, which must be as many and as large as their sources."""
    tensors, _ = storage.read_tensors(path)
    if "images" not in tensors:
        raise ValueError(f"{path} lacks the tensor 'images'")
    images = tensors["images"]
    if images.dtype != sources.dtype or images.shape != sources.shape:
        raise ValueError(
            f"{path}: images are {images.dtype} {tuple(images.shape)}, "
            f"not {sources.dtype} {tuple(sources.shape)}, as the set's pairs"
        )
    return images
