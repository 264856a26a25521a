"""Train the feature network of the mini Fréchet distance."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.run import new_parser, run


def main(args: Namespace) -> None:
    """Train, measure, save."""
    import torch

    from clockwork_experiments.mini import card, features
    from clockwork_experiments.models import mini

    spec = parse(features.FeaturesSpec, args.spec)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trained = features.train(spec, args.state, device)
    model = trained.module.half().float()  # what the shipped fp16 file will hold
    assert isinstance(model, mini.FeatureNetwork)
    distances = features.measure(model)
    with storage.atomic_path(args.output) as partial:
        mini.save(model, partial)
        card.write_card(
            partial,
            "Mini feature network",
            "The Fréchet distance's network at mini scale, in place of Inception: "
            f"{spec.dim} features of a 64×64 image, each with mean 0 and variance 1 "
            "over training scenes. Trained to measure contents and rendering quality.",
            f"{spec.images:,} scenes of the training split from number "
            f"{spec.offset:,} on, disturbed in known ways",
            spec,
            trained,
            {
                f"Fréchet distance, 1,000 against 1,000 scenes, {name}": value
                for name, value in distances.items()
            },
        )


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="FeaturesSpec as JSON")
    parser.add_argument("--state", required=True, type=Path, help="resumable state")
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    run(parser, main)
