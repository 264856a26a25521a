"""Time the UNet passes of several runs in turns, of one model or of several."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.run import run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TimedRun:
    """A run to time.

    Attributes:
        model: Folder of the pipeline.
        tokens: Length of a prompt.
        sampler: A `clockwork_experiments.generate.text.SamplerSpec`, as plain data.
        adaptor: Folder of a learned adaptor; a key of
            `clockwork_diffusion.adaptors.KINDS`, with random weights if it has any; or
            empty.
        cut: Where the UNet is split.
        branch: Reuse features at this skip connection (DeepCache's branch) instead of
            using an adaptor.
    """

    model: str
    tokens: int
    sampler: dict[str, object]
    adaptor: str = ""
    cut: str = "stage1"
    branch: int | None = None

    def __post_init__(self) -> None:
        """Reject runs with two kinds of light pass."""
        if self.adaptor and self.branch is not None:
            raise ValueError("give either an adaptor or a branch, not both")


@dataclass(frozen=True)
class TimingSpec:
    """What to time, and how often.

    Attributes:
        runs: Runs by id; they take turns in this order.
        repeats: Timed runs of each.
        text_channels: Width of the pooled text embedding.
        dtype: Precision to compute in, ``float16`` or ``float32``.
    """

    runs: dict[str, TimedRun]
    repeats: int
    text_channels: int
    dtype: str = "float32"

    def __post_init__(self) -> None:
        """Reject a precision that is not one of ours."""
        if self.dtype not in ("float16", "float32"):
            raise ValueError(f"dtype {self.dtype!r} is not float16 or float32")


def time_sampling(
    spec: TimingSpec,
    output: Path,
) -> None:
    """Load each model once, and let all runs take turns.

    Args:
        spec: What to time, and how.
        output: JSON to write.
    """
    import torch

    from clockwork_diffusion import branches
    from clockwork_diffusion.passes import UNetPasses
    from clockwork_experiments.cost import latency
    from clockwork_experiments.generate import runs, text
    from clockwork_experiments.models import loading

    device, dtype = loading.default_device(), getattr(torch, spec.dtype)
    folders = dict.fromkeys(timed.model for timed in spec.runs.values())
    # The UNet alone: what else a pipeline holds may go.
    unets = {
        folder: loading.load_pipeline(Path(folder), device, dtype).unet
        for folder in folders
    }
    loops = {}
    for name, timed in spec.runs.items():
        sampler = parse(text.SamplerSpec, timed.sampler, f"spec.runs.{name}")
        unet = unets[timed.model]
        passes: UNetPasses
        if timed.branch is not None:
            passes = branches.BranchPasses(branches.BranchUNet(unet, timed.branch))
        else:
            passes = runs.split_passes(
                unet,
                timed.cut,
                timed.adaptor,
                spec.text_channels,
                model=Path(timed.model),
                scheduler=sampler.scheduler,
                steps=sampler.steps,
            )
        loops[name] = latency.unet_loop(
            passes, sampler, timed.tokens, spec.text_channels
        )
    log.info("%d runs of %d models take turns", len(loops), len(unets))
    timings = latency.time_in_turns(loops, spec.repeats)
    storage.write_json(
        output,
        {
            "unit": "milliseconds for the UNet passes of one image",
            "device": provenance.device_name(),
            "dtype": spec.dtype,
            "runs": {k: dataclasses.asdict(v) for k, v in timings.items()},
            "versions": provenance.versions("torch", "diffusers"),
        },
    )


if __name__ == "__main__":
    run(time_sampling)
