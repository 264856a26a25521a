"""Make high-frequency synthesis, which starts from what the restoration net leaves."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from clockwork_experiments.mini import restorer as nets
from clockwork_experiments.mini import translators
from clockwork_experiments.mini.card import Card
from clockwork_experiments.mini.recipe import Job
from clockwork_experiments.mini.recipes import translator
from clockwork_experiments.models import mini


def train(
    spec: translators.TranslatorSpec, job: Job, teacher: Path, restorer: Path
) -> Card:
    """Train as the other image-to-image models are, on what the net makes sharp."""
    restore = partial(nets.restore, mini.load(mini.Restorer, restorer))
    return translator.train_on(spec, job, teacher, restore)
