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
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from clockwork_diffusion import (
    chunks,
    encoders,
    metrics,
    perceptual,
    sampling,
    shards,
    storage,
    translation,
    translation_scores,
)
from clockwork_diffusion.depth_skip import levels_of
from clockwork_diffusion.level_passes import LevelPasses
from clockwork_diffusion.pair_sets import PairSet, image_rows, read_set

log = logging.getLogger(__name__)

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

    def images(
        self, shape: tuple[int, ...], make: Callable[[], Iterator[torch.Tensor]]
    ) -> tuple[shards.Rows, float]:
        """Return the images, and how many seconds they took, whenever that was.

        Args:
            shape: Of all images.
            make: Makes them, some at a time.
        """
        if self._there():
            log.info("the reference's images are those of %s", self.path)
        else:
            start = time.perf_counter()

            def elapsed() -> Iterator[torch.Tensor]:
                yield torch.tensor([time.perf_counter() - start], dtype=torch.float64)

            # By name, and so the seconds after the images.
            made = {
                "images": shards.Parts("U8", shape, make()),
                "seconds": shards.Parts("F64", (1,), elapsed()),
            }
            shards.write_rows(self.path, made, {"marks": self.marks})
        seconds = shards.Rows([self.path], "seconds")
        return shards.Rows([self.path], "images"), float(seconds[0])

    def _there(self) -> bool:
        if not self.path.is_file():
            return False
        with storage.opened(self.path) as file:
            return bool((file.metadata() or {}).get("marks") == self.marks)


class Bench:
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
        reference: Plan,
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
            kept: Where the reference's images lie, for other benches too; in the
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
            sampling.image_seed(seed, 0 if shared_noise else index)
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
        self._measured: dict[Plan, dict[str, torch.Tensor]] = {}
        self._distances: dict[Plan, float] = {}

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self._inputs)

    @property
    def count(self) -> int:
        """The number of schedules that were asked for."""
        return len(self._measured)

    def __call__(self, plan: Plan) -> dict[str, float]:
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

    def scores(self, plan: Plan) -> dict[str, dict[str, Any]]:
        """Return the metrics that are means over pairs, with intervals.

        ``psnr_to_teacher`` (to the reference's images), ``psnr`` and ``lpips`` (to the
        targets), ``clip``, ``clip_image`` and ``clip_direction``, as far as the task
        and the model have them.
        """
        return {
            name: asdict(metrics.mean_score(each))
            for name, each in self.values(plan).items()
        }

    def pairs(self, plan: Plan) -> dict[str, list[float]]:
        """Return a schedule's values of each pair."""
        return {name: each.tolist() for name, each in self.values(plan).items()}

    def seconds(self, plan: Plan) -> float:
        """Return how long a schedule took to measure, whenever that was."""
        return float(self._stored(plan)["seconds"])

    def gaps(self, plan: Plan, other: Plan) -> dict[str, list[float]]:
        """Return by how much a schedule's values exceed another's, of each pair."""
        mine, theirs = self.values(plan), self.values(other)
        return {name: (each - theirs[name]).tolist() for name, each in mine.items()}

    def differences(self, plan: Plan, other: Plan) -> dict[str, dict[str, Any]]:
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

    def values(self, plan: Plan) -> dict[str, torch.Tensor]:
        """Return a schedule's values of each pair, measured now or before."""
        if plan not in self._measured:
            self._measured[plan] = by_pair(self._stored(plan))
        return self._measured[plan]

    def images(self, passes: sampling.UNetPasses, plan: Plan) -> Iterator[torch.Tensor]:
        """Yield the images that a UNet's passes make, from the noise of all runs.

        Some at a time, uint8 ``(n, 3, H, W)``, in the order of the pairs.
        """
        translator, spec = self._model.translator, self._model.at(plan)
        shape = translator.noise_shape(self._inputs[:1])
        size = self._batch_size
        together = max(shards.IMAGES // size, 1) * size
        for first in range(0, len(self), together):
            last = min(first + together, len(self))
            prompts = translator.encode(self._prompts[first:last])
            parts = []
            for start in range(first, last, size):
                end = min(start + size, last)
                inputs = self._inputs[start:end]
                latents = translation.translate(
                    translator,
                    passes,
                    inputs,
                    prompts[start - first : end - first],
                    sampling.initial_noise(self._seeds[start:end], shape),
                    spec,
                )
                parts.append(translator.decode(latents, inputs))
            yield torch.cat(parts)

    def judge(
        self, images: Iterable[torch.Tensor], reference: shards.Rows | torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return what is known of each pair's image, given the reference's images.

        Args:
            images: Of all pairs, some at a time.
            reference: uint8, ``(N, 3, H, W)``.
        """
        model, parts = self._model, defaultdict[str, list[torch.Tensor]](list)
        start = 0
        for some in images:
            rows = slice(start, start + len(some))
            start = rows.stop
            parts["clip_features"].append(
                encoders.clip_image_features(model.clip, some)
            )
            parts[TO_REFERENCE].append(metrics.psnr(some, reference[rows]))
            if self._targets is not None:
                targets = self._targets[rows]
                parts["psnr"].append(metrics.psnr(some, targets))
                if model.lpips is not None:
                    parts["lpips"].append(
                        perceptual.perceptual_distances(model.lpips, some, targets)
                    )
            if model.frechet is not None:
                parts["features"].append(encoders.frechet_features(model.frechet, some))
        values = {name: torch.cat(each) for name, each in parts.items()}
        shown = values.pop("clip_features")
        return {**translation_scores.of_features(shown, self._described), **values}

    def _features(self, plan: Plan) -> torch.Tensor:
        """Return the Fréchet network's features of a schedule's images."""
        return self._stored(plan)["features"]

    def _stored(self, plan: Plan) -> dict[str, torch.Tensor]:
        """Return all that was measured of a schedule, from the disk."""
        path = self._state / f"{plan.name}.safetensors"
        if not path.is_file():
            storage.write_tensors(path, self._measure(plan))
            log.info("%s measured", plan.name)
        elif plan not in self._measured:
            log.info("%s was measured before", plan.name)
        return storage.read_tensors(path)[0]

    def _measure(self, plan: Plan) -> dict[str, torch.Tensor]:
        # Before the clock starts: it is made once for all.
        reference, making = self._kept.images(
            self._inputs.shape, lambda: self._made(self.reference)
        )
        itself = plan == self.reference
        start = time.perf_counter()
        images = reference.blocks(shards.IMAGES) if itself else self._made(plan)
        values = self.judge(images, reference)
        elapsed = time.perf_counter() - start + (making if itself else 0)
        return {**values, "seconds": torch.tensor(elapsed, dtype=torch.float64)}

    def _made(self, plan: Plan) -> Iterator[torch.Tensor]:
        model = self._model
        levels = plan.levels or (model.full,) * len(plan.timesteps)
        adaptor = model.adaptor if plan.clock > 1 else None
        unet = model.translator.pipe.unet
        return self.images(LevelPasses(unet, levels, plan.timesteps, adaptor), plan)


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


def by_pair(values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return those values that are one number per pair."""
    return {name: each for name, each in values.items() if each.ndim == 1}
