"""Train the mini autoencoder and save it as a pipeline's ``vae`` folder."""

from __future__ import annotations

from diffusers import AutoencoderKL

from clockwork_experiments.mini import autoencoder
from clockwork_experiments.mini.card import Card
from clockwork_experiments.mini.data import scene_images
from clockwork_experiments.mini.recipe import Job


def train(spec: autoencoder.AutoencoderSpec, job: Job) -> Card:
    """Train, measure, save."""
    trained = autoencoder.train(spec, job.state, job.device)
    model = trained.module.half().float()  # what the shipped fp16 file will hold
    assert isinstance(model, AutoencoderKL)
    quality = autoencoder.reconstruction_psnr(model, scene_images("validation", 512))
    model.half().save_pretrained(job.folder)
    return Card(
        "Mini autoencoder",
        "AutoencoderKL, 64×64 RGB ↔ 4×16×16 latents (f = 4).",
        f"{spec.images:,} scenes of the training split",
        trained,
        {"PSNR on 512 validation scenes (dB)": quality},
    )
