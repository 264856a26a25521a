"""What an adaptor learns from: the teacher, and its trajectories on disk or to come."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open

from clockwork_diffusion import encoding
from clockwork_diffusion.trajectories import Trajectories
from clockwork_diffusion.unet import SplitUNet
from clockwork_experiments.base import storage
from clockwork_experiments.data.datasets import read_prompts
from clockwork_experiments.data.shards import Rows
from clockwork_experiments.models import encoders, loading
from clockwork_experiments.train.trajectories import (
    OF_IMAGES,
    FreshTrajectories,
    LatentTrajectories,
    TrajectorySpec,
    loop_of,
    read_trajectories,
)


class Sampled(NamedTuple):
    """How trajectories were sampled.

    Attributes:
        scheduler: Name of the scheduler.
        loop: The loop whose steps they show, of `contract.LOOPS`.
    """

    scheduler: str
    loop: str


class Teacher:
    """A pipeline that is loaded when it is asked for."""

    def __init__(self, folder: Path, cut: str, device: torch.device) -> None:
        """Take the checksum of a pipeline's folder.

        Args:
            folder: The folder.
            cut: Where its UNet is split.
            device: Where to put it.
        """
        self.folder, self.cut, self.device = folder, cut, device
        self.sha256 = storage.sha256_folder(folder)

    @cached_property
    def pipe(self) -> Any:
        """The pipeline."""
        return loading.load_pipeline(self.folder, self.device)

    def split(self) -> SplitUNet:
        """Return the pipeline's UNet."""
        return SplitUNet(self.pipe.unet, self.cut)

    def read(self, paths: Sequence[Path]) -> Trajectories | LatentTrajectories:
        """Read shards of the teacher's trajectories, as `read_trajectories` does."""
        return read_trajectories(paths, self.sha256, self.split)

    def read_each(
        self, paths: Sequence[Path]
    ) -> list[Trajectories | LatentTrajectories]:
        """Read those of several numbers of steps, each in a folder of its own."""
        by_folder = itertools.groupby(sorted(paths), key=lambda path: path.parent)
        return [self.read(list(shards)) for _, shards in by_folder]

    def fresh(
        self,
        spec: TrajectorySpec,
        prompts: Path | None,
        clip: Path | None,
        images: Sequence[Path],
        subset: int,
    ) -> tuple[FreshTrajectories, list[str]]:
        """Return trajectories to be recorded in each epoch, and what they are made of.

        Args:
            spec: What to record.
            prompts: The prompts, JSON.
            clip: Folder of the CLIP that pools them.
            images: Shards of their images, if the trajectories start from images.
            subset: Prompts per epoch; 0 takes all.

        Raises:
            ValueError: If the prompts or images are missing, or do not fit together.
        """
        if prompts is None or clip is None:
            raise ValueError(
                "fresh trajectories need prompts and the CLIP that pools them"
            )
        pipe, encoder = self.pipe, encoders.load_clip(clip, self.device)
        listed = read_prompts(prompts)
        made_of = [encoder.sha256, self.sha256, storage.sha256(prompts)]
        clean = None
        if spec.source in OF_IMAGES:
            clean = self._encoding(spec, images, len(listed))
            made_of += [storage.sha256(path) for path in images]
        fresh = FreshTrajectories(
            pipe,
            lambda texts: encoding.encode_prompts(
                pipe,
                texts,
                lambda more: encoders.clip_text_features(encoder, list(more)),
            ),
            listed,
            spec,
            subset,
            clean,
        )
        return fresh, made_of

    def _encoding(
        self, spec: TrajectorySpec, images: Sequence[Path], count: int
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return what maps prompts' places to the latents of their images."""
        if not images:
            raise ValueError(f"source {spec.source!r} needs the images of the prompts")
        rows = Rows(images, "images")
        if len(rows) != count:
            raise ValueError(
                f"{len(rows)} images are not one for each of {count} prompts"
            )

        def clean(places: torch.Tensor) -> torch.Tensor:
            pixels = torch.stack([rows[place] for place in places.tolist()])
            return encoding.encode_images(self.pipe.vae, pixels)

        return clean


def sampled_by(
    shards: Sequence[Path], cut: str, recorded: TrajectorySpec | None = None
) -> Sampled:
    """Return the scheduler of trajectories, and the loop whose steps they are.

    Args:
        shards: Their shards.
        cut: Where the adaptor works.
        recorded: The trajectories that have no shards, if there are such.

    Raises:
        ValueError: If a shard does not say, or was recorded at another cut, or with
            another scheduler or in another loop than the first; the message names it.
    """
    found: dict[Path | str, Sampled] = {}
    if recorded is not None:
        if recorded.cut != cut:
            raise ValueError(
                f"the trajectories are of cut {recorded.cut!r}, not of {cut!r}"
            )
        found["the epochs' trajectories"] = Sampled(
            recorded.sampler.scheduler, loop_of(recorded.source)
        )
    for path in shards:
        found[path] = own = _noted(path, cut)
        first, sampled = next(iter(found.items()))
        if own.scheduler != sampled.scheduler:
            raise ValueError(
                f"{path} was sampled with {own.scheduler!r}, "
                f"and {first} with {sampled.scheduler!r}"
            )
        if own.loop != sampled.loop:
            raise ValueError(
                f"{path} was recorded in {own.loop}, and {first} in {sampled.loop}"
            )
    return next(iter(found.values()))


def _noted(path: Path, cut: str) -> Sampled:
    """Return what a shard says of itself."""
    with safe_open(str(path), framework="pt") as file:
        known = json.loads((file.metadata() or {}).get("spec", "{}"))
    if "sampler" not in known or "cut" not in known:
        raise ValueError(f"{path} does not say how its trajectories were sampled")
    if known["cut"] != cut:
        raise ValueError(f"{path} was recorded at cut {known['cut']!r}, not at {cut!r}")
    loop = loop_of(known.get("source", "unroll"))
    return Sampled(known["sampler"]["scheduler"], loop)
