"""Measure every mask of a few steps for a predictor, and what sums predict."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from clockwork_diffusion.masks import additive
from clockwork_experiments.base import chunks, provenance, storage
from clockwork_experiments.benchmark.subject import (
    LightSpec,
    TaskSpec,
    open_subject,
)
from clockwork_experiments.generate import text
from clockwork_experiments.generate.text import SamplerSpec
from clockwork_experiments.random.marks import mark
from clockwork_experiments.run import run
from clockwork_experiments.search import masks


@dataclass(frozen=True)
class MasksSpec:
    """What to measure.

    Attributes:
        task: The task: text-to-image.
        most: Captions that are sampled by every mask.
        light: The predictor.
    """

    task: TaskSpec
    most: int
    light: LightSpec = field(default_factory=LightSpec)


def measure_masks(
    spec: MasksSpec,
    model: Path,
    prompts: Path,
    state: Path,
    output: Path,
    adaptor: Path | None = None,
    clip: Path | None = None,
) -> None:
    """Sample by all masks.

    Args:
        spec: What to measure.
        model: The model's folder.
        prompts: Prompts.
        state: Resumable state.
        output: JSON to write.
        adaptor: Folder of a learned predictor.
        clip: Folder of the CLIP that it asks.
    """
    task = spec.task
    opened = open_subject(
        task,
        model,
        prompts=prompts,
        most=spec.most,
        light=spec.light,
        steps=task.steps,
        adaptor=adaptor,
        clip=clip,
    )
    given = opened.given
    config = given.pipe.unet.config
    shape = (config.in_channels, config.sample_size, config.sample_size)
    seeds = [text.image_seed(task.seed, i) for i in range(len(given.prompts))]
    noise = text.initial_noise(seeds, shape).to(given.pipe.device)
    marks = [str(spec), storage.sha256_folder(model), *opened.checksums]
    marks += [storage.sha256(prompts), provenance.code_sha256("steps.measure_masks")]
    errors = masks.measure(
        given.pipe,
        given.prompts,
        noise,
        SamplerSpec(task.scheduler, task.steps, task.guidance),
        state,
        "\n".join(marks),
        adaptor=given.adaptor,
    )
    means = {mask: float(each.mean()) for mask, each in errors.items()}
    storage.write_json(
        output,
        {
            **mark([model, adaptor]),
            "steps": task.steps,
            "captions": len(given.prompts),
            "errors": means,
            "by_caption": {mask: each.tolist() for mask, each in errors.items()},
            "sums": masks.report(means, task.steps),
            "predicted": {
                name: {mask: additive(mask, costs) for mask in means}
                for name, costs in masks.sums(means, task.steps).items()
            },
            "versions": provenance.versions("torch", "diffusers"),
        },
    )
    chunks.discard(state)


if __name__ == "__main__":
    run(measure_masks)
