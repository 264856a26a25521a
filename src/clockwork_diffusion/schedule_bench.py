"""Measure schedules of levels on a set of pairs, from fixed noise, once each.

What was measured lies on disk, a file per schedule, so that a killed search goes on
where it was. The full model's images are what all others are compared with.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from clockwork_diffusion import (
    encoders,
    metrics,
    sampling,
    storage,
    translation,
    translation_scores,
)
from clockwork_diffusion.depth_search import Schedule
from clockwork_diffusion.depth_skip import levels_of
from clockwork_diffusion.level_passes import LevelPasses
from clockwork_diffusion.pair_sets import PairSet

log = logging.getLogger(__name__)

TO_FULL = "psnr_to_teacher"
"""PSNR to the full model's image of the same pair and noise."""


@dataclass(frozen=True)
class Model:
    """What translates and what scores.

    Attributes:
        translator: The model.
        spec: How it translates; its clock must be 1.
        clip: Scores images of edits and of control.
        frechet: Scores sets of images against the targets; or None.
    """

    translator: translation.Translator
    spec: translation.TranslationSpec
    clip: encoders.ClipEncoder
    frechet: encoders.FrechetEncoder | None = None

    def __post_init__(self) -> None:
        """Refuse clocks: what a light step runs has no level."""
        if self.spec.clock != 1:
            raise ValueError(f"clock {self.spec.clock}: levels are searched without")


class Bench:
    """Measures schedules on a set of pairs.

    Attributes:
        full: The schedule of the full model.
    """

    def __init__(
        self,
        model: Model,
        pairs: PairSet,
        inputs: torch.Tensor,
        targets: torch.Tensor | None,
        seed: int,
        batch_size: int,
        state: Path,
    ) -> None:
        """Describe the pairs, and encode their prompts.

        Args:
            model: What translates and what scores.
            pairs: The pairs.
            inputs: uint8, ``(N, 3, H, W)``.
            targets: uint8, the same shape; or None.
            seed: Pair *i* starts from the same noise with every schedule.
            batch_size: Pairs per batch.
            state: Folder of what was measured.

        Raises:
            ValueError: If the pairs are for another task, or have no targets to
                compare sets of images with.
        """
        if pairs.task != model.spec.task:
            raise ValueError(f"the set is for {pairs.task}, not for {model.spec.task}")
        if model.frechet is not None and targets is None:
            raise ValueError("a Fréchet distance needs a set with targets")
        self._model, self._seed, self._batch_size = model, seed, batch_size
        self._inputs, self._targets, self._state = inputs, targets, state
        self._prompts = model.translator.encode(pairs.prompts)
        self._described = translation_scores.describe(pairs, model.clip, inputs)
        self._reference = None
        if model.frechet is not None and targets is not None:
            features = encoders.frechet_features(model.frechet, targets)
            self._reference = metrics.statistics(features)
        unet = model.translator.pipe.unet
        self.full: Schedule = (levels_of(unet),) * model.spec.steps
        self._measured: dict[Schedule, dict[str, torch.Tensor]] = {}

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self._inputs)

    @property
    def count(self) -> int:
        """The number of schedules that were asked for."""
        return len(self._measured)

    def __call__(self, schedule: Schedule) -> dict[str, float]:
        """Return a schedule's metrics; see `scores` for their names."""
        values = self.values(schedule)
        found = {name: float(each.mean()) for name, each in by_pair(values).items()}
        if self._reference is not None:
            generated = metrics.statistics(values["features"])
            found["frechet"] = metrics.frechet_distance(generated, self._reference)
        return found

    def scores(self, schedule: Schedule) -> dict[str, dict[str, Any]]:
        """Return the metrics that are means over pairs, with intervals.

        ``psnr_to_teacher`` (to the full model's images), ``psnr`` (to the targets),
        ``clip``, ``clip_image`` and ``clip_direction``, as far as the task has them.
        """
        return {
            name: asdict(metrics.mean_score(each))
            for name, each in by_pair(self.values(schedule)).items()
        }

    def gaps(self, schedule: Schedule, other: Schedule) -> dict[str, list[float]]:
        """Return by how much a schedule's values exceed another's, of each pair."""
        mine, theirs = self.values(schedule), self.values(other)
        return {
            name: (each - theirs[name]).tolist() for name, each in by_pair(mine).items()
        }

    def differences(
        self, schedule: Schedule, other: Schedule
    ) -> dict[str, dict[str, Any]]:
        """Return by how much a schedule's metrics exceed another's, pair by pair."""
        mine, theirs = self.values(schedule), self.values(other)
        found = {
            name: asdict(metrics.difference_score(each, theirs[name]))
            for name, each in by_pair(mine).items()
        }
        if self._reference is not None:
            gap = metrics.frechet_difference(
                mine["features"], theirs["features"], self._reference
            )
            found["frechet"] = asdict(gap)
        return found

    def values(self, schedule: Schedule) -> dict[str, torch.Tensor]:
        """Return what is known of each pair, measured now or before."""
        if schedule in self._measured:
            return self._measured[schedule]
        path = self._state / f"{name_of(schedule)}.safetensors"
        if path.is_file():
            values, _ = storage.read_tensors(path)
            log.info("levels %s were measured before", name_of(schedule))
        else:
            values = self._measure(schedule)
            storage.write_tensors(path, values)
            log.info("levels %s measured", name_of(schedule))
        self._measured[schedule] = values
        return values

    def judge(
        self, images: torch.Tensor, whole: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return what is known of each pair's image, given the full model's images."""
        features = encoders.clip_image_features(self._model.clip, images)
        values = translation_scores.of_features(features, self._described)
        values[TO_FULL] = metrics.psnr(images, whole)
        if self._targets is not None:
            values["psnr"] = metrics.psnr(images, self._targets)
        if self._model.frechet is not None:
            values["features"] = encoders.frechet_features(self._model.frechet, images)
        return values

    def translate(self, passes: sampling.UNetPasses) -> torch.Tensor:
        """Return the images that a UNet's passes yield, from the noise of all runs."""
        translator, spec = self._model.translator, self._model.spec
        shape = translator.noise_shape(self._inputs)
        parts = []
        for start in range(0, len(self._inputs), self._batch_size):
            part = slice(start, min(start + self._batch_size, len(self._inputs)))
            indices = range(part.start, part.stop)
            seeds = [sampling.image_seed(self._seed, index) for index in indices]
            inputs = self._inputs[part]
            latents = translation.translate(
                translator,
                passes,
                inputs,
                self._prompts[part],
                sampling.initial_noise(seeds, shape),
                spec,
            )
            parts.append(translator.decode(latents, inputs))
        return torch.cat(parts)

    def _measure(self, schedule: Schedule) -> dict[str, torch.Tensor]:
        visited = self._model.spec.visited
        unet = self._model.translator.pipe.unet
        images = self.translate(LevelPasses(unet, schedule, visited))
        if schedule == self.full:
            return {**self.judge(images, images), "images": images}
        return self.judge(images, self.values(self.full)["images"])


def name_of(schedule: Sequence[int]) -> str:
    """Return a schedule as a file's name: ``13x2-9x8``."""
    return "-".join(
        f"{level}x{len(list(steps))}" for level, steps in itertools.groupby(schedule)
    )


def by_pair(values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return those values that are one number per pair."""
    return {name: each for name, each in values.items() if each.ndim == 1}
