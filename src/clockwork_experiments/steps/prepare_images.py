"""Write one shard of a set's own images: the reference of the Fréchet distance."""

from __future__ import annotations

from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.data import datasets
from clockwork_experiments.run import run


def prepare_images(
    spec: datasets.DatasetSpec, shard: int, shards: int, output: Path
) -> None:
    """Render or read the images.

    Args:
        spec: The set.
        shard: Index from 0.
        shards: Number of shards.
        output: Shard to write.
    """
    rows = datasets.shard_rows(spec.images, shard, shards)
    if spec.source == "scenes" and spec.redrawn:
        from clockwork_experiments.world.captioned import redrawn

        images = redrawn(spec.split, spec.count, spec.offset, spec.redrawn, rows)
    elif spec.source == "scenes":
        from clockwork_experiments.world.data import scene_images

        images = scene_images(spec.split, len(rows), spec.offset + rows.start)
    else:
        images = datasets.folder_images(spec, rows)
    storage.write_tensors(output, {"images": images})


if __name__ == "__main__":
    run(prepare_images)
