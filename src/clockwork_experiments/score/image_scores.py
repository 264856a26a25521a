"""Score runs from shards of features and images, in pairs where they have teachers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from clockwork_diffusion import tokens
from clockwork_experiments.base import storage
from clockwork_experiments.data import shards
from clockwork_experiments.score import dead, metrics

JUDGED = ("as_captioned", "agreement")
"""What a judge finds of scenes, in percent of each image."""


class Scorer:
    """Scores runs on one data set from their shards, a few rows at a time."""

    def __init__(
        self,
        features: Sequence[Path],
        images: Sequence[Path],
        reference: Sequence[Path],
        captions: Sequence[Path],
    ) -> None:
        """Sum up the reference, and keep what several runs are compared with.

        Args:
            features: Shards of the runs and their teachers.
            images: Shards of the same.
            reference: Shards of features of the Fréchet distance's reference set.
            captions: Shards of features of the runs' data set.
        """
        self.features, self.images = features, images
        self.text = _rows(captions, "clip_text")
        self.lost = tokens.total(map(_lost, captions))
        self.references = _rows(reference, "frechet")
        self.reference = metrics.merge(
            map(metrics.statistics, self.references.blocks(shards.FEATURES))
        )
        self._frechet: dict[str, metrics.Jackknifed] = {}
        self._kernel: dict[str, metrics.Jackknifed] = {}
        self._cosines: dict[str, torch.Tensor] = {}

    def frechet(self, name: str, seeds: int) -> metrics.Jackknifed:
        """Return a run's Fréchet distance, with its replicates."""
        if name not in self._frechet:
            rows = _rows(shards_of(self.features, name), "frechet")
            prompts = _prompts(name, len(rows), seeds)
            blocks = rows.blocks(shards.FEATURES)
            self._frechet[name] = metrics.frechet_jackknife(
                blocks, self.reference, prompts
            )
        return self._frechet[name]

    def kernel(self, name: str, seeds: int) -> metrics.Jackknifed:
        """Return a run's squared kernel distance, with its replicates.

        All features are in memory at once, so it is not for sets of tens of thousands.
        """
        if name not in self._kernel:
            features = _whole(_rows(shards_of(self.features, name), "frechet"))
            prompts = _prompts(name, len(features), seeds)
            self._kernel[name] = metrics.kernel_jackknife(
                features, _whole(self.references), prompts
            )
        return self._kernel[name]

    def caption_errors(self, name: str, renderings: int) -> torch.Tensor:
        """Return each image's error to the mean of its own caption's renderings.

        Args:
            name: Id of the run.
            renderings: Number of renderings of each caption in the reference, which
                has all captions once, then all again.
        """
        reference = _whole(self.references).unflatten(0, (renderings, -1))
        features = _whole(_rows(shards_of(self.features, name), "frechet"))
        return metrics.caption_errors(features, reference.transpose(0, 1))

    def cosines(self, name: str) -> torch.Tensor:
        """Return each image's cosine with its caption."""
        if name not in self._cosines:
            rows = _rows(shards_of(self.features, name), "clip_image")
            blocks = shards.paired(rows, self.text, size=shards.FEATURES)
            self._cosines[name] = torch.cat([metrics.cosines(*pair) for pair in blocks])
        return self._cosines[name]

    def distances(self, name: str, teacher: str) -> dict[str, torch.Tensor]:
        """Return each image's distances to the teacher's."""
        measured = {
            "psnr_to_teacher": metrics.psnr,
            "rmse_to_teacher": metrics.pixel_rmse,
        }
        values: dict[str, list[torch.Tensor]] = {key: [] for key in measured}
        images, targets = (
            _rows(shards_of(self.images, each), "images") for each in (name, teacher)
        )
        for pair in shards.paired(images, targets, size=shards.IMAGES):
            for key, measure in measured.items():
                values[key].append(measure(*pair))
        return {key: torch.cat(parts) for key, parts in values.items()}

    def judged(self, name: str, key: str) -> torch.Tensor | None:
        """Return what a judge found of each image, in percent; None without one."""
        paths = shards_of(self.features, name)
        with storage.opened(sorted(paths)[0]) as file:
            known = set(file.keys())
        if key not in known:
            return None
        return _whole(_rows(paths, key))

    def scores(
        self, name: str, seeds: int, teacher: str, renderings: int = 0
    ) -> tuple[dict[str, metrics.Score], dict[str, torch.Tensor]]:
        """Return every score of a run, and those of each image.

        Args:
            name: Id of the run.
            seeds: Sampling seeds per prompt.
            teacher: Id of the run that it is compared with; none if empty.
            renderings: Number of renderings of each of its captions in the reference;
                0 if that shows something else.
        """
        cosines = self.cosines(name)
        scores = {
            "frechet": self.frechet(name, seeds).score(),
            "clip": metrics.mean_score(cosines, seeds=seeds),
        }
        values = {"clip": cosines}
        if renderings:
            scores["kernel"] = self.kernel(name, seeds).score()
            values["caption_error"] = self.caption_errors(name, renderings)
            scores["caption_error"] = metrics.mean_score(
                values["caption_error"], seeds=seeds
            )
        for key in JUDGED:
            found = self.judged(name, key)
            if found is not None:
                values[key] = found
                scores[key] = metrics.mean_score(found, seeds=seeds)
        if not teacher:
            return scores, values
        values |= self.distances(name, teacher)
        for key in [each for each in values if each not in scores]:
            scores[key] = metrics.mean_score(values[key], seeds=seeds)
        gap = self.frechet(name, seeds) - self.frechet(teacher, seeds)
        scores["frechet_minus_teacher"] = gap.score()
        scores["clip_minus_teacher"] = metrics.difference_score(
            cosines, self.cosines(teacher), seeds=seeds
        )
        others = {key: self.judged(teacher, key) for key in JUDGED}
        if renderings:
            kernel = self.kernel(name, seeds) - self.kernel(teacher, seeds)
            scores["kernel_minus_teacher"] = kernel.score()
            others["caption_error"] = self.caption_errors(teacher, renderings)
        for key, other in others.items():
            if key in values and other is not None:
                scores[f"{key}_minus_teacher"] = metrics.difference_score(
                    values[key], other, seeds=seeds
                )
        return scores, values


