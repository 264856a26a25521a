"""Train the mini classifier, which measures the teacher's bar, and only that."""

from __future__ import annotations

from clockwork_experiments.mini import classifier, quality
from clockwork_experiments.mini.card import Card
from clockwork_experiments.mini.data import scene_images
from clockwork_experiments.mini.recipe import Job
from clockwork_experiments.models import mini


def train(spec: classifier.ClassifierSpec, job: Job) -> Card:
    """Train, measure, save."""
    trained = classifier.train(spec, job.state, job.device)
    model = trained.module.half().float()  # what the shipped fp16 file will hold
    assert isinstance(model, mini.Classifier)
    shares = quality.shares_recognised(
        model,
        scene_images("validation", 4000),
        quality.scene_labels("validation", 4000),
    )
    mini.save(model, job.folder)
    return Card(
        "Mini classifier",
        "Names shape, colour, texture, size, position and background of a scene "
        "with one object. Only for the teacher's bar: no score, guidance or "
        "training uses it.",
        f"{spec.images:,} renderings of the training split from number "
        f"{spec.offset:,} on, mildly blurred, relit and noised",
        trained,
        {
            f"{name}, share right of 4,000 validation renderings": score.value
            for name, score in shares.items()
        },
    )
