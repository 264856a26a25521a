"""Train the judge of the mini world."""

from __future__ import annotations

from clockwork_experiments.mini.card import Card
from clockwork_experiments.mini.recipe import Job
from clockwork_experiments.world import judge


def train(spec: judge.JudgeSpec, job: Job) -> Card:
    """Train, save, measure."""
    trained = judge.train(spec, job.state, job.device)
    model = trained.module.half().float()  # what the shipped fp16 file will hold
    assert isinstance(model, judge.Judge)
    judge.save(model, job.folder)
    return Card(
        "Judge of the mini world",
        "Finds and names the objects of a scene, its ground, hour and light. Only for "
        "judging: no guidance and no training uses it.",
        f"{spec.images:,} renderings of the training split from number "
        f"{spec.offset:,} on, every other one with each object lit from a side of its "
        "own, mildly blurred, relit and noised",
        trained,
        {
            f"{name}, share right of 2,000 validation renderings": share
            for name, share in judge.measure(model, 2000).items()
        },
    )
