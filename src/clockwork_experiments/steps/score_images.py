"""Score runs on one data set by their features, in pairs where they have teachers."""

from __future__ import annotations

import dataclasses
import json
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.data import shards
from clockwork_experiments.random import marks
from clockwork_experiments.run import new_parser, run
from clockwork_experiments.score import dead

if TYPE_CHECKING:
    import torch

    from clockwork_diffusion.tokens import Lost
    from clockwork_experiments.score import metrics


@dataclass(frozen=True)
class ScoredRun:
    """A run to score.

    Attributes:
        seed: Seed of the run, for the record.
        seeds: Sampling seeds per prompt.
        teacher: Id of the run whose images it is compared with; none if empty.
    """

    seed: int
    seeds: int = 1
    teacher: str = ""


def main(args: Namespace) -> None:
    """Compute every score of every run; write them, and the value of each image."""
    specs = {
        name: parse(ScoredRun, value, f"spec.{name}")
        for name, value in args.spec.items()
    }
    unknown = [path for path in args.output if path.stem not in specs]
    if unknown or len(args.output) != len(specs):
        raise ValueError(f"outputs do not match the runs {', '.join(specs)}")
    scorer = Scorer(args)
    for output in args.output:
        name, spec = output.stem, specs[output.stem]
        features = _of(args.features, name)
        encoders = json.loads(_notes(features[0], "encoders"))
        counts = sum((_counts(path, name) for path in features), dead.Counts())
        scores, values = scorer.scores(name, spec)
        made_with = [*features, *args.reference, *args.captions]
        storage.write_tensors(
            output.with_suffix(".safetensors"),
            {**_rows_of(values["clip"], spec.seeds), **values},
            marks.notes(made_with),
        )
        storage.write_json(
            output,
            {
                "run": name,
                "seed": spec.seed,
                "scores": {k: dataclasses.asdict(v) for k, v in scores.items()},
                dead.KEY: dataclasses.asdict(counts),
                "encoders": encoders,
                "captions": dataclasses.asdict(scorer.lost),
                "versions": provenance.versions(
                    "torch", "torchmetrics", "open_clip_torch"
                ),
                **marks.mark(made_with),
            },
        )


class Scorer:
    """Scores runs on one data set from their shards, a few rows at a time."""

    def __init__(self, args: Namespace) -> None:
        """Sum up the reference, and keep what several runs are compared with."""
        from clockwork_diffusion import tokens
        from clockwork_experiments.score import metrics

        self.args = args
        self.text = _rows(args.captions, "clip_text")
        self.lost = tokens.total(map(_lost, args.captions))
        reference = _rows(args.reference, "frechet")
        self.reference = metrics.merge(
            map(metrics.statistics, reference.blocks(shards.FEATURES))
        )
        self._frechet: dict[str, metrics.Jackknifed] = {}
        self._cosines: dict[str, torch.Tensor] = {}

    def frechet(self, name: str, seeds: int) -> metrics.Jackknifed:
        """Return a run's Fréchet distance, with its replicates."""
        from clockwork_experiments.score import metrics

        if name not in self._frechet:
            rows = _rows(_of(self.args.features, name), "frechet")
            prompts = _prompts(name, len(rows), seeds)
            blocks = rows.blocks(shards.FEATURES)
            self._frechet[name] = metrics.frechet_jackknife(
                blocks, self.reference, prompts
            )
        return self._frechet[name]

    def cosines(self, name: str) -> torch.Tensor:
        """Return each image's cosine with its caption."""
        import torch

        from clockwork_experiments.score import metrics

        if name not in self._cosines:
            rows = _rows(_of(self.args.features, name), "clip_image")
            blocks = shards.paired(rows, self.text, size=shards.FEATURES)
            self._cosines[name] = torch.cat([metrics.cosines(*pair) for pair in blocks])
        return self._cosines[name]

    def distances(self, name: str, teacher: str) -> dict[str, torch.Tensor]:
        """Return each image's distances to the teacher's."""
        import torch

        from clockwork_experiments.score import metrics

        measured = {
            "psnr_to_teacher": metrics.psnr,
            "rmse_to_teacher": metrics.pixel_rmse,
        }
        values: dict[str, list[torch.Tensor]] = {key: [] for key in measured}
        images, targets = (
            _rows(_of(self.args.images, each), "images") for each in (name, teacher)
        )
        for pair in shards.paired(images, targets, size=shards.IMAGES):
            for key, measure in measured.items():
                values[key].append(measure(*pair))
        return {key: torch.cat(parts) for key, parts in values.items()}

    def scores(
        self, name: str, spec: ScoredRun
    ) -> tuple[dict[str, metrics.Score], dict[str, torch.Tensor]]:
        """Return every score of a run, and those of each image."""
        from clockwork_experiments.score import metrics

        seeds, cosines = spec.seeds, self.cosines(name)
        scores = {
            "frechet": self.frechet(name, seeds).score(),
            "clip": metrics.mean_score(cosines, seeds=seeds),
        }
        values = {"clip": cosines}
        if not spec.teacher:
            return scores, values
        values |= self.distances(name, spec.teacher)
        for key in [each for each in values if each not in scores]:
            scores[key] = metrics.mean_score(values[key], seeds=seeds)
        gap = self.frechet(name, seeds) - self.frechet(spec.teacher, seeds)
        scores["frechet_minus_teacher"] = gap.score()
        scores["clip_minus_teacher"] = metrics.difference_score(
            cosines, self.cosines(spec.teacher), seeds=seeds
        )
        return scores, values


def _rows_of(values: torch.Tensor, seeds: int) -> dict[str, torch.Tensor]:
    """Return the prompt and the sampling seed of each image, from 0."""
    import torch

    index, prompts = torch.arange(len(values)), len(values) // seeds
    return {"prompt": index % prompts, "seed": index // prompts}


def _of(paths: Sequence[Path], name: str) -> list[Path]:
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


def _lost(path: Path) -> Lost:
    """Return what the captions of a shard lost in CLIP's tokenizer."""
    from clockwork_diffusion.tokens import Lost

    return Lost(**json.loads(_notes(path, "captions")))


def _counts(path: Path, name: str) -> dead.Counts:
    """Return how many images of a shard hold nothing."""
    return dead.noted({dead.KEY: _notes(path, dead.KEY)})[name]


def _notes(path: Path, name: str) -> str:
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


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument(
        "--spec", required=True, type=json.loads, help="ScoredRun by run, as JSON"
    )
    for name, what in (
        ("--features", "feature shards of the runs and their teachers"),
        ("--images", "image shards of the same"),
        ("--reference", "feature shards of the Fréchet distance's reference set"),
        ("--captions", "feature shards of the runs' data set"),
        ("--output", "a file per run, <run>.json; its images' values beside it"),
    ):
        parser.add_argument(name, required=True, nargs="+", type=Path, help=what)
    run(parser, main)
