"""Record the teacher's trajectories of one shard of prompts."""

from __future__ import annotations

from pathlib import Path

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.data import datasets
from clockwork_experiments.run import run


def sample_trajectories(
    spec: str,
    model: Path,
    clip: Path,
    prompts: Path,
    shard: int,
    shards: int,
    state: Path,
    output: Path,
    images: Path | None = None,
) -> None:
    """Record batch by batch; batches of a killed run are kept.

    Args:
        spec: A `TrajectorySpec` as JSON.
        model: Pipeline folder.
        clip: Folder of an open_clip model.
        prompts: Prompts as JSON.
        shard: Index from 0.
        shards: Number of shards.
        state: Resumable state.
        output: Shard to write.
        images: The shard's images, if needed.
    """
    from clockwork_diffusion import encoding
    from clockwork_experiments.base import chunks
    from clockwork_experiments.models import encoders, loading
    from clockwork_experiments.train import trajectories

    chosen = parse(trajectories.TrajectorySpec, spec)
    listed = datasets.read_prompts(prompts)
    rows = datasets.shard_rows(len(listed), shard, shards)
    device = loading.default_device()
    pipe = loading.load_pipeline(model, device)
    encoder = encoders.load_clip(clip, device)
    encoded = encoding.encode_prompts(
        pipe,
        listed[rows.start : rows.stop],
        lambda texts: encoders.clip_text_features(encoder, list(texts)),
    )
    clean, made_of = None, ""
    if chosen.source in trajectories.OF_IMAGES:
        if images is None:
            raise ValueError(
                f"source {chosen.source!r} needs the images of the prompts"
            )
        pixels = storage.read_tensors(images)[0]["images"]
        if len(pixels) != len(rows):
            raise ValueError(
                f"{images} holds {len(pixels)} images, not one for each of "
                f"{len(rows)} prompts"
            )
        clean = encoding.encode_images(pipe.vae, pixels, batch_size=chosen.batch_size)
        made_of = storage.sha256(images)
    teacher = storage.sha256_folder(model)
    code = provenance.code_sha256("steps.sample_trajectories")
    tensors = chunks.in_chunks(
        len(rows),
        chosen.batch_size,
        lambda part: trajectories.unroll(
            pipe,
            encoded[part],
            chosen,
            rows.start + part.start,
            None if clean is None else clean[part],
        ),
        state,
        f"{spec}\n{teacher}\n{encoder.sha256}\n{code}\n{rows}\n{made_of}",
        "trajectories",
    )
    tensors |= trajectories.constants(pipe, encoded, chosen)
    storage.write_tensors(output, tensors, {"teacher": teacher, "spec": spec})
    chunks.discard(state)


if __name__ == "__main__":
    run(sample_trajectories)
