"""Make an image-to-image model out of the mini Stable Diffusion, on pairs of scenes."""

from __future__ import annotations

from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.mini import cfw, translators
from clockwork_experiments.mini.card import Card
from clockwork_experiments.mini.recipe import Job
from clockwork_experiments.models import loading
from clockwork_experiments.world import pairs

TITLES = {
    "edit": (
        "Mini InstructPix2Pix",
        "Edits scenes by instructions; a diffusers InstructPix2Pix pipeline. With the "
        "empty prompt it fills in what is masked, and adds the detail that the mini "
        "restoration net leaves out.",
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

    def pairs_of(task: str, split: str, count: int, offset: int) -> pairs.Pairs:
        given = restore if task == "synthesis" else None
        return pairs.scene_pairs(task, split, count, offset, given)

    def make_pairs() -> pairs.Pairs:
        made = pairs_of(spec.task, "train", spec.pairs, spec.offset)
        for other in spec.beside:
            made += pairs_of(other, "train", spec.pairs, spec.offset)
        return made

    trained = translators.train(spec, pipe, make_pairs, job.state, work=job.work)
    made = translators.assemble(trained.module, pipe)
    if spec.parts is not None:
        state = job.state.with_suffix(".fuse.pt")
        fused = cfw.train(spec.parts.fuse, made, make_pairs(), state, job.work)
        made.register_modules(vae=fused.module)
    title, what = TITLES[spec.task]
    translators.save(made, job.folder)
    storage.write_checksums(job.folder)
    quality: dict[str, float] = {}
    for task in (spec.task, *spec.beside):
        validation = pairs_of(task, "validation", spec.judged, 0)
        quality |= translators.measure(job.folder, teacher, task, validation)
    tasks = " and for ".join((spec.task, *spec.beside))
    return Card(
        title,
        what,
        f"{spec.pairs:,} pairs for {tasks}, of scenes of the training split from "
        f"number {spec.offset:,} on",
        trained,
        {"mean of the last training losses": trained.last_loss, **quality},
    )
