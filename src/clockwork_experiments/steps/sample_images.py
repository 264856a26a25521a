"""Sample one shard of a run's images, with or without a clock."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.data import datasets
from clockwork_experiments.random.marks import notes
from clockwork_experiments.run import new_parser, run


@dataclass(frozen=True)
class RunSpec:
    """How a run samples.

    Attributes:
        sampler: A `clockwork_experiments.generate.text.SamplerSpec`, as plain data.
        seed: Seed of the run; image *i* starts from the same noise in every run of it.
        batch_size: Prompts per batch; has no influence on the images.
        cut: Where the UNet is split.
        kind: Kind of an adaptor without weights, which has no file.
        branch: Reuse features at this skip connection (DeepCache's branch) instead of
            using an adaptor.
        level: Keep the UNet down to this level only; the whole UNet if left out.
    """

    sampler: dict[str, object]
    seed: int
    batch_size: int
    cut: str = "stage1"
    kind: str = ""
    branch: int | None = None
    level: int | None = None

    def __post_init__(self) -> None:
        """Reject runs with two kinds of light pass, or a branch below its level."""
        if self.kind and self.branch is not None:
            raise ValueError("give either a kind or a branch, not both")
        if self.level is not None and self.branch is not None:
            raise ValueError("give either a level or a branch, not both")


def main(args: Namespace) -> None:
    """Sample batch by batch; batches of a killed run are kept."""
    spec = parse(RunSpec, args.spec)
    prompts = datasets.read_prompts(args.prompts)
    rows = datasets.shard_rows(len(prompts), args.shard, args.shards)

    import torch

    from clockwork_diffusion import depth_skip, encoding
    from clockwork_experiments.base import chunks
    from clockwork_experiments.generate import runs, text
    from clockwork_experiments.models import loading

    sampler = parse(text.SamplerSpec, spec.sampler, "spec.sampler")
    device = loading.default_device()
    pipe = loading.load_pipeline(args.model, device)
    if spec.level is not None:
        pipe.unet = depth_skip.depth_skip(pipe.unet, spec.level)
    loaded = runs.load_passes(
        pipe,
        args.model,
        spec.cut,
        scheduler=sampler.scheduler,
        steps=sampler.steps,
        kind=spec.kind,
        adaptor=args.adaptor,
        clip=args.clip,
    )
    marks = [args.spec, str(rows), storage.sha256_folder(args.model)]
    marks += [provenance.code_sha256("steps.sample_images"), *loaded.checksums]
    encoded = encoding.encode_prompts(
        pipe, prompts[rows.start : rows.stop], loaded.pool
    )

    def sample(part: slice) -> dict[str, torch.Tensor]:
        seeds = [
            text.image_seed(spec.seed, rows.start + index)
            for index in range(part.start, part.stop)
        ]
        drawn = text.generators(seeds)
        latents = text.sample(pipe, encoded[part], drawn, sampler)
        return {"images": encoding.decode_latents(pipe, latents)}

    adaptor, branch = loaded.passes.adaptor, spec.branch
    with runs.applied(pipe, sampler.phases, adaptor, branch=branch, prompts=encoded):
        tensors = chunks.in_chunks(
            len(rows),
            spec.batch_size,
            sample,
            args.state,
            "\n".join(marks),
            "images",
            lambda row: text.described(
                prompts[rows.start + row], spec.seed, rows.start + row
            ),
        )
    marked = notes([args.model, args.clip])
    storage.write_tensors(args.output, tensors, {"spec": args.spec, **marked})
    chunks.discard(args.state)


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="RunSpec as JSON")
    parser.add_argument("--model", required=True, type=Path, help="pipeline folder")
    parser.add_argument("--adaptor", type=Path, help="folder of a learned adaptor")
    parser.add_argument("--clip", type=Path, help="open_clip folder; for an adaptor")
    parser.add_argument("--prompts", required=True, type=Path, help="prompts as JSON")
    parser.add_argument("--shard", required=True, type=int, help="index from 0")
    parser.add_argument("--shards", required=True, type=int, help="number of shards")
    parser.add_argument("--state", required=True, type=Path, help="resumable state")
    parser.add_argument("--output", required=True, type=Path, help="shard to write")
    run(parser, main)
