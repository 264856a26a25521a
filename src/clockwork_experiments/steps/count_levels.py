"""Describe and count the levels of a task's UNet; needs no weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.run import run


@dataclass(frozen=True)
class LevelsSpec:
    """What to count.

    Attributes:
        task: A key of `clockwork_experiments.generate.tasks.TASKS`.
        tokens: Length of a prompt.
        adaptors: Where the UNet is split for the identity, by id of that adaptor.
    """

    task: str
    tokens: int
    adaptors: dict[str, str] = field(default_factory=dict)


def count_levels(
    spec: LevelsSpec,
    output: Path,
    unet: Path | None = None,
    branch: Path | None = None,
) -> None:
    """Count on the meta device.

    Args:
        spec: What to count.
        output: JSON to write.
        unet: Configuration of the UNet; the task's if left out.
        branch: Configuration of ControlNet's branch, likewise.
    """
    from clockwork_diffusion import adaptors, depth_skip
    from clockwork_experiments.cost import architectures, flops, task_architectures

    task = task_architectures.task_of(spec.task)
    config, branch_config = map(architectures.read_config, (unet, branch))
    network = task_architectures.build_task_unet(spec.task, config)
    counted = None
    if task.branch:
        control = task_architectures.build_branch(network, branch_config)
        counted = flops.count_control(control, network, spec.tokens).to_json()
    levels = [
        {
            **level.to_json(),
            "count": flops.count_level(network, spec.tokens, level.level).to_json(),
        }
        for level in depth_skip.describe_levels(network)
    ]
    light = {}
    for name, cut in spec.adaptors.items():
        # Where it lies, the same at every level.
        identity = adaptors.build_adaptor("identity", network, cut, text_channels=1)
        count = flops.count_light(network, spec.tokens, identity, text_channels=1)
        light[name] = count["step"].to_json()
    storage.write_json(
        output,
        {
            "unit": "one UNet call at batch 1, down to a level",
            "task": spec.task,
            "rows": task.rows,
            "tokens": spec.tokens,
            "size": network.config.sample_size,
            "levels": levels,
            "shared": depth_skip.shared_parameters(network),
            "branch": counted,
            "adaptors": light,
            "versions": provenance.versions("torch", "diffusers", "deepspeed"),
        },
    )


if __name__ == "__main__":
    run(count_levels)
