"""Sample one shard of a run's images, with or without a clock."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.data import datasets
from clockwork_experiments.random.marks import notes
from clockwork_experiments.run import run


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


def sample_images(
    spec: str,
    model: Path,
    prompts: Path,
    shard: int,
    shards: int,
    state: Path,
    output: Path,
    adaptor: Path | None = None,
    clip: Path | None = None,
) -> None:
    """Sample batch by batch; batches of a killed run are kept.

    Args:
        spec: A `RunSpec` as JSON.
        model: Pipeline folder.
        prompts: Prompts as JSON.
        shard: Index from 0.
        shards: Number of shards.
        state: Resumable state.
        output: Shard to write.
        adaptor: Folder of a learned adaptor.
        clip: Folder of open_clip; for an adaptor.
    """
    chosen = parse(RunSpec, spec)
    listed = datasets.read_prompts(prompts)
    rows = datasets.shard_rows(len(listed), shard, shards)

    import torch

    from clockwork_diffusion import depth_skip, encoding
    from clockwork_experiments.base import chunks
    from clockwork_experiments.generate import runs, text
    from clockwork_experiments.models import loading

    sampler = parse(text.SamplerSpec, chosen.sampler, "spec.sampler")
    device = loading.default_device()
    pipe = loading.load_pipeline(model, device)
    if chosen.level is not None:
        pipe.unet = depth_skip.depth_skip(pipe.unet, chosen.level)
    loaded = runs.load_passes(
        pipe,
        model,
        chosen.cut,
        scheduler=sampler.scheduler,
        steps=sampler.steps,
        kind=chosen.kind,
        adaptor=adaptor,
        clip=clip,
    )
    marks = [spec, str(rows), storage.sha256_folder(model)]
    marks += [provenance.code_sha256("steps.sample_images"), *loaded.checksums]
    encoded = encoding.encode_prompts(pipe, listed[rows.start : rows.stop], loaded.pool)

    def sample(part: slice) -> dict[str, torch.Tensor]:
        seeds = [
            text.image_seed(chosen.seed, rows.start + index)
            for index in range(part.start, part.stop)
        ]
        drawn = text.generators(seeds)
        latents = text.sample(pipe, encoded[part], drawn, sampler)
        return {"images": encoding.decode_latents(pipe, latents)}

    applied = runs.applied(
        pipe,
        sampler.phases,
        loaded.passes.adaptor,
        branch=chosen.branch,
        prompts=encoded,
    )
    with applied:
        tensors = chunks.in_chunks(
            len(rows),
            chosen.batch_size,
            sample,
            state,
            "\n".join(marks),
            "images",
            lambda row: text.described(
                listed[rows.start + row], chosen.seed, rows.start + row
            ),
        )
    marked = notes([model, clip])
    storage.write_tensors(output, tensors, {"spec": spec, **marked})
    chunks.discard(state)


if __name__ == "__main__":
    run(sample_images)
