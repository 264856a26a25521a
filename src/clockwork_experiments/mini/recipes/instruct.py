"""Make the model of edits, inpainting and synthesis, which a net makes pairs for."""

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
    """Train as the others are; synthesis starts from what the net makes."""
    restore = partial(nets.restore, mini.load(mini.Restorer, restorer))
    return translator.train_on(spec, job, teacher, restore)