def rows_of(values: torch.Tensor, seeds: int) -> dict[str, torch.Tensor]:
    """Return the prompt and the sampling seed of each image, from 0."""
    index, prompts = torch.arange(len(values)), len(values) // seeds
    return {"prompt": index % prompts, "seed": index // prompts}


def shards_of(paths: Sequence[Path], name: str) -> list[Path]:
    """Return the shards of a run, ``…/<run>/<shard>.safetensors``."""
    found = [path for path in paths if path.parent.name == name]
    if not found:
        raise ValueError(f"no file of the run {name!r} is given")
    return found


def _rows(paths: Sequence[Path], name: str) -> shards.Rows:
    """Return a tensor's rows in the order of the prompts.

    Shards are consecutive pieces of what `prepare_prompts` writes, which repeats
    all prompts for each sampling seed: in the shards' order rows come seed by seed.
    """
    return shards.Rows(sorted(paths, key=lambda path: path.stem), name)


def _whole(rows: shards.Rows) -> torch.Tensor:
    return torch.cat(list(rows.blocks(shards.FEATURES)))


def _lost(path: Path) -> tokens.Lost:
    """Return what the captions of a shard lost in CLIP's tokenizer."""
    return tokens.Lost(**json.loads(notes_of(path, "captions")))


def counts_of(path: Path, name: str) -> dead.Counts:
    """Return how many images of a shard hold nothing."""
    return dead.noted({dead.KEY: notes_of(path, dead.KEY)})[name]


def notes_of(path: Path, name: str) -> str:
    """Return what a shard of features says of itself."""
    with storage.opened(path) as file:
        known: str | None = (file.metadata() or {}).get(name)
    if known is None:
        raise ValueError(
            f"{path} does not say of which {name} it is; delete it to make it again"
        )
    return known


def _prompts(name: str, images: int, seeds: int) -> int:
    if images % seeds:
        raise ValueError(
            f"run {name!r}: {images} images are not {seeds} seeds of the same prompts"
        )
    return images // seeds
