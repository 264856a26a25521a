"""Score what share of generated scenes shows what was asked for: a teacher's bar."""

from __future__ import annotations

from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.run import run


def recognise_images(
    images: Path, classifier: Path, dataset_spec: str, title: str, output: Path
) -> None:
    """Recognise the generated images, and renderings of the same scenes.

    Args:
        images: Shard with the tensor ``images``.
        classifier: The mini classifier's folder.
        dataset_spec: Split, count and offset as JSON.
        title: Heading of the table.
        output: JSON to write; the table beside it.
    """
    from dataclasses import asdict

    from clockwork_experiments.base import provenance
    from clockwork_experiments.mini import quality
    from clockwork_experiments.mini.data import scene_images
    from clockwork_experiments.models import mini

    chosen = parse(quality.SceneSet, dataset_spec, "dataset-spec")
    tensors, _ = storage.read_tensors(images)
    if "images" not in tensors:
        raise ValueError(f"{images} lacks the tensor 'images'")
    network = mini.load(mini.Classifier, classifier)
    labels = quality.scene_labels(chosen.split, chosen.count, chosen.offset)
    rendered = scene_images(chosen.split, chosen.count, chosen.offset)
    of_images = quality.shares_recognised(network, tensors["images"], labels)
    # What the classifier itself gets right bounds what it can credit to a model.
    of_renderings = quality.shares_recognised(network, rendered, labels)
    storage.write_json(
        output,
        {
            "recognised": {name: asdict(score) for name, score in of_images.items()},
            "renderings": {
                name: asdict(score) for name, score in of_renderings.items()
            },
            "dataset": asdict(chosen),
            "images_sha256": storage.sha256(images),
            "classifier_sha256": storage.sha256_folder(classifier),
            "versions": provenance.versions("torch"),
        },
    )
    table = quality.to_markdown(title, of_images, of_renderings)
    storage.write_text(output.with_suffix(".md"), table)


if __name__ == "__main__":
    run(recognise_images)
