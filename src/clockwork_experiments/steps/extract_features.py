"""Extract what the scores need from shards of images, and from captions if given."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.data import datasets
from clockwork_experiments.random import marks
from clockwork_experiments.run import run
from clockwork_experiments.score import dead


def extract_features(
    images: list[Path],
    clip: Path,
    frechet: Path,
    frechet_kind: str,
    output: list[Path],
    size: int = 0,
    prompts: Path | None = None,
    judge: Path | None = None,
    captioned: Path | None = None,
    shard: int = 0,
    shards: int = 1,
) -> None:
    """Run the encoders over the shards, one after the other.

    Args:
        images: Shards of images.
        clip: Folder of an open_clip model.
        frechet: Folder or file of the Fréchet distance's network.
        frechet_kind: Kind of that network.
        output: Shards to write.
        size: Side before the Fréchet network; 0 keeps it.
        prompts: Captions of a data set, JSON; they go with one shard of images.
        judge: Folder of the judge of scenes; it goes with one shard of images.
        captioned: Captions that it judges by, JSON.
        shard: Which one, from 0.
        shards: Number of shards of the set.
    """
    if len(output) != len(images):
        raise ValueError(f"{len(output)} outputs do not match {len(images)} shards")
    if (prompts or judge) is not None and len(images) > 1:
        raise ValueError(
            f"prompts and a judge go with one shard of images, not {len(images)}"
        )

    from clockwork_diffusion import tokens
    from clockwork_experiments.models import encoders, loading
    from clockwork_experiments.world import judge as judging
    from clockwork_experiments.world import verdicts

    device = loading.default_device()
    encoder = encoders.load_clip(clip, device)
    network = encoders.load_frechet(frechet_kind, frechet, device)
    made_with = {
        "clip": {"sha256": encoder.sha256, "preprocessing": encoder.preprocessing},
        "frechet": {
            "sha256": network.sha256,
            "preprocessing": f"bicubic to {size}×{size}; " * bool(size)
            + network.preprocessing,
        },
    }
    for path, written in zip(images, output, strict=True):
        pixels = storage.read_tensors(path)[0]["images"]
        name = path.parent.name
        notes = {
            "encoders": json.dumps(made_with),
            **marks.notes([path, clip, frechet]),
            **dead.notes({name: dead.count([pixels], name)}),
        }
        scored = encoders.resized(pixels, size) if size else pixels
        tensors = {
            "clip_image": encoders.clip_image_features(encoder, pixels),
            "frechet": encoders.frechet_features(network, scored),
        }
        if prompts is not None:
            some = datasets.shard_prompts(prompts, shard, shards)
            tensors["clip_text"] = encoders.clip_text_features(encoder, some)
            lost = tokens.count_lost(encoder.tokenizer, some)
            notes["captions"] = json.dumps(dataclasses.asdict(lost))
        if judge is not None and captioned is not None:
            said = datasets.shard_prompts(captioned, shard, shards)
            if len(said) != len(pixels):
                raise ValueError(
                    f"{len(pixels)} images are not the {len(said)} of the shard"
                )
            tensors.update(verdicts.judged(judging.load(judge), said, pixels))
            made_with["judge"] = {"sha256": storage.sha256_folder(judge)}
            notes["encoders"] = json.dumps(made_with)
        storage.write_tensors(written, tensors, notes)


if __name__ == "__main__":
    run(extract_features)
