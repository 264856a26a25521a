"""Extract what the scores need from shards of images, and from captions if given."""

from __future__ import annotations

import dataclasses
import json
from argparse import Namespace
from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.data import datasets
from clockwork_experiments.random import marks
from clockwork_experiments.run import new_parser, run
from clockwork_experiments.score import dead


def main(args: Namespace) -> None:
    """Run the encoders over the shards, one after the other."""
    if len(args.output) != len(args.images):
        raise ValueError(
            f"{len(args.output)} outputs do not match {len(args.images)} shards"
        )
    if args.prompts is not None and len(args.images) > 1:
        raise ValueError(f"prompts go with one shard of images, not {len(args.images)}")

    from clockwork_diffusion import tokens
    from clockwork_experiments.models import encoders, loading

    device = loading.default_device()
    clip = encoders.load_clip(args.clip, device)
    frechet = encoders.load_frechet(args.frechet_kind, args.frechet, device)
    made_with = {
        "clip": {"sha256": clip.sha256, "preprocessing": clip.preprocessing},
        "frechet": {
            "sha256": frechet.sha256,
            "preprocessing": f"bicubic to {args.size}×{args.size}; " * bool(args.size)
            + frechet.preprocessing,
        },
    }
    for path, output in zip(args.images, args.output, strict=True):
        images = storage.read_tensors(path)[0]["images"]
        name = path.parent.name
        notes = {
            "encoders": json.dumps(made_with),
            **marks.notes([path, args.clip, args.frechet]),
            **dead.notes({name: dead.count([images], name)}),
        }
        scored = encoders.resized(images, args.size) if args.size else images
        tensors = {
            "clip_image": encoders.clip_image_features(clip, images),
            "frechet": encoders.frechet_features(frechet, scored),
        }
        if args.prompts is not None:
            prompts = datasets.read_prompts(args.prompts)
            rows = datasets.shard_rows(len(prompts), args.shard, args.shards)
            some = prompts[rows.start : rows.stop]
            tensors["clip_text"] = encoders.clip_text_features(clip, some)
            lost = tokens.count_lost(clip.tokenizer, some)
            notes["captions"] = json.dumps(dataclasses.asdict(lost))
        storage.write_tensors(output, tensors, notes)


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument(
        "--images", required=True, nargs="+", type=Path, help="image shards"
    )
    parser.add_argument("--clip", required=True, type=Path, help="open_clip folder")
    parser.add_argument("--frechet", required=True, type=Path, help="its network")
    parser.add_argument("--frechet-kind", required=True, help="kind of that network")
    parser.add_argument(
        "--size", type=int, default=0, help="side before the Fréchet network; 0 keeps"
    )
    parser.add_argument("--prompts", type=Path, help="captions of a data set")
    parser.add_argument("--shard", type=int, default=0, help="index from 0")
    parser.add_argument("--shards", type=int, default=1, help="number of shards")
    parser.add_argument(
        "--output", required=True, nargs="+", type=Path, help="shards to write"
    )
    run(parser, main)
