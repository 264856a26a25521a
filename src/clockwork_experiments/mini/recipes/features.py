"""Train the feature network of the mini Fréchet distance."""

from __future__ import annotations

from clockwork_experiments.mini import features
from clockwork_experiments.mini.card import Card
from clockwork_experiments.mini.recipe import Job
from clockwork_experiments.models import mini


def train(spec: features.FeaturesSpec, job: Job) -> Card:
    """Train, measure, save."""
    trained = features.train(spec, job.state, job.device)
    model = trained.module.half().float()  # what the shipped fp16 file will hold
    assert isinstance(model, mini.FeatureNetwork)
    distances = features.measure(model)
    mini.save(model, job.folder)
    return Card(
        "Mini feature network",
        "The Fréchet distance's network at mini scale, in place of Inception: "
        f"{spec.dim} features of a 64×64 image, each with mean 0 and variance 1 "
        "over training scenes. Trained to measure contents and rendering quality.",
        f"{spec.images:,} scenes of the training split from number "
        f"{spec.offset:,} on, disturbed in known ways",
        trained,
        {
            f"Fréchet distance, 1,000 against 1,000 scenes, {name}": value
            for name, value in distances.items()
        },
    )
