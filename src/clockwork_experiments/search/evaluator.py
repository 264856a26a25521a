"""Measure schedules on a set of pairs, from fixed noise, once each.

A schedule says which timesteps are visited, and how much of the UNet runs at each. What
was measured lies on disk, a file per schedule, so that a killed search goes on where it
was. One schedule, of the whole UNet or of many steps, is the reference: its images are
what all others are compared with. Images are made and read some at a time, so that
memory does not grow with their number.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from clockwork_diffusion.clock import Clock
from clockwork_diffusion.depth_skip import levels_of
from clockwork_diffusion.encoding import to_bytes
from clockwork_diffusion.hook import sampling_with
from clockwork_diffusion.level_schedule import LevelPasses
from clockwork_experiments.base import chunks, lease, storage
from clockwork_experiments.data import shards
from clockwork_experiments.data.pair_sets import PairSet, image_rows, read_set
from clockwork_experiments.generate import text
from clockwork_experiments.generate.translate import TranslationSpec, Translator
from clockwork_experiments.models import encoders, perceptual
from clockwork_experiments.score import dead, metrics, translation_scores

log = logging.getLogger(__name__)

NAME = 120
"""Longest name of a schedule; file systems allow 255 bytes, suffixes included."""

TO_REFERENCE = "psnr_to_teacher"
"""PSNR to the reference's image of the same pair and noise."""


@dataclass(frozen=True)
class SamplingSchedule:
    """A schedule.

    Attributes:
        timesteps: The timesteps to visit, descending.
        levels: The level that the UNet is kept to at each; the whole UNet if empty.
        clock: Runs the whole of that once in so many steps; 1 at every step.
        scheduler: A key of `clockwork_experiments.generate.translate.SOLVERS`.
        adaptor: What stands in for the rest, with a clock; a name.
    """

    timesteps: tuple[int, ...]
    levels: tuple[int, ...] = ()
    clock: int = 1
    scheduler: str = "ddim"
    adaptor: str = ""

    @property
    def name(self) -> str:
        """The schedule as a file's name: ``ddim_999-499-0_13x2-9x1``.

        Of one with many steps the end is replaced by a checksum of all.
        """
        parts = [self.scheduler, "-".join(map(str, self.timesteps))]
        if self.levels:
            groups = itertools.groupby(self.levels)
            runs = (f"{level}x{len(list(steps))}" for level, steps in groups)
            parts.append("-".join(runs))
        if self.clock > 1:
            parts.append(f"clock{self.clock}{self.adaptor}")
        name = "_".join(parts)
        if len(name) <= NAME:
            return name
        return f"{name[: NAME - 17]}_{storage.sha256_bytes(name.encode())[:16]}"


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

    translator: Translator
    spec: TranslationSpec
    clip: encoders.ClipEncoder
    frechet: encoders.FrechetEncoder | None = None
    adaptor: Any = None
    lpips: perceptual.PerceptualEncoder | None = None

    @property
    def full(self) -> int:
        """The level of the whole UNet."""
        return levels_of(self.translator.pipe.unet)

    def at(self, plan: SamplingSchedule) -> TranslationSpec:
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

    def images(
        self, shape: tuple[int, ...], size: int, make: Callable[[slice], torch.Tensor]
    ) -> tuple[shards.Rows, float]:
        """Return the images, and how many seconds they took, whenever that was.

        Args:
            shape: Of all images.
            size: How many to make together; those that a killed process made are kept.
            make: Makes the images of some rows, float32 from 0 to 1.

        Raises:
            ValueError: If they are dead: nothing would differ from them.
        """
        with lease.held(self.path, wait=True):
            if self._there():
                log.info("the reference's images are those of %s", self.path)
            else:
                self._make(shape, size, make)
        seconds_taken = shards.Rows([self.path], "seconds")
        images = shards.Rows([self.path], "images")
        bytes_of = map(to_bytes, images.blocks(shards.IMAGES))
        counts = dead.count(bytes_of, "reference")
        dead.refuse({"reference": counts}, "nothing is compared with them")
        return images, float(seconds_taken[0])

    def _make(
        self, shape: tuple[int, ...], size: int, make: Callable[[slice], torch.Tensor]
    ) -> None:
        state, taken = self.path.with_suffix(".chunks"), []

        def timed(rows: slice) -> dict[str, torch.Tensor]:
            start = time.perf_counter()
            return {"images": make(rows), "seconds": _since(start)}

        def parts() -> Iterator[torch.Tensor]:
            for chunk in chunks.each_chunk(
                shape[0], size, timed, state, self.marks, "reference"
            ):
                taken.append(chunk["seconds"])
                yield chunk["images"]

        def seconds() -> Iterator[torch.Tensor]:
            yield torch.cat(taken).sum()[None]

        # Written by name, and so the seconds after the images.
        made = {
            "images": shards.Parts("F32", shape, parts()),
            "seconds": shards.Parts("F64", (1,), seconds()),
        }
        shards.write_rows(self.path, made, {"marks": self.marks})
        chunks.discard(state)

    def _there(self) -> bool:
        if not self.path.is_file():
            return False
        with storage.opened(self.path) as file:
            return bool((file.metadata() or {}).get("marks") == self.marks)


