"""Train the mini classifier on renderings, to measure the teacher's bar and no more.

It has no part in any score, guidance or training of another model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional

from clockwork_experiments.mini.augment import disturb_mildly
from clockwork_experiments.mini.data import scene_images, to_unit
from clockwork_experiments.mini.quality import ATTRIBUTES, scene_labels
from clockwork_experiments.models.mini import Classifier
from clockwork_experiments.train.training import (
    Optimisation,
    Trained,
    fit,
    generator_for,
)


@dataclass(frozen=True)
class ClassifierSpec:
    """Data, size and recipe of the mini classifier.

    Attributes:
        images: Number of training scenes.
        offset: First training scene, counted within its split.
        width: Channels of the first level.
        optimisation: The recipe.
    """

    images: int
    offset: int
    width: int
    optimisation: Optimisation


def build(spec: ClassifierSpec) -> Classifier:
    """Return an untrained classifier."""
    torch.manual_seed(spec.optimisation.seed)
    return Classifier(spec.width, [len(values) for values in ATTRIBUTES.values()])


def train(spec: ClassifierSpec, state: Path, device: torch.device) -> Trained:
    """Train on renderings, mildly disturbed so that it is not brittle."""
    images = scene_images("train", spec.images, spec.offset)
    labels = scene_labels("train", spec.images, spec.offset)
    model = build(spec).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss_of_step(step: int) -> torch.Tensor:
        generator = generator_for(spec.optimisation.seed, step)
        chosen = torch.randint(
            spec.images, (spec.optimisation.batch_size,), generator=generator
        )
        pixels = disturb_mildly(to_unit(images[chosen]), generator).to(device)
        target = labels[chosen].to(device)
        losses = [
            functional.cross_entropy(logits, target[:, i])
            for i, logits in enumerate(model(pixels))
        ]
        return torch.stack(losses).sum()

    return fit(model, loss_of_step, spec.optimisation, state, name="classifier")
