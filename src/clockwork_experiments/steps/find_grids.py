"""Find the time steps that others' rules choose for a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.benchmark.subject import TaskSpec, open_subject
from clockwork_experiments.generate import text
from clockwork_experiments.random.marks import mark
from clockwork_experiments.rivals.grids import GRIDS
from clockwork_experiments.rivals.teacher import Teacher, record
from clockwork_experiments.run import run


@dataclass(frozen=True)
class GridsSpec:
    """Which time steps to find.

    Attributes:
        task: The task.
        asked: Numbers of steps by grid.
        most: Captions whose trajectories are recorded, at most.
    """

    task: TaskSpec
    asked: dict[str, tuple[int, ...]]
    most: int


def find_grids(
    spec: GridsSpec,
    model: Path,
    output: Path,
    prompts: Path | None = None,
    set: Path | None = None,
) -> None:
    """Record the teacher on a few captions, and ask each rule.

    Of a task with input images the noise schedule is known alone, and grids that go by
    a trajectory are none.

    Args:
        spec: What to find.
        model: The model's folder.
        output: JSON to write.
        prompts: Prompts to plan on, for text-to-image.
        set: Prepared set of pairs to plan on, for other tasks.
    """
    opened = open_subject(spec.task, model, prompts=prompts, pairs=set, most=spec.most)
    pipe, encoded = opened.given.pipe, opened.given.prompts
    if encoded is None:
        teacher = Teacher(pipe.scheduler, (), torch.empty(0))
    else:
        size, channels = pipe.unet.config.sample_size, pipe.unet.config.in_channels
        seeds = [text.image_seed(spec.task.seed, i) for i in range(len(encoded))]
        noise = text.initial_noise(seeds, (channels, size, size)).to(pipe.device)
        teacher = record(pipe, encoded, noise, spec.task.reference, spec.task.guidance)
    found = {
        name: {str(steps): list(GRIDS[name](steps, teacher)) for steps in asked}
        for name, asked in spec.asked.items()
    }
    storage.write_json(
        output,
        {
            **mark([model]),
            "grids": found,
            "captions": 0 if encoded is None else len(encoded),
            "versions": provenance.versions("torch", "diffusers"),
        },
    )


if __name__ == "__main__":
    run(find_grids)
