"""Score what share of generated scenes shows what was asked for: a teacher's bar."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.run import new_parser, run


def main(args: Namespace) -> None:
    """Recognise the generated images, and renderings of the same scenes."""
    from dataclasses import asdict

    from clockwork_experiments.base import provenance
    from clockwork_experiments.mini import quality
    from clockwork_experiments.mini.data import scene_images
    from clockwork_experiments.models import mini

    chosen = parse(quality.SceneSet, args.dataset_spec, "dataset-spec")
    tensors, _ = storage.read_tensors(args.images)
    if "images" not in tensors:
        raise ValueError(f"{args.images} lacks the tensor 'images'")
    classifier = mini.load(mini.Classifier, args.classifier)
    labels = quality.scene_labels(chosen.split, chosen.count, chosen.offset)
    rendered = scene_images(chosen.split, chosen.count, chosen.offset)
    of_images = quality.shares_recognised(classifier, tensors["images"], labels)
    # What the classifier itself gets right bounds what it can credit to a model.
    of_renderings = quality.shares_recognised(classifier, rendered, labels)
    storage.write_json(
        args.output,
        {
            "recognised": {name: asdict(score) for name, score in of_images.items()},
            "renderings": {
                name: asdict(score) for name, score in of_renderings.items()
            },
            "dataset": asdict(chosen),
            "images_sha256": storage.sha256(args.images),
            "classifier_sha256": storage.sha256_folder(args.classifier),
            "versions": provenance.versions("torch"),
        },
    )
    table = quality.to_markdown(args.title, of_images, of_renderings)
    storage.write_text(args.output.with_suffix(".md"), table)


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument(
        "--images", required=True, type=Path, help="shard with the tensor 'images'"
    )
    parser.add_argument(
        "--classifier", required=True, type=Path, help="the mini classifier's folder"
    )
    parser.add_argument(
        "--dataset-spec", required=True, help="split, count and offset as JSON"
    )
    parser.add_argument("--title", required=True, help="heading of the table")
    parser.add_argument(
        "--output", required=True, type=Path, help="JSON to write; the table beside it"
    )
    run(parser, main)
