"""Train the mini classifier, which measures the teacher's bar."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.run import new_parser, run


def main(args: Namespace) -> None:
    """Train, measure, save."""
    import torch

    from clockwork_experiments.mini import card, classifier, quality
    from clockwork_experiments.mini.data import scene_images
    from clockwork_experiments.models import mini

    spec = parse(classifier.ClassifierSpec, args.spec)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trained = classifier.train(spec, args.state, device)
    model = trained.module.half().float()  # what the shipped fp16 file will hold
    assert isinstance(model, mini.Classifier)
    shares = quality.shares_recognised(
        model,
        scene_images("validation", 4000),
        quality.scene_labels("validation", 4000),
    )
    with storage.atomic_path(args.output) as partial:
        mini.save(model, partial)
        card.write_card(
            partial,
            "Mini classifier",
            "Names shape, colour, texture, size, position and background of a scene "
            "with one object. Only for the teacher's bar: no score, guidance or "
            "training uses it.",
            f"{spec.images:,} renderings of the training split from number "
            f"{spec.offset:,} on, mildly blurred, relit and noised",
            spec,
            trained,
            {
                f"{name}, share right of 4,000 validation renderings": score.value
                for name, score in shares.items()
            },
        )


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="ClassifierSpec as JSON")
    parser.add_argument("--state", required=True, type=Path, help="resumable state")
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    run(parser, main)
