"""Write one shard of a set's own images: the reference of the Fréchet distance."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.data import captions, datasets, pictures
from clockwork_experiments.run import new_parser, run

if TYPE_CHECKING:
    import torch


def main(args: Namespace) -> None:
    """Render or read the images."""
    spec = parse(datasets.DatasetSpec, args.spec)
    rows = datasets.shard_rows(spec.count, args.shard, args.shards)
    storage.write_tensors(args.output, {"images": _images(spec, rows)})


def _images(spec: datasets.DatasetSpec, rows: range) -> torch.Tensor:
    if spec.source == "scenes":
        from clockwork_experiments.mini.data import scene_images

        return scene_images(spec.split, len(rows), spec.offset + rows.start)
    import torch
    from PIL.Image import Resampling

    paths = captions.read(Path(spec.path)).images[spec.offset :]
    if len(paths) < spec.count:
        raise ValueError(
            f"{spec.path} holds {spec.offset + len(paths)} images, and "
            f"{spec.offset + spec.count} are needed"
        )
    images = []
    for path in paths[rows.start : rows.stop]:
        image = pictures.read(path)
        if spec.size:
            image = image.resize((spec.size, spec.size), Resampling.BICUBIC)
        images.append(torch.from_numpy(pictures.pixels(image)))
    if len({image.shape for image in images}) > 1:
        raise ValueError(f"images in {spec.path} differ in size; set `size`")
    return torch.stack(images)


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="DatasetSpec as JSON")
    parser.add_argument("--shard", required=True, type=int, help="index from 0")
    parser.add_argument("--shards", required=True, type=int, help="number of shards")
    parser.add_argument("--output", required=True, type=Path, help="shard to write")
    run(parser, main)
