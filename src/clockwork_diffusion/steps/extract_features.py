"""Extract what the scores need from one shard of images, and from captions if given."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

from clockwork_diffusion import datasets, storage
from clockwork_diffusion.steps._run import new_parser, run


def main(args: Namespace) -> None:
    """Run the encoders over the shard."""
    from clockwork_diffusion import encoders, loading

    images, _ = storage.read_tensors(args.images)
    device = loading.default_device()
    clip = encoders.load_clip(args.clip, device)
    frechet = encoders.load_frechet(args.frechet_kind, args.frechet, device)
    scored = images["images"]
    if args.size:
        scored = encoders.resized(scored, args.size)
    tensors = {
        "clip_image": encoders.clip_image_features(clip, images["images"]),
        "frechet": encoders.frechet_features(frechet, scored),
    }
    if args.prompts is not None:
        prompts = datasets.read_prompts(args.prompts)
        rows = datasets.shard_rows(len(prompts), args.shard, args.shards)
        tensors["clip_text"] = encoders.clip_text_features(
            clip, prompts[rows.start : rows.stop]
        )
    made_with = {
        "clip": {"sha256": clip.sha256, "preprocessing": clip.preprocessing},
        "frechet": {
            "sha256": frechet.sha256,
            "preprocessing": f"bicubic to {args.size}×{args.size}; " * bool(args.size)
            + frechet.preprocessing,
        },
    }
    storage.write_tensors(args.output, tensors, {"encoders": json.dumps(made_with)})


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--images", required=True, type=Path, help="image shard")
    parser.add_argument("--clip", required=True, type=Path, help="open_clip folder")
    parser.add_argument("--frechet", required=True, type=Path, help="its network")
    parser.add_argument("--frechet-kind", required=True, help="kind of that network")
    parser.add_argument(
        "--size", type=int, default=0, help="side before the Fréchet network; 0 keeps"
    )
    parser.add_argument("--prompts", type=Path, help="captions of a data set")
    parser.add_argument("--shard", type=int, default=0, help="index from 0")
    parser.add_argument("--shards", type=int, default=1, help="number of shards")
    parser.add_argument("--output", required=True, type=Path, help="shard to write")
    run(parser, main)
