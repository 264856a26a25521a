"""Measure one method of the benchmark: images, FLOPs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from clockwork_experiments.base import chunks, provenance, storage
from clockwork_experiments.benchmark import measure
from clockwork_experiments.benchmark.subject import (
    LightSpec,
    TaskSpec,
    open_method,
)
from clockwork_experiments.data import datasets
from clockwork_experiments.models import encoders, loading
from clockwork_experiments.random.marks import mark
from clockwork_experiments.run import run


@dataclass(frozen=True)
class MethodSpec:
    """What to measure.

    Attributes:
        task: The task.
        kind: A key of `benchmark.methods.METHODS`, or ``my_module:MyMethod``.
        settings: The method's own.
        light: What light steps run.
    """

    task: TaskSpec
    kind: str
    settings: dict[str, object] = field(default_factory=dict)
    light: LightSpec = field(default_factory=LightSpec)


def measure_method(
    spec: MethodSpec,
    model: Path,
    reference: Path,
    frechet: Path,
    frechet_kind: str,
    state: Path,
    output: Path,
    prompts: Path | None = None,
    set: Path | None = None,
    adaptor: Path | None = None,
    clip: Path | None = None,
    grids: Path | None = None,
    plan: Path | None = None,
    judge: Path | None = None,
) -> None:
    """Sample by a method, and compare with the teacher's images of many steps.

    Args:
        spec: What to measure.
        model: The model's folder.
        reference: The teacher's images.
        frechet: The Fréchet distance's network.
        frechet_kind: Kind of that network.
        state: Resumable state.
        output: JSON to write.
        prompts: Prompts, for text-to-image.
        set: Prepared set of pairs, for other tasks.
        adaptor: Folder of a learned adaptor.
        clip: Folder of the CLIP that it asks.
        grids: Time steps by others' rules.
        plan: A planned method's plan.
        judge: Folder of the judge of whether an image of a prompt is as captioned.
    """
    method, opened = open_method(
        spec,
        model,
        grids=grids,
        plan=plan,
        prompts=prompts,
        pairs=set,
        adaptor=adaptor,
        clip=clip,
    )
    given = opened.given
    network = encoders.load_frechet(frechet_kind, frechet, loading.default_device())
    judged = None
    if judge is not None and prompts is not None:
        judged = measure.as_captioned(judge, datasets.read_prompts(prompts))
    marks = [str(spec), storage.sha256_folder(model), *opened.checksums]
    watched = (reference, grids, plan, prompts, set)
    marks += [storage.sha256(each) for each in watched if each is not None]
    marks += [provenance.code_sha256("steps.measure_method")]
    task = spec.task
    found = measure.measure_images(
        opened.subject,
        method,
        given,
        measure.read_reference(reference),
        network,
        judged,
        task.batch_size,
        task.seeds,
        state,
        "\n".join(marks),
    )
    steps, timesteps = method.sampled(given)
    storage.write_json(
        output,
        {
            **mark([model, frechet, adaptor]),
            **found,
            **measure.count_flops(opened.subject, method, given),
            "seeds": task.seeds,
            "steps": steps,
            "timesteps": list(timesteps),
            "axes": list(method.axes),
            "planned": method.planned,
            "trained": adaptor is not None,
            "versions": provenance.versions("torch", "diffusers", "deepspeed"),
        },
    )
    chunks.discard(state)


if __name__ == "__main__":
    run(measure_method)
