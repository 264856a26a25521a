"""Score runs on one data set by their features, in pairs where they have teachers."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clockwork_diffusion import provenance, random_weights, storage
from clockwork_diffusion.specs import parse
from clockwork_diffusion.steps._run import new_parser, run

if TYPE_CHECKING:
    import torch


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
    """Compute every score of every run, and write a file for each."""
    specs = {
        name: parse(ScoredRun, value, f"spec.{name}")
        for name, value in args.spec.items()
    }
    unknown = [path for path in args.output if path.stem not in specs]
    if unknown or len(args.output) != len(specs):
        raise ValueError(f"outputs do not match the runs {', '.join(specs)}")
    for output in args.output:
        storage.write_json(output, _score(output.stem, specs[output.stem], args))


def _score(name: str, spec: ScoredRun, args: Namespace) -> dict[str, object]:
    import dataclasses

    from clockwork_diffusion import metrics

    features = _of(args.features, name)
    frechet = _joined(features, "frechet")
    reference = metrics.merge(
        metrics.statistics(storage.read_tensors(path)[0]["frechet"])
        for path in args.reference
    )
    text = _joined(args.captions, "clip_text")
    cosines = metrics.cosines(_joined(features, "clip_image"), text)
    seeds = spec.seeds
    scores = {
        "frechet": metrics.frechet_score(frechet, reference, seeds),
        "clip": metrics.mean_score(cosines, seeds=seeds),
    }
    if spec.teacher:
        paired = _of(args.features, spec.teacher)
        images = _joined(_of(args.images, name), "images")
        teacher = _joined(_of(args.images, spec.teacher), "images")
        scores["psnr_to_teacher"] = metrics.mean_score(
            metrics.psnr(images, teacher), seeds=seeds
        )
        scores["rmse_to_teacher"] = metrics.mean_score(
            metrics.pixel_rmse(images, teacher), seeds=seeds
        )
        scores["frechet_minus_teacher"] = metrics.frechet_difference(
            frechet, _joined(paired, "frechet"), reference, seeds
        )
        others = metrics.cosines(_joined(paired, "clip_image"), text)
        scores["clip_minus_teacher"] = metrics.difference_score(
            cosines, others, seeds=seeds
        )
    _, notes = storage.read_tensors(features[0])
    return {
        "run": name,
        **random_weights.mark([*features, *args.reference, *args.captions]),
        "seed": spec.seed,
        "scores": {k: dataclasses.asdict(v) for k, v in scores.items()},
        "encoders": json.loads(notes["encoders"]),
        "versions": provenance.versions("torch", "torchmetrics", "open_clip_torch"),
    }


def _of(paths: Sequence[Path], name: str) -> list[Path]:
    """Return the shards of a run, ``…/<run>/<shard>.safetensors``."""
    found = [path for path in paths if path.parent.name == name]
    if not found:
        raise ValueError(f"no file of the run {name!r} is given")
    return found


def _joined(paths: Sequence[Path], name: str) -> torch.Tensor:
    import torch

    return torch.cat([storage.read_tensors(path)[0][name] for path in paths])


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
        ("--output", "a file per run, <run>.json"),
    ):
        parser.add_argument(name, required=True, nargs="+", type=Path, help=what)
    run(parser, main)
