"""Time a task's UNet down to each level, and light passes; weights are random."""

from __future__ import annotations

import dataclasses
import logging
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.run import new_parser, run

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LevelTimingSpec:
    """What to time, and how often.

    Attributes:
        task: A key of `clockwork_experiments.generate.tasks.TASKS`.
        tokens: Length of a prompt.
        repeats: Timed calls of each level.
        dtype: Precision to compute in, ``float16`` or ``float32``.
        adaptors: Where the UNet is split for the identity, by id of that adaptor.
    """

    task: str
    tokens: int
    repeats: int
    dtype: str = "float32"
    adaptors: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Reject a precision that is not one of ours, and no repeats."""
        if self.dtype not in ("float16", "float32"):
            raise ValueError(f"dtype {self.dtype!r} is not float16 or float32")
        if self.repeats < 1:
            raise ValueError(f"{self.repeats} repeats are not 1 or more")


def main(args: Namespace) -> None:
    """Let calls of each level take turns, of ControlNet's branch, and light ones."""
    import torch

    from clockwork_diffusion import depth_skip
    from clockwork_experiments.cost import latency, task_architectures
    from clockwork_experiments.models import loading

    spec = parse(LevelTimingSpec, args.spec)
    task = task_architectures.task_of(spec.task)
    rows = task.rows
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
    for name, cut in spec.adaptors.items():
        calls[f"light {name}"] = _light(unet, cut, given)
    log.info("%d calls take turns", len(calls))
    with torch.inference_mode():
        timings = latency.time_in_turns(calls, spec.repeats)
    branch = timings.pop("branch", None)
    # What a light pass leaves out lies below all levels that it goes with.
    light = {name: timings.pop(f"light {name}") for name in spec.adaptors}
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
            "light": {k: dataclasses.asdict(v) for k, v in light.items()},
            "versions": provenance.versions("torch", "diffusers"),
        },
    )


def _light(
    unet: UNet2DConditionModel, cut: str, given: dict[str, Any]
) -> Callable[[], object]:
    """Return a pass that reuses what a full one, made here, has left."""
    import torch

    from clockwork_diffusion import adaptors
    from clockwork_diffusion.passes import Passes, Past
    from clockwork_diffusion.unet import SplitUNet

    identity = adaptors.build_adaptor("identity", unet, cut, text_channels=1)
    passes = Passes(SplitUNet(unet, cut), identity)
    further = dict(given)
    x, t, c = (
        further.pop(name) for name in ("sample", "timestep", "encoder_hidden_states")
    )
    with torch.inference_mode():
        past = Past(passes.keep(passes.full(x, t, c, **further)))
    return partial(passes.light, x, t, c, past, **further)


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
