"""Describe and count the levels of a task's UNet; needs no weights."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.run import new_parser, run


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


def main(args: Namespace) -> None:
    """Count on the meta device."""
    from clockwork_diffusion import adaptors, depth_skip
    from clockwork_experiments.cost import flops, task_architectures

    spec = parse(LevelsSpec, args.spec)
    task = task_architectures.task_of(spec.task)
    config, branch_config = (
        None if path is None else storage.read_json(storage.existing(path))
        for path in (args.unet, args.branch)
    )
    unet = task_architectures.build_task_unet(spec.task, config)
    branch = None
    if task.branch:
        control = task_architectures.build_branch(unet, branch_config)
        branch = flops.count_control(control, unet, spec.tokens).to_json()
    levels = [
        {
            **level.to_json(),
            "count": flops.count_level(unet, spec.tokens, level.level).to_json(),
        }
        for level in depth_skip.describe_levels(unet)
    ]
    light = {}
    for name, cut in spec.adaptors.items():
        # Where it lies, the same at every level.
        identity = adaptors.build_adaptor("identity", unet, cut, text_channels=1)
        count = flops.count_light(unet, spec.tokens, identity, text_channels=1)
        light[name] = count["step"].to_json()
    storage.write_json(
        args.output,
        {
            "unit": "one UNet call at batch 1, down to a level",
            "task": spec.task,
            "rows": task.rows,
            "tokens": spec.tokens,
            "size": unet.config.sample_size,
            "levels": levels,
            "shared": depth_skip.shared_parameters(unet),
            "branch": branch,
            "adaptors": light,
            "versions": provenance.versions("torch", "diffusers", "deepspeed"),
        },
    )


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="LevelsSpec as JSON")
    parser.add_argument(
        "--unet", type=Path, help="configuration of the UNet; the task's if left out"
    )
    parser.add_argument(
        "--branch", type=Path, help="configuration of ControlNet's branch, likewise"
    )
    parser.add_argument("--output", required=True, type=Path, help="JSON to write")
    run(parser, main)
