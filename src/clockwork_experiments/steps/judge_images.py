"""Judge what share of generated scenes is as captioned, and hangs together."""

from __future__ import annotations

from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.data.datasets import DatasetSpec
from clockwork_experiments.run import run


def judge_images(
    images: Path, judge: Path, dataset: DatasetSpec, title: str, output: Path
) -> None:
    """Judge the generated images, and renderings of the same scenes.

    Args:
        images: Shard with the tensor ``images``.
        judge: The judge's folder.
        dataset: The scenes that the images were captioned with.
        title: Heading of the table.
        output: JSON to write; the table beside it.
    """
    from dataclasses import asdict

    from clockwork_experiments.base import provenance
    from clockwork_experiments.world import captions, verdicts
    from clockwork_experiments.world import judge as judging
    from clockwork_experiments.world.data import scene_images

    tensors, _ = storage.read_tensors(images)
    if "images" not in tensors:
        raise ValueError(f"{images} lacks the tensor 'images'")
    said = captions.captions_of(dataset.split, dataset.count, dataset.offset)
    net = judging.load(judge)
    of_images = verdicts.shares(said, judging.look(net, tensors["images"]))
    # What the judge itself gets right bounds what it can credit to a model.
    rendered = scene_images(dataset.split, dataset.count, dataset.offset)
    of_renderings = verdicts.shares(said, judging.look(net, rendered))
    storage.write_json(
        output,
        {
            "images": {name: asdict(score) for name, score in of_images.items()},
            "renderings": {
                name: asdict(score) for name, score in of_renderings.items()
            },
            "dataset": asdict(dataset),
            "images_sha256": storage.sha256(images),
            "judge_sha256": storage.sha256_folder(judge),
            "versions": provenance.versions("torch"),
        },
    )
    table = verdicts.to_markdown(title, of_images, of_renderings)
    storage.write_text(output.with_suffix(".md"), table)


if __name__ == "__main__":
    run(judge_images)
