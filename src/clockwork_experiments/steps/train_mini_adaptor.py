"""Train an adaptor of a mini model as a user does, to be shipped beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.run import run


@dataclass(frozen=True)
class MiniAdaptorSpec:
    """What to train, with DPM-Solver++ and captions of the training split.

    Attributes:
        captions: How many.
        steps: Sampling steps.
        clock: The clock.
        guidance_scale: Guidance of the teacher.
        updates: Updates of the weights.
        batch_size: Samples per update.
        measured: Captions of the test split that it is measured on.
    """

    captions: int
    steps: int
    clock: int
    guidance_scale: float
    updates: int
    batch_size: int
    measured: int = 48


def train_mini_adaptor(spec: MiniAdaptorSpec, model: Path, output: Path) -> None:
    """Train with the library's own call, and measure; an unfinished training goes on.

    Args:
        spec: What to train.
        model: Checksums in the pipeline's folder.
        output: Folder to write.
    """
    from clockwork_diffusion.adaptor_training import train_adaptor
    from clockwork_diffusion.adaptors import load_adaptor
    from clockwork_diffusion.schedulers import new_scheduler
    from clockwork_experiments.mini import shipped
    from clockwork_experiments.models import loading
    from clockwork_experiments.world.captions import captions

    pipe = loading.load_pipeline(model.parent, loading.default_device())
    pipe.scheduler = new_scheduler("dpmpp", pipe.scheduler.config, spec.steps)
    train_adaptor(
        pipe,
        captions("train", spec.captions),
        output,
        steps=spec.steps,
        clock=spec.clock,
        guidance_scale=spec.guidance_scale,
        updates=spec.updates,
        batch_size=spec.batch_size,
        captions_at_once=8,
    )
    found = shipped.quality(
        pipe,
        load_adaptor(output),
        captions("test", spec.measured),
        spec.steps,
        spec.clock,
        spec.guidance_scale,
    )
    storage.write_json(output / "quality.json", found)
    storage.write_checksums(output)


if __name__ == "__main__":
    run(train_mini_adaptor)
