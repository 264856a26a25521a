"""Train the mini autoencoder."""

from __future__ import annotations

from diffusers import AutoencoderKL

from clockwork_experiments.mini import autoencoder
from clockwork_experiments.mini.card import Card
from clockwork_experiments.mini.recipe import Job
from clockwork_experiments.world.data import scene_images


def train(spec: autoencoder.AutoencoderSpec, job: Job) -> Card:
    """Train, save, measure."""
    trained = autoencoder.train(spec, job.state, job.device)
    vae = trained.module.half()
    assert isinstance(vae, AutoencoderKL)
    vae.save_pretrained(job.folder)
    quality = autoencoder.reconstruction_psnr(
        vae.float(), scene_images("validation", 512)
    )
    return Card(
        "Mini autoencoder",
        "AutoencoderKL for 64×64 scenes; latents are 4×16×16 (f = 4).",
        f"{spec.images:,} renderings of the training split",
        trained,
        {"PSNR on 512 validation scenes (dB)": quality},
    )
