"""Score a run's images from their features, with intervals and paired differences."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

from clockwork_diffusion import provenance, storage
from clockwork_diffusion.steps._run import new_parser, run


def main(args: Namespace) -> None:
    """Compute every score that the inputs allow."""
    import dataclasses

    import torch

    from clockwork_diffusion import metrics

    def joined(paths: list[Path], name: str) -> torch.Tensor:
        return torch.cat([storage.read_tensors(path)[0][name] for path in paths])

    frechet = joined(args.features, "frechet")
    reference = metrics.merge(
        metrics.statistics(storage.read_tensors(path)[0]["frechet"])
        for path in args.reference
    )
    text = joined(args.captions, "clip_text")
    cosines = metrics.cosines(joined(args.features, "clip_image"), text)
    scores = {
        "frechet": metrics.frechet_score(frechet, reference, args.seeds),
        "clip": metrics.mean_score(cosines, seeds=args.seeds),
    }
    if args.paired_features:
        images = joined(args.images, "images")
        teacher = joined(args.paired_images, "images")
        scores["psnr_to_teacher"] = metrics.mean_score(
            metrics.psnr(images, teacher), seeds=args.seeds
        )
        scores["rmse_to_teacher"] = metrics.mean_score(
            metrics.pixel_rmse(images, teacher), seeds=args.seeds
        )
        scores["frechet_minus_teacher"] = metrics.frechet_difference(
            frechet, joined(args.paired_features, "frechet"), reference, args.seeds
        )
        others = metrics.cosines(joined(args.paired_features, "clip_image"), text)
        scores["clip_minus_teacher"] = metrics.difference_score(
            cosines, others, seeds=args.seeds
        )
    _, notes = storage.read_tensors(args.features[0])
    storage.write_json(
        args.output,
        {
            "run": args.run,
            "seed": args.seed,
            "scores": {k: dataclasses.asdict(v) for k, v in scores.items()},
            "encoders": json.loads(notes["encoders"]),
            "versions": provenance.versions("torch", "torchmetrics", "open_clip_torch"),
        },
    )


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--run", required=True, help="id of the run")
    parser.add_argument("--seed", required=True, type=int, help="seed of the run")
    parser.add_argument(
        "--seeds", type=int, default=1, help="sampling seeds per prompt"
    )
    for name, what in (
        ("--features", "feature shards of the run"),
        ("--reference", "feature shards of the Fréchet distance's reference set"),
        ("--captions", "feature shards of the run's data set"),
        ("--images", "image shards of the run"),
    ):
        parser.add_argument(name, required=True, nargs="+", type=Path, help=what)
    for name, what in (
        ("--paired-features", "feature shards of the teacher's run"),
        ("--paired-images", "image shards of the teacher's run"),
    ):
        parser.add_argument(name, nargs="*", default=[], type=Path, help=what)
    parser.add_argument("--output", required=True, type=Path, help="JSON to write")
    run(parser, main)
