"""Train the small restoration net that high-frequency synthesis starts from."""

from __future__ import annotations

from clockwork_experiments.mini import restorer
from clockwork_experiments.mini.card import Card
from clockwork_experiments.mini.recipe import Job
from clockwork_experiments.models import mini


def train(spec: restorer.RestorerSpec, job: Job) -> Card:
    """Train, measure, save."""
    trained = restorer.train(spec, job.state, job.device)
    model = trained.module.half().float()  # what the shipped fp16 file will hold
    assert isinstance(model, mini.Restorer)
    mini.save(model, job.folder)
    return Card(
        "Mini restoration net",
        "Sharpens blurred scenes by squared error; high-frequency synthesis adds "
        "the detail that it leaves out.",
        f"{spec.images:,} renderings of the training split from number "
        f"{spec.offset:,} on, blurred",
        trained,
        restorer.measure(model),
    )