class Evaluator:
    """Measures schedules on a set of pairs.

    Attributes:
        reference: The schedule that others are compared with.
    """

    def __init__(
        self,
        model: Model,
        pairs: PairSet,
        inputs: shards.Rows,
        targets: shards.Rows | None,
        reference: SamplingSchedule,
        state: Path,
        *,
        seed: int,
        batch_size: int,
        shared_noise: bool = False,
        kept: Kept | None = None,
    ) -> None:
        """Describe the pairs.

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
            kept: Where the reference's images lie, for other evaluators too; in the
                state if left out.

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
            text.image_seed(seed, 0 if shared_noise else index)
            for index in range(len(inputs))
        ]
        self._inputs, self._targets, self._state = inputs, targets, state
        self._prompts = pairs.prompts
        self._described = translation_scores.describe(
            pairs, model.clip, inputs.blocks(shards.IMAGES)
        )
        self._reference = None
        if model.frechet is not None and targets is not None:
            self._reference = metrics.merge(
                metrics.statistics(encoders.frechet_features(model.frechet, part))
                for part in targets.blocks(shards.IMAGES)
            )
        self.reference = reference
        self._kept = kept or Kept(state / "reference.safetensors", "")
        self._measured: dict[SamplingSchedule, dict[str, torch.Tensor]] = {}
        self._distances: dict[SamplingSchedule, float] = {}

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self._inputs)

    @property
    def count(self) -> int:
        """The number of schedules that were asked for."""
        return len(self._measured)

    def __call__(self, plan: SamplingSchedule) -> dict[str, float]:
        """Return a schedule's metrics; see `scores` for their names."""
        found = {name: float(each.mean()) for name, each in self.values(plan).items()}
        if self._reference is not None:
            if plan not in self._distances:
                generated = metrics.statistics(self._features(plan))
                self._distances[plan] = metrics.frechet_distance(
                    generated, self._reference
                )
            found["frechet"] = self._distances[plan]
        return found

    def scores(self, plan: SamplingSchedule) -> dict[str, dict[str, Any]]:
        """Return the metrics that are means over pairs, with intervals.

        ``psnr_to_teacher`` (to the reference's images), ``psnr`` and ``lpips`` (to the
        targets), ``clip``, ``clip_image`` and ``clip_direction``, as far as the task
        and the model have them.
        """
        return {
            name: asdict(metrics.mean_score(each))
            for name, each in self.values(plan).items()
        }

    def pairs(self, plan: SamplingSchedule) -> dict[str, list[float]]:
        """Return a schedule's values of each pair."""
        return {name: each.tolist() for name, each in self.values(plan).items()}

    def seconds(self, plan: SamplingSchedule) -> float:
        """Return how long a schedule took to measure, whenever that was."""
        return float(self._stored(plan)["seconds"])

    def gaps(
        self, plan: SamplingSchedule, other: SamplingSchedule
    ) -> dict[str, list[float]]:
        """Return by how much a schedule's values exceed another's, of each pair."""
        mine, theirs = self.values(plan), self.values(other)
        return {name: (each - theirs[name]).tolist() for name, each in mine.items()}

    def differences(
        self, plan: SamplingSchedule, other: SamplingSchedule
    ) -> dict[str, dict[str, Any]]:
        """Return by how much a schedule's metrics exceed another's, pair by pair."""
        mine, theirs = self.values(plan), self.values(other)
        found = {
            name: asdict(metrics.difference_score(each, theirs[name]))
            for name, each in mine.items()
        }
        if self._reference is not None:
            gap = metrics.frechet_difference(
                self._features(plan), self._features(other), self._reference
            )
            found["frechet"] = asdict(gap)
        return found

    def values(self, plan: SamplingSchedule) -> dict[str, torch.Tensor]:
        """Return a schedule's values of each pair, measured now or before."""
        if plan not in self._measured:
            self._measured[plan] = by_pair(self._stored(plan))
        return self._measured[plan]

    def translate(self, plan: SamplingSchedule, rows: slice) -> torch.Tensor:
        """Return the images that the model makes of some pairs by a schedule.

        From the noise of all runs; float32 from 0 to 1, ``(n, 3, H, W)``, as the
        official search compares them.
        """
        model = self._model
        translator, spec = model.translator, model.at(plan)
        unet = translator.pipe.unet
        applied: AbstractContextManager[Any] = nullcontext()
        if plan.levels or plan.clock > 1:
            levels = plan.levels or (model.full,) * len(plan.timesteps)
            adaptor = model.adaptor if plan.clock > 1 else None
            passes = LevelPasses(unet, levels, plan.timesteps, adaptor)
            applied = sampling_with(translator.pipe, passes, Clock(plan.clock))
        parts = []
        with applied:
            for start in range(rows.start, rows.stop, self._batch_size):
                batch = slice(start, min(start + self._batch_size, rows.stop))
                inputs, prompts = self._inputs[batch], self._prompts[batch]
                seeds = self._seeds[batch]
                latents = translator.translate(inputs, prompts, seeds, spec)
                parts.append(translator.decode_pixels(latents, inputs).float())
        return torch.cat(parts)

    def judge(
        self, images: torch.Tensor, reference: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return what is known of each pair's image, given the reference's images.

        Args:
            images: As `translate` returns them, of all pairs.
            reference: The same of the reference.
        """
        return self._complete(self._look(images, reference, slice(0, len(self))))

    def _look(
        self, images: torch.Tensor, reference: torch.Tensor, rows: slice
    ) -> dict[str, torch.Tensor]:
        """Return what some pairs' images tell by themselves."""
        model, shown = self._model, to_bytes(images)
        values = {
            "clip_features": encoders.clip_image_features(model.clip, shown),
            TO_REFERENCE: metrics.psnr(images, reference),
        }
        if self._targets is not None:
            targets = self._targets[rows]
            values["psnr"] = metrics.psnr(images, targets.float() / 255)
            if model.lpips is not None:
                values["lpips"] = perceptual.perceptual_distances(
                    model.lpips, shown, targets
                )
        if model.frechet is not None:
            values["features"] = encoders.frechet_features(model.frechet, shown)
        return values

    def _complete(self, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Put what CLIP says of all pairs in the place of its features."""
        shown = values.pop("clip_features")
        return {**translation_scores.of_features(shown, self._described), **values}

    def _features(self, plan: SamplingSchedule) -> torch.Tensor:
        """Return the Fréchet network's features of a schedule's images."""
        return self._stored(plan)["features"]

    def _stored(self, plan: SamplingSchedule) -> dict[str, torch.Tensor]:
        """Return all that was measured of a schedule, from the disk."""
        path = self._state / f"{plan.name}.safetensors"
        if not path.is_file():
            parts = path.with_suffix(".chunks")
            storage.write_tensors(path, self._measure(plan, parts))
            chunks.discard(parts)
            log.info("%s measured", plan.name)
        elif plan not in self._measured:
            log.info("%s was measured before", plan.name)
        return storage.read_tensors(path)[0]

    def _measure(self, plan: SamplingSchedule, state: Path) -> dict[str, torch.Tensor]:
        # Whole batches.
        together = max(shards.IMAGES // self._batch_size, 1) * self._batch_size
        reference, making = self._kept.images(
            self._inputs.shape,
            together,
            lambda rows: self.translate(self.reference, rows),
        )
        itself = plan == self.reference

        def look(rows: slice) -> dict[str, torch.Tensor]:
            start = time.perf_counter()
            shown = reference[rows]
            images = shown if itself else self.translate(plan, rows)
            return {**self._look(images, shown, rows), "seconds": _since(start)}

        values = chunks.in_chunks(len(self), together, look, state, "", plan.name)
        seconds = values.pop("seconds").sum() + (making if itself else 0)
        return {**self._complete(values), "seconds": seconds}


def open_evaluator(
    model: Model,
    path: Path,
    reference: SamplingSchedule,
    state: Path,
    marks: Sequence[str],
    *,
    seed: int,
    batch_size: int,
    shared_noise: bool = False,
    references: Path | None = None,
) -> Evaluator:
    """Return an evaluator of a prepared set, whose images lie beside it.

    Args:
        model: What translates and what scores.
        path: The set, JSON.
        reference: The schedule that others are compared with.
        state: Folder of what was measured; emptied if that was something else.
        marks: What decides the images beside settings: checksums of models and code.
        seed: As of `Evaluator`.
        batch_size: As of `Evaluator`.
        shared_noise: As of `Evaluator`.
        references: Folder of references' images, which evaluators of the same model,
            settings and pairs share.

    Raises:
        ValueError: If the set is damaged, or does not fit the model.
    """
    pairs, images = read_set(path), path.with_suffix(".safetensors")
    inputs, targets = image_rows(images, pairs)
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
    return Evaluator(
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


def _since(start: float) -> torch.Tensor:
    """Return the seconds since then, ``(1,)``."""
    return torch.tensor([time.perf_counter() - start], dtype=torch.float64)


def by_pair(values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return those values that are one number per pair."""
    return {name: each for name, each in values.items() if each.ndim == 1}
