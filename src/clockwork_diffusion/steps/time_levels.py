"""Time a task's UNet down to each level, in turns; weights are random."""

from __future__ import annotations

import dataclasses
import logging
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from clockwork_diffusion import provenance, storage
from clockwork_diffusion.specs import parse
from clockwork_diffusion.steps._run import new_parser, run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LevelTimingSpec:
    """What to time, and how often.

    Attributes:
        task: A key of `clockwork_diffusion.tasks.TASKS`.
        tokens: Length of a prompt.
        repeats: Timed calls of each level.
        dtype: Precision to compute in, ``float16`` or ``float32``.
    """

    task: str
    tokens: int
    repeats: int
    dtype: str = "float32"

    def __post_init__(self) -> None:
        """Reject a precision that is not one of ours, and no repeats."""
        if self.dtype not in ("float16", "float32"):
            raise ValueError(f"dtype {self.dtype!r} is not float16 or float32")
        if self.repeats < 1:
            raise ValueError(f"{self.repeats} repeats are not 1 or more")


def main(args: Namespace) -> None:
    """Let a call of each level take turns, and one of ControlNet's branch."""
    import torch

    from clockwork_diffusion import depth_skip, latency, loading, task_architectures

    spec = parse(LevelTimingSpec, args.spec)
    task = task_architectures.task_of(spec.task)
    rows = len(task.rows)
    device, dtype = loading.default_device(), getattr(torch, spec.dtype)
    config, branch_config = (
        None if path is None else storage.read_json(storage.existing(path))
        for path in (args.unet, args.branch)
    )
    torch.manual_seed(0)
    unet = task_architectures.build_task_unet(spec.task, config, device).to(dtype)
    given = task_architectures.call_inputs(unet, spec.tokens, rows)
    calls: dict[str, Callable[[], object]] = {}
    for level in range(1, depth_skip.levels_of(unet) + 1):
        pruned: Callable[..., object] = depth_skip.depth_skip(unet, level)
        calls[str(level)] = partial(pruned, **given)
    if task.branch:
        control = task_architectures.build_branch(unet, branch_config)
        hint = task_architectures.hint_for(control, unet).expand(rows, -1, -1, -1)
        calls["branch"] = partial(control, **given, controlnet_cond=hint)
    log.info("%d levels take turns", len(calls))
    with torch.inference_mode():
        timings = latency.time_in_turns(calls, spec.repeats)
    branch = timings.pop("branch", None)
    storage.write_json(
        args.output,
        {
            "unit": "milliseconds for the UNet call of one sampling step of one image",
            "weights": "random",
            "task": spec.task,
            "rows": rows,
            "device": provenance.device_name(),
            "dtype": spec.dtype,
            "levels": {k: dataclasses.asdict(v) for k, v in timings.items()},
            "branch": None if branch is None else dataclasses.asdict(branch),
            "versions": provenance.versions("torch", "diffusers"),
        },
    )


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="LevelTimingSpec as JSON")
    parser.add_argument(
        "--unet", type=Path, help="configuration of the UNet; the task's if left out"
    )
    parser.add_argument(
        "--branch", type=Path, help="configuration of ControlNet's branch, likewise"
    )
    parser.add_argument("--output", required=True, type=Path, help="JSON to write")
    run(parser, main)
