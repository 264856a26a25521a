"""Make an image-to-image model out of the mini Stable Diffusion, on pairs of scenes."""

from __future__ import annotations

from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.mini import cfw, pairs, translators
from clockwork_experiments.mini.card import Card
from clockwork_experiments.mini.recipe import Job
from clockwork_experiments.models import loading

TITLES = {
    "edit": (
        "Mini InstructPix2Pix",
        "Edits scenes by instructions; a diffusers InstructPix2Pix pipeline.",
    ),
    "inpainting": (
        "Mini inpainting",
        "Fills in what is masked; InstructPix2Pix's pipeline, with the empty prompt.",
    ),
    "synthesis": (
        "Mini high-frequency synthesis",
        "Adds the detail that the mini restoration net leaves out; InstructPix2Pix's "
        "pipeline, with the empty prompt.",
    ),
    "control": (
        "Mini ControlNet",
        "Draws scenes along Canny edges (100, 200), beside the mini Stable Diffusion.",
    ),
    "restoration": (
        "Mini StableSR",
        "Restores scenes from a quarter of their resolution.",
    ),
}


def train(spec: translators.TranslatorSpec, job: Job, teacher: Path) -> Card:
    """Train, save, measure."""
    return train_on(spec, job, teacher)


def train_on(
    spec: translators.TranslatorSpec,
    job: Job,
    teacher: Path,
    restore: pairs.Restorer | None = None,
) -> Card:
    """Train on pairs that start from what ``restore`` makes, for synthesis."""
    pipe = loading.load_pipeline(teacher, job.device)

    def make_pairs() -> pairs.Pairs:
        return pairs.scene_pairs(spec.task, "train", spec.pairs, spec.offset, restore)

    trained = translators.train(spec, pipe, make_pairs, job.state, work=job.work)
    made = translators.assemble(trained.module, pipe)
    if spec.parts is not None:
        state = job.state.with_suffix(".fuse.pt")
        fused = cfw.train(spec.parts.fuse, made, make_pairs(), state, job.work)
        made.register_modules(vae=fused.module)
    validation = pairs.scene_pairs(spec.task, "validation", spec.judged, 0, restore)
    title, what = TITLES[spec.task]
    translators.save(made, job.folder)
    storage.write_checksums(job.folder)
    quality = translators.measure(job.folder, teacher, spec, validation)
    return Card(
        title,
        what,
        f"{spec.pairs:,} pairs of scenes of the training split from number "
        f"{spec.offset:,} on",
        trained,
        {"mean of the last training losses": trained.last_loss, **quality},
    )
