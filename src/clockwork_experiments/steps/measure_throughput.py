"""Measure the share of a raw UNet loop's speed that sampling and trajectories reach."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.random import marks
from clockwork_experiments.run import run

if TYPE_CHECKING:
    import torch

    from clockwork_experiments.cost.latency import Overhead

log = logging.getLogger(__name__)

BAR = 0.95
"""The least share that they should reach."""

LOOPS = {
    "sampling": "from noise to latents: scheduler, guidance and clock beside the UNet",
    "trajectories": "the same, with what adaptors learn from kept at every step",
}


@dataclass(frozen=True)
class ThroughputSpec:
    """What to measure.

    Attributes:
        model: Folder of the pipeline.
        text_channels: Width of the pooled text embedding.
        sampler: A `clockwork_experiments.generate.text.SamplerSpec`, as plain data.
        trajectory: A `train.trajectories.TrajectorySpec`, likewise; its
            batch is the sampler's.
        batch_size: Prompts per batch.
        pairs: Pairs of timed loops, 2 or more.
    """

    model: str
    text_channels: int
    sampler: dict[str, object]
    trajectory: dict[str, object]
    batch_size: int
    pairs: int


def measure_throughput(
    spec: ThroughputSpec,
    output: Path,
) -> None:
    """Time each loop and the raw one in turns, in one process.

    Args:
        spec: What to measure, and how.
        output: JSON to write; Markdown beside it.
    """
    import torch

    from clockwork_diffusion import encoding
    from clockwork_experiments.cost import latency
    from clockwork_experiments.generate import text
    from clockwork_experiments.models import loading
    from clockwork_experiments.train import trajectories

    sampler = parse(text.SamplerSpec, spec.sampler, "spec.sampler")
    recorded = parse(trajectories.TrajectorySpec, spec.trajectory, "spec.trajectory")
    folder, device = Path(spec.model), loading.default_device()
    pipe = loading.load_pipeline(folder, device)
    encoded = encoding.encode_prompts(
        pipe,
        [f"image {index}" for index in range(spec.batch_size)],
        lambda texts: torch.zeros(len(texts), spec.text_channels, device=device),
    )
    config, unet = pipe.scheduler.config, pipe.unet
    shape = trajectories.latent_shape(unet)
    noise = text.initial_noise(range(spec.batch_size), shape)

    def sample() -> torch.Tensor:
        return text.sample(
            pipe, encoded, text.generators(range(spec.batch_size)), sampler
        )

    def unroll() -> dict[str, torch.Tensor]:
        return trajectories.unroll(pipe, encoded, recorded, 0)

    loops: dict[str, tuple[Callable[[], object], text.SamplerSpec]] = {
        "sampling": (sample, sampler),
        "trajectories": (unroll, recorded.sampler),
    }
    measured = {}
    for name, (ours, how) in loops.items():
        bare = raw_loop(unet, config, how, encoded, noise)
        found = latency.compare(ours, bare, spec.pairs, warm_up=1)
        measured[name] = shares(found)
        log.info("%s: %s", name, measured[name])
    result = {
        "unit": "time of the raw loop / time of ours; 1 is its speed",
        "model": spec.model,
        **marks.mark([folder]),
        "size": unet.config.sample_size,
        "channels": list(unet.config.block_out_channels),
        "batch_size": spec.batch_size,
        "steps": sampler.steps,
        "device": provenance.device_name(),
        "bar": BAR,
        "loops": measured,
        "versions": provenance.versions("torch", "diffusers"),
    }
    storage.write_json(output, result)
    storage.write_text(output.with_suffix(".md"), to_markdown(result))


def raw_loop(
    unet: Any, config: object, how: Any, encoded: Any, noise: torch.Tensor
) -> Callable[[], object]:
    """Return a loop of diffusers' own UNet calls, with none of our code in it.

    The inputs are as large as ours, and the timesteps the same; nothing is done with
    what the UNet returns.
    """
    import torch

    from clockwork_diffusion.schedulers import new_scheduler

    timesteps = new_scheduler(how.scheduler, config, how.steps).timesteps
    text, x = encoded.text, noise.to(unet.device, unet.dtype)
    if how.branches == 2:
        text = torch.cat([encoded.empty.expand(len(text), -1, -1), text])
        x = torch.cat([x, x])

    @torch.inference_mode()
    def loop() -> object:
        out = None
        for timestep in timesteps:
            out = unet(x, timestep, text, return_dict=False)
        return out

    return loop


def shares(found: Overhead) -> dict[str, float | int]:
    """Return an overhead as shares of the bare loop's speed."""
    return {
        "share": 1 / (1 + found.overhead),
        "low": 1 / (1 + found.high),
        "high": 1 / (1 + found.low),
        "control": 1 / (1 + found.control),
        "raw_ms": found.bare_ms,
        "pairs": found.pairs,
    }


def to_markdown(result: Mapping[str, Any]) -> str:
    """Return the measurements as a table for people."""
    from clockwork_experiments.cost.latency import markdown_table

    rows = [
        [
            name,
            f"{each['raw_ms']:,.0f}",
            f"{100 * each['share']:.1f} % "
            f"[{100 * each['low']:.1f}, {100 * each['high']:.1f}]",
            f"{100 * each['control']:.1f} %",
            f"≥ {100 * result['bar']:g} %",
            "yes" if each["share"] >= result["bar"] else "no",
        ]
        for name, each in result["loops"].items()
    ]
    header = ["", "raw loop, ms", "our speed", "raw against itself", "bar", "met"]
    weights = (
        f"{marks.SHOWN}, which time does not depend on; "
        if result.get(marks.KEY)
        else ""
    )
    what = "; ".join(f"*{name}*: {said}" for name, said in LOOPS.items())
    channels = "-".join(map(str, result["channels"]))
    versions = ", ".join(f"{k} {v}" for k, v in result["versions"].items())
    pairs = next(iter(result["loops"].values()))["pairs"]
    return (
        "**Share of the raw UNet loop's speed**\n\n"
        f"{markdown_table(header, rows)}\n"
        f"UNet {channels} at {result['size']}×{result['size']}, batch "
        f"{result['batch_size']}, {result['steps']} steps; {weights}raw loop: "
        f"diffusers' UNet with inputs of the same size and nothing else. {what}. "
        f"Median of {pairs} paired ratios in random order, one process, with its 95 % "
        f"bootstrap interval. {result['device']}; {versions}.\n"
    )


if __name__ == "__main__":
    run(measure_throughput)
