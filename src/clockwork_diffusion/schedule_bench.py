"""Measure schedules on a set of pairs, from fixed noise, once each.

A schedule says which timesteps are visited, and how much of the UNet runs at each. What
was measured lies on disk, a file per schedule, so that a killed search goes on where it
was. One schedule, of the whole UNet or of many steps, is the reference: its images are
what all others are compared with.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from clockwork_diffusion import (
    chunks,
    encoders,
    metrics,
    perceptual,
    sampling,
    storage,
    translation,
    translation_scores,
)
from clockwork_diffusion.depth_skip import levels_of
from clockwork_diffusion.level_passes import LevelPasses
from clockwork_diffusion.pair_sets import PairSet, read_images, read_set

log = logging.getLogger(__name__)

T = TypeVar("T")

TO_REFERENCE = "psnr_to_teacher"
"""PSNR to the reference's image of the same pair and noise."""


@dataclass(frozen=True)
class Plan:
    """A schedule.

    Attributes:
        timesteps: The timesteps to visit, descending.
        levels: The level that the UNet is kept to at each; the whole UNet if empty.
        clock: Runs the whole of that once in so many steps; 1 at every step.
        scheduler: A key of `clockwork_diffusion.translation.SCHEDULERS`.
        adaptor: What stands in for the rest, with a clock; a name.
    """

    timesteps: tuple[int, ...]
    levels: tuple[int, ...] = ()
    clock: int = 1
    scheduler: str = "ddim"
    adaptor: str = ""

    @property
    def name(self) -> str:
        """The schedule as a file's name: ``ddim_999-499-0_13x2-9x1``."""
        parts = [self.scheduler, "-".join(map(str, self.timesteps))]
        if self.levels:
            groups = itertools.groupby(self.levels)
            runs = (f"{level}x{len(list(steps))}" for level, steps in groups)
            parts.append("-".join(runs))
        if self.clock > 1:
            parts.append(f"clock{self.clock}{self.adaptor}")
        return "_".join(parts)


@dataclass(frozen=True)
class Model:
    """What translates and what scores.

    Attributes:
        translator: The model.
        spec: How it translates, but for what a schedule says.
        clip: Scores images of edits and of control.
        frechet: Scores sets of images against the targets; or None.
        adaptor: φ, for schedules with a clock; or None.
        lpips: Scores images against the targets; or None.
    """

    translator: translation.Translator
    spec: translation.TranslationSpec
    clip: encoders.ClipEncoder
    frechet: encoders.FrechetEncoder | None = None
    adaptor: Any = None
    lpips: perceptual.PerceptualEncoder | None = None

    @property
    def full(self) -> int:
        """The level of the whole UNet."""
        return levels_of(self.translator.pipe.unet)

    def at(self, plan: Plan) -> translation.TranslationSpec:
        """Return how it translates by a schedule."""
        return replace(
            self.spec,
            steps=len(plan.timesteps),
            timesteps=plan.timesteps,
            scheduler=plan.scheduler,
            clock=plan.clock,
        )


@dataclass(frozen=True)
class Kept:
    """Images of a reference on disk: made once, whatever they are compared with.

    Attributes:
        path: The file.
        marks: What decides the images; a file of others is written anew.
    """

    path: Path
    marks: str

    def images(self, make: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, float]:
        """Return the images, and how many seconds they took, whenever that was."""
        if self.path.is_file():
            values, notes = storage.read_tensors(self.path)
            if notes.get("marks") == self.marks:
                log.info("the reference's images are those of %s", self.path)
                return values["images"], float(values["seconds"])
        images, elapsed = _timed(make)
        seconds = torch.tensor(elapsed, dtype=torch.float64)
        values = {"images": images, "seconds": seconds}
        storage.write_tensors(self.path, values, {"marks": self.marks})
        return images, elapsed


