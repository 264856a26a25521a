"""Train the mini teacher, and save the whole Stable Diffusion pipeline."""

from __future__ import annotations

from pathlib import Path

from diffusers import AutoencoderKL

from clockwork_experiments.base import storage
from clockwork_experiments.mini import teacher
from clockwork_experiments.mini.card import Card
from clockwork_experiments.mini.recipe import Job
from clockwork_experiments.models import loading


def train(spec: teacher.TeacherSpec, job: Job, vae: Path) -> Card:
    """Train text encoder and UNet on the autoencoder's latents of scenes."""
    storage.check_weights(vae)
    coder = loading.load_network(AutoencoderKL, vae)
    coder.register_to_config(_name_or_path="")  # the path is nobody else's business
    trained, tokenizer = teacher.train(spec, coder, job.state, job.device)
    pipe = teacher.to_pipeline(trained.module, tokenizer, coder, spec.betas)
    for part in (pipe.vae, pipe.text_encoder, pipe.unet):
        part.half()
    pipe.save_pretrained(job.folder)
    storage.write_text(
        job.folder / "vae" / "README.md", (vae / "README.md").read_text("utf-8")
    )
    return Card(
        "Mini Stable Diffusion",
        "Text encoder and UNet with SD v1.5's topology, for 64×64 scenes.",
        f"{spec.images:,} scenes of the training split, {teacher.PHRASINGS} captions "
        "each",
        trained,
        {"mean of the last training losses": trained.last_loss},
        "docs/reference/mini/quality/teacher.md",
    )
