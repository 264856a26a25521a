"""Record the teacher's trajectories of one shard of prompts."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.data import datasets
from clockwork_experiments.run import new_parser, run


def main(args: Namespace) -> None:
    """Record batch by batch; batches of a killed run are kept."""
    from clockwork_diffusion import encoding
    from clockwork_experiments.base import chunks
    from clockwork_experiments.models import encoders, loading
    from clockwork_experiments.train import trajectories

    spec = parse(trajectories.TrajectorySpec, args.spec)
    prompts = datasets.read_prompts(args.prompts)
    rows = datasets.shard_rows(len(prompts), args.shard, args.shards)
    device = loading.default_device()
    pipe = loading.load_pipeline(args.model, device)
    clip = encoders.load_clip(args.clip, device)
    encoded = encoding.encode_prompts(
        pipe,
        prompts[rows.start : rows.stop],
        lambda texts: encoders.clip_text_features(clip, list(texts)),
    )
    clean, images = None, ""
    if spec.source in trajectories.OF_IMAGES:
        if args.images is None:
            raise ValueError(f"source {spec.source!r} needs the images of the prompts")
        pixels = storage.read_tensors(args.images)[0]["images"]
        if len(pixels) != len(rows):
            raise ValueError(
                f"{args.images} holds {len(pixels)} images, not one for each of "
                f"{len(rows)} prompts"
            )
        clean = encoding.encode_images(pipe.vae, pixels, batch_size=spec.batch_size)
        images = storage.sha256(args.images)
    teacher = storage.sha256_folder(args.model)
    code = provenance.code_sha256("steps.sample_trajectories")
    tensors = chunks.in_chunks(
        len(rows),
        spec.batch_size,
        lambda part: trajectories.unroll(
            pipe,
            encoded[part],
            spec,
            rows.start + part.start,
            None if clean is None else clean[part],
        ),
        args.state,
        f"{args.spec}\n{teacher}\n{clip.sha256}\n{code}\n{rows}\n{images}",
        "trajectories",
    )
    tensors |= trajectories.constants(pipe, encoded, spec)
    storage.write_tensors(args.output, tensors, {"teacher": teacher, "spec": args.spec})
    chunks.discard(args.state)


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="TrajectorySpec as JSON")
    parser.add_argument("--model", required=True, type=Path, help="pipeline folder")
    parser.add_argument("--clip", required=True, type=Path, help="open_clip folder")
    parser.add_argument("--prompts", required=True, type=Path, help="prompts as JSON")
    parser.add_argument("--images", type=Path, help="the shard's images, if needed")
    parser.add_argument("--shard", required=True, type=int, help="index from 0")
    parser.add_argument("--shards", required=True, type=int, help="number of shards")
    parser.add_argument("--state", required=True, type=Path, help="resumable state")
    parser.add_argument("--output", required=True, type=Path, help="shard to write")
    run(parser, main)
