"""Time one method of the benchmark against plain steps, in pairs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.benchmark import measure
from clockwork_experiments.benchmark.subject import (
    LightSpec,
    TaskSpec,
    open_method,
)
from clockwork_experiments.run import run


@dataclass(frozen=True)
class TimedMethod:
    """What to time.

    Attributes:
        task: The task; the other side of a pair is its plain number of steps.
        kind: A key of `benchmark.methods.METHODS`, or ``my_module:MyMethod``.
        pairs: How often.
        settings: The method's own.
        light: What light steps run.
    """

    task: TaskSpec
    kind: str
    pairs: int
    settings: dict[str, object] = field(default_factory=dict)
    light: LightSpec = field(default_factory=LightSpec)


def time_method(
    spec: TimedMethod,
    model: Path,
    output: Path,
    prompts: Path | None = None,
    set: Path | None = None,
    adaptor: Path | None = None,
    clip: Path | None = None,
    grids: Path | None = None,
    plan: Path | None = None,
) -> None:
    """Time one image by the method and by plain steps, in turns.

    Args:
        spec: What to time.
        model: The model's folder.
        output: JSON to write.
        prompts: Prompts, for text-to-image.
        set: Prepared set of pairs, for other tasks.
        adaptor: Folder of a learned adaptor.
        clip: Folder of the CLIP that it asks.
        grids: Time steps by others' rules.
        plan: A planned method's plan.
    """
    method, opened = open_method(
        spec,
        model,
        grids=grids,
        plan=plan,
        prompts=prompts,
        pairs=set,
        most=1,
        adaptor=adaptor,
        clip=clip,
    )
    given = opened.given
    found = measure.time_method(
        opened.subject, method, given, spec.task.steps, spec.pairs
    )
    storage.write_json(
        output,
        {
            **asdict(found),
            "device": provenance.device_name(),
            "versions": provenance.versions("torch", "diffusers"),
        },
    )


if __name__ == "__main__":
    run(time_method)
