"""Sets of prompts, with their images where there are any.

A set on disk is one JSON file of prompts and, per shard, one safetensors file with
``images``, uint8 ``(N, 3, H, W)``. Scenes are generated; other sets are read from a
folder (`clockwork_experiments.data.captions`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clockwork_experiments.base import storage
from clockwork_experiments.data import captions, pictures

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class DatasetSpec:
    """Where prompts come from.

    Attributes:
        source: ``scenes`` (the mini world) or ``folder``.
        count: Number of prompts.
        split: Split of the scenes.
        offset: Scenes, or lines, to skip.
        path: The folder.
        size: Side in pixels that images, generated ones too, are resized to before the
            Fréchet distance; 0 keeps them.
        seeds: Sampling seeds per prompt: the whole list of prompts is repeated so many
            times, and each repetition starts from other noise.
        redrawn: Number of the first of the scenes that are drawn anew for every prompt
            and repetition, as varied as what the prompt leaves open; 0 shows each
            prompt's own scene, once. Sets that share a prompt have other scenes where
            their numbers differ.
    """

    source: str
    count: int
    split: str = "test"
    offset: int = 0
    path: str = ""
    size: int = 0
    seeds: int = 1
    redrawn: int = 0

    def __post_init__(self) -> None:
        """Reject unknown sources and empty sets."""
        if self.source not in ("scenes", "folder"):
            raise ValueError(f"source {self.source!r} is not scenes or folder")
        if self.count < 1:
            raise ValueError(f"count {self.count} is less than 1")
        if self.seeds < 1:
            raise ValueError(f"seeds {self.seeds} is less than 1")
        if self.source == "folder" and not self.path:
            raise ValueError("source 'folder' needs a path")
        if self.redrawn < 0:
            raise ValueError(f"redrawn {self.redrawn} is less than 0")
        if self.source == "scenes" and self.seeds > 1 and not self.redrawn:
            raise ValueError(f"{self.seeds} seeds of scenes need redrawn")
        if self.source == "folder" and self.redrawn:
            raise ValueError(
                "images of a folder cannot be drawn anew: leave out redrawn"
            )

    @property
    def images(self) -> int:
        """Return how many images the set has of its own."""
        return self.count * self.seeds if self.redrawn else self.count


def shard_prompts(path: Path, shard: int, shards: int) -> list[str]:
    """Return the captions of a shard."""
    prompts = read_prompts(path)
    rows = shard_rows(len(prompts), shard, shards)
    return prompts[rows.start : rows.stop]


def shard_rows(count: int, shard: int, shards: int) -> range:
    """Return the rows of a shard; shards differ by one row at most.

    Raises:
        ValueError: If there is no such shard, or fewer rows than shards.
    """
    if not 0 <= shard < shards <= count:
        raise ValueError(f"shard {shard} of {shards} of {count} rows does not exist")
    return range(count * shard // shards, count * (shard + 1) // shards)


def read_prompts(path: Path) -> list[str]:
    """Read the prompts that `prepare_prompts` wrote.

    Raises:
        ValueError: If the file holds no list of prompts, naming it.
    """
    prompts = storage.read_json(storage.existing(path))
    if not isinstance(prompts, list) or not all(isinstance(p, str) for p in prompts):
        raise ValueError(f"{path} is not a list of prompts")
    if not prompts:
        raise ValueError(f"{path} holds no prompt")
    return prompts


def folder_prompts(folder: Path, count: int, offset: int = 0) -> list[str]:
    """Read prompts from a folder; see `clockwork_experiments.data.captions`.

    Raises:
        ValueError: If the folder cannot be read, or has too few.
    """
    found = captions.read(folder)
    chosen = found.captions[offset : offset + count]
    if len(chosen) < count:
        raise ValueError(
            f"{found.listed} has {len(found.captions)} captions, and "
            f"{offset + count} are needed"
        )
    return list(chosen)


def folder_images(spec: DatasetSpec, rows: range) -> torch.Tensor:
    """Read some images of a folder, uint8 ``(N, 3, H, W)``.

    Raises:
        ValueError: If the folder cannot be read, has too few, or they differ in size.
    """
    import torch
    from PIL.Image import Resampling

    paths = captions.read(Path(spec.path)).images[spec.offset :]
    if len(paths) < spec.count:
        raise ValueError(
            f"{spec.path} holds {spec.offset + len(paths)} images, and "
            f"{spec.offset + spec.count} are needed"
        )
    images = []
    for path in paths[rows.start : rows.stop]:
        image = pictures.read(path)
        if spec.size:
            image = image.resize((spec.size, spec.size), Resampling.BICUBIC)
        images.append(torch.from_numpy(pictures.pixels(image)))
    if len({image.shape for image in images}) > 1:
        raise ValueError(f"images in {spec.path} differ in size; set `size`")
    return torch.stack(images)
