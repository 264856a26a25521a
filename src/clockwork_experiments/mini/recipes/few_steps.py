"""Distil the mini StableSR into one of few deterministic steps."""

from __future__ import annotations

from pathlib import Path

from clockwork_diffusion.stablesr import pipeline
from clockwork_experiments.base import storage
from clockwork_experiments.mini import few_steps, translators
from clockwork_experiments.mini.card import Card
from clockwork_experiments.mini.recipe import Job
from clockwork_experiments.models import loading
from clockwork_experiments.world import pairs


def train(spec: few_steps.FewStepsSpec, job: Job, teacher: Path) -> Card:
    """Distil, save, measure."""
    pipe = loading.load_pipeline(teacher, job.device, kind=pipeline.StableSRPipeline)

    def make_pairs() -> pairs.Pairs:
        return pairs.scene_pairs("restoration", "train", spec.pairs, spec.offset)

    trained = few_steps.train(spec, pipe, make_pairs, job.state, job.work)
    student = trained.module
    assert isinstance(student, few_steps.Student)
    parts = few_steps.learned_parts(student.unet, student.structure_encoder)
    count = sum(part.numel() for part in parts.values())
    pipe.register_modules(
        unet=student.unet, structure_encoder=student.structure_encoder
    )
    translators.save(pipe, job.folder)
    storage.write_checksums(job.folder)
    validation = pairs.scene_pairs("restoration", "validation", spec.judged)
    quality = few_steps.measure(job.folder, teacher, spec, validation)
    return Card(
        f"Mini StableSR, {len(spec.timesteps)} steps",
        "Restores scenes from a quarter of their resolution in few deterministic "
        "steps. SPADE layers and structure encoder alone have learned: all else is the "
        "mini StableSR's.",
        f"What {spec.reference} deterministic steps of the mini StableSR make of "
        f"{spec.pairs:,} scenes of the training split from number "
        f"{spec.offset:,} on",
        trained,
        {
            "parameters that learned": f"{count:,}",
            "mean of the last training losses": trained.last_loss,
            **quality,
        },
    )