class Bench:
    """Measures schedules on a set of pairs.

    Attributes:
        reference: The schedule that others are compared with.
    """

    def __init__(
        self,
        model: Model,
        pairs: PairSet,
        inputs: torch.Tensor,
        targets: torch.Tensor | None,
        reference: Plan,
        state: Path,
        *,
        seed: int,
        batch_size: int,
        shared_noise: bool = False,
        kept: Kept | None = None,
    ) -> None:
        """Describe the pairs, and encode their prompts.

        Args:
            model: What translates and what scores.
            pairs: The pairs.
            inputs: uint8, ``(N, 3, H, W)``.
            targets: uint8, the same shape; or None.
            reference: The schedule that others are compared with.
            state: Folder of what was measured.
            seed: Pair *i* starts from the same noise with every schedule.
            batch_size: Pairs per batch.
            shared_noise: All pairs start from the same noise, too.
            kept: Where the reference's images lie, for other benches too.

        Raises:
            ValueError: If the pairs are for another task, or have no targets to
                compare sets of images with.
        """
        if pairs.task != model.spec.task:
            raise ValueError(f"the set is for {pairs.task}, not for {model.spec.task}")
        if model.frechet is not None and targets is None:
            raise ValueError("a Fréchet distance needs a set with targets")
        self._model, self._batch_size = model, batch_size
        self._seeds = [
            sampling.image_seed(seed, 0 if shared_noise else index)
            for index in range(len(inputs))
        ]
        self._inputs, self._targets, self._state = inputs, targets, state
        self._prompts = model.translator.encode(pairs.prompts)
        self._described = translation_scores.describe(pairs, model.clip, inputs)
        self._reference = None
        if model.frechet is not None and targets is not None:
            features = encoders.frechet_features(model.frechet, targets)
            self._reference = metrics.statistics(features)
        self.reference = reference
        self._kept = kept
        self._measured: dict[Plan, dict[str, torch.Tensor]] = {}

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self._inputs)

    @property
    def count(self) -> int:
        """The number of schedules that were asked for."""
        return len(self._measured)

    def __call__(self, plan: Plan) -> dict[str, float]:
        """Return a schedule's metrics; see `scores` for their names."""
        values = self.values(plan)
        found = {name: float(each.mean()) for name, each in by_pair(values).items()}
        if self._reference is not None:
            generated = metrics.statistics(values["features"])
            found["frechet"] = metrics.frechet_distance(generated, self._reference)
        return found

    def scores(self, plan: Plan) -> dict[str, dict[str, Any]]:
        """Return the metrics that are means over pairs, with intervals.

        ``psnr_to_teacher`` (to the reference's images), ``psnr`` and ``lpips`` (to the
        targets), ``clip``, ``clip_image`` and ``clip_direction``, as far as the task
        and the model have them.
        """
        return {
            name: asdict(metrics.mean_score(each))
            for name, each in by_pair(self.values(plan)).items()
        }

    def pairs(self, plan: Plan) -> dict[str, list[float]]:
        """Return a schedule's values of each pair."""
        return {
            name: each.tolist() for name, each in by_pair(self.values(plan)).items()
        }

    def seconds(self, plan: Plan) -> float:
        """Return how long a schedule took to measure, whenever that was."""
        return float(self.values(plan)["seconds"])

    def gaps(self, plan: Plan, other: Plan) -> dict[str, list[float]]:
        """Return by how much a schedule's values exceed another's, of each pair."""
        mine, theirs = self.values(plan), self.values(other)
        return {
            name: (each - theirs[name]).tolist() for name, each in by_pair(mine).items()
        }

    def differences(self, plan: Plan, other: Plan) -> dict[str, dict[str, Any]]:
        """Return by how much a schedule's metrics exceed another's, pair by pair."""
        mine, theirs = self.values(plan), self.values(other)
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

    def values(self, plan: Plan) -> dict[str, torch.Tensor]:
        """Return what is known of each pair, measured now or before."""
        if plan in self._measured:
            return self._measured[plan]
        path = self._state / f"{plan.name}.safetensors"
        if path.is_file():
            values, _ = storage.read_tensors(path)
            log.info("%s was measured before", plan.name)
        else:
            values = self._measure(plan)
            storage.write_tensors(path, values)
            log.info("%s measured", plan.name)
        self._measured[plan] = values
        return values

    def judge(
        self, images: torch.Tensor, reference: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return what is known of each pair's image, given the reference's images."""
        features = encoders.clip_image_features(self._model.clip, images)
        values = translation_scores.of_features(features, self._described)
        values[TO_REFERENCE] = metrics.psnr(images, reference)
        if self._targets is not None:
            values["psnr"] = metrics.psnr(images, self._targets)
            if self._model.lpips is not None:
                values["lpips"] = perceptual.perceptual_distances(
                    self._model.lpips, images, self._targets
                )
        if self._model.frechet is not None:
            values["features"] = encoders.frechet_features(self._model.frechet, images)
        return values

    def translate(self, passes: sampling.UNetPasses, plan: Plan) -> torch.Tensor:
        """Return the images that a UNet's passes yield, from the noise of all runs."""
        translator, spec = self._model.translator, self._model.at(plan)
        shape = translator.noise_shape(self._inputs)
        parts = []
        for start in range(0, len(self._inputs), self._batch_size):
            part = slice(start, min(start + self._batch_size, len(self._inputs)))
            inputs = self._inputs[part]
            latents = translation.translate(
                translator,
                passes,
                inputs,
                self._prompts[part],
                sampling.initial_noise(self._seeds[part], shape),
                spec,
            )
            parts.append(translator.decode(latents, inputs))
        return torch.cat(parts)

    def _measure(self, plan: Plan) -> dict[str, torch.Tensor]:
        model = self._model
        levels = plan.levels or (model.full,) * len(plan.timesteps)
        adaptor = model.adaptor if plan.clock > 1 else None
        unet = model.translator.pipe.unet
        passes = LevelPasses(unet, levels, plan.timesteps, adaptor)
        itself = plan == self.reference
        # Before the clock starts: it is measured once for all.
        reference = None if itself else self.values(self.reference)["images"]
        made = self._kept.images if itself and self._kept is not None else _timed
        images, making = made(lambda: self.translate(passes, plan))
        compared = images if reference is None else reference
        values, judging = _timed(lambda: self.judge(images, compared))
        values["seconds"] = torch.tensor(making + judging, dtype=torch.float64)
        return {**values, "images": images} if itself else values


def open_bench(
    model: Model,
    path: Path,
    reference: Plan,
    state: Path,
    marks: Sequence[str],
    *,
    seed: int,
    batch_size: int,
    shared_noise: bool = False,
    references: Path | None = None,
) -> Bench:
    """Return a bench of a prepared set, whose images lie beside it.

    Args:
        model: What translates and what scores.
        path: The set, JSON.
        reference: The schedule that others are compared with.
        state: Folder of what was measured; emptied if that was something else.
        marks: What decides the images beside settings: checksums of models and code.
        seed: As of `Bench`.
        batch_size: As of `Bench`.
        shared_noise: As of `Bench`.
        references: Folder of references' images, which benches of the same model,
            settings and pairs share.

    Raises:
        ValueError: If the set is damaged, or does not fit the model.
    """
    pairs, images = read_set(path), path.with_suffix(".safetensors")
    inputs, targets = read_images(images, pairs)
    common = (*marks, storage.sha256(path), storage.sha256(images))
    described = f"{model.at(reference)} {reference.name} {seed} {shared_noise}"
    kept = None
    if references is not None:
        digest = storage.sha256_bytes(described.encode())[:12]
        kept = Kept(
            references / f"{path.stem}_{digest}.safetensors",
            storage.sha256_bytes("\n".join(common).encode()),
        )
    judges = (model.clip, model.frechet, model.lpips)
    own = (described, *(each.sha256 for each in judges if each is not None))
    chunks.open_state(state, "\n".join((*common, *own)), f"search, {state.name} pairs")
    return Bench(
        model,
        pairs,
        inputs,
        targets,
        reference,
        state,
        seed=seed,
        batch_size=batch_size,
        shared_noise=shared_noise,
        kept=kept,
    )


def _timed(make: Callable[[], T]) -> tuple[T, float]:
    """Return what is made, and how many seconds that took."""
    start = time.perf_counter()
    made = make()
    return made, time.perf_counter() - start


def by_pair(values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return those values that are one number per pair."""
    return {name: each for name, each in values.items() if each.ndim == 1}
