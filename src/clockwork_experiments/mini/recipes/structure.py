"""Train the mini structure network, the mini scale's DINO ViT."""

from __future__ import annotations

from transformers import ViTImageProcessor, ViTModel

from clockwork_experiments.mini import structure
from clockwork_experiments.mini.card import Card
from clockwork_experiments.mini.recipe import Job


def train(spec: structure.StructureSpec, job: Job) -> Card:
    """Train, measure, save."""
    trained = structure.train(spec, job.state, job.device)
    model = trained.module.half().float()  # what the shipped fp16 file will hold
    assert isinstance(model, ViTModel)
    quality = structure.measure(model)
    half = [0.5, 0.5, 0.5]
    model.half().save_pretrained(job.folder)
    ViTImageProcessor(
        size={"height": 64, "width": 64}, image_mean=half, image_std=half
    ).save_pretrained(job.folder)
    return Card(
        "Mini structure network",
        "ViTModel whose last layer's keys measure layout, in place of DINO's ViT. "
        "Not self-supervised as DINO is: its patches learned to predict the "
        "generator's masks, under exchanged colours.",
        f"{spec.images:,} scenes of the training split from number "
        f"{spec.offset:,} on, with object masks and outlines",
        trained,
        quality,
    )
