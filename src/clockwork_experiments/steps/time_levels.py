"""Time a task's UNet down to each level, and light passes; weights are random."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.run import run

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


def time_levels(
    spec: LevelTimingSpec,
    output: Path,
    unet: Path | None = None,
    branch: Path | None = None,
) -> None:
    """Let calls of each level take turns, of ControlNet's branch, and light ones.

    Args:
        spec: What to time, and how.
        output: JSON to write.
        unet: Configuration of the UNet; the task's if left out.
        branch: Configuration of ControlNet's branch, likewise.
    """
    import torch

    from clockwork_diffusion import depth_skip
    from clockwork_experiments.cost import architectures, latency, task_architectures
    from clockwork_experiments.models import loading

    task = task_architectures.task_of(spec.task)
    rows = task.rows
    device, dtype = loading.default_device(), getattr(torch, spec.dtype)
    config, branch_config = map(architectures.read_config, (unet, branch))
    torch.manual_seed(0)
    network = task_architectures.build_task_unet(spec.task, config, device).to(dtype)
    given = task_architectures.call_inputs(network, spec.tokens, rows)
    calls: dict[str, Callable[[], object]] = {}
    for level in range(1, depth_skip.levels_of(network) + 1):
        pruned: Callable[..., object] = depth_skip.depth_skip(network, level)
        calls[str(level)] = partial(pruned, **given)
    if task.branch:
        control = task_architectures.build_branch(network, branch_config)
        hint = task_architectures.hint_for(control, network).expand(rows, -1, -1, -1)
        calls["branch"] = partial(control, **given, controlnet_cond=hint)
    for name, cut in spec.adaptors.items():
        calls[f"light {name}"] = _light(network, cut, given)
    log.info("%d calls take turns", len(calls))
    with torch.inference_mode():
        timings = latency.time_in_turns(calls, spec.repeats)
    of_branch = timings.pop("branch", None)
    # What a light pass leaves out lies below all levels that it goes with.
    light = {name: timings.pop(f"light {name}") for name in spec.adaptors}
    storage.write_json(
        output,
        {
            "unit": "milliseconds for the UNet call of one sampling step of one image",
            "weights": "random",
            "task": spec.task,
            "rows": rows,
            "device": provenance.device_name(),
            "dtype": spec.dtype,
            "levels": {k: dataclasses.asdict(v) for k, v in timings.items()},
            "branch": None if of_branch is None else dataclasses.asdict(of_branch),
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
    run(time_levels)
