"""Measure what the library's door adds to a UNet pass, against its modules bare."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.run import run

log = logging.getLogger(__name__)

WARM_UP = 4
"""Untimed rounds, first; compiled passes are compiled in them."""

BAR = 0.01
"""The most that a step through the door may cost above its modules."""


@dataclass(frozen=True)
class Case:
    """A UNet and a batch.

    Attributes:
        batch: Samples per pass.
        pairs: Pairs of timed calls.
        channels: Channels of a random UNet with SD v1.5's topology; of the shipped
            model if empty.
        size: Its height and width of latents.
        compiled: Whether both sides are compiled, each pass as one graph.
    """

    batch: int
    pairs: int
    channels: tuple[int, ...] = ()
    size: int = 0
    compiled: bool = False


@dataclass(frozen=True)
class OverheadSpec:
    """What to measure.

    Attributes:
        model: Folder of the pipeline whose UNet is measured.
        tokens: Length of its prompts.
        text_channels: Width of the pooled text embedding.
        adaptor: A learned key of `clockwork_diffusion.adaptors.KINDS`; its weights are
            random, which time does not depend on.
        cases: The cases.
    """

    model: str
    tokens: int
    text_channels: int
    adaptor: str
    cases: tuple[Case, ...]


def measure_overhead(
    spec: OverheadSpec,
    output: Path,
) -> None:
    """Measure case by case in one process.

    Args:
        spec: What to measure, and how.
        output: JSON to write; Markdown beside it.
    """
    import torch

    from clockwork_diffusion import adaptors
    from clockwork_experiments.cost import architectures, latency
    from clockwork_experiments.models import loading

    device = loading.default_device()
    measured: list[dict[str, Any]] = []
    for case in spec.cases:
        torch.manual_seed(0)
        if case.channels:
            base = {
                **architectures.SD_V15,
                "block_out_channels": case.channels,
                "sample_size": case.size,
            }
            unet = architectures.build_unet("sd", base, device).requires_grad_(False)
            tokens = architectures.SD_V15_TEXT[0]
            text_channels = architectures.VIT_G14_WIDTH
        else:
            unet = loading.load_pipeline(Path(spec.model), device).unet
            tokens, text_channels = spec.tokens, spec.text_channels
        adaptor = adaptors.build_adaptor(spec.adaptor, unet, "stage1", text_channels)
        adaptor = adaptor.to(device).eval().requires_grad_(False)
        given = latency.random_inputs(unet, case.batch, tokens, text_channels)
        rounds, compiled = case.pairs + WARM_UP, case.compiled
        with latency.through_the_door(unet, adaptor, given, rounds, compiled) as kinds:
            found = latency.compare_in_turns(kinds, case.pairs, warm_up=WARM_UP)
        log.info("batch %d: %s", case.batch, found)
        measured.append(
            {
                "unet": "random weights" if case.channels else spec.model,
                "channels": list(unet.config.block_out_channels),
                "size": unet.config.sample_size,
                "batch": case.batch,
                "mode": "compiled" if compiled else "eager",
                "steps": {kind: asdict(each) for kind, each in found.items()},
            }
        )
    result = {
        "unit": "share of the bare time; 0.01 is 1 %",
        "device": provenance.device_name(),
        "threads": torch.get_num_threads(),
        "adaptor": f"{spec.adaptor}, random weights",
        "bar": BAR,
        "cases": measured,
        "versions": provenance.versions("torch", "diffusers"),
    }
    storage.write_json(output, result)
    storage.write_text(output.with_suffix(".md"), to_markdown(result))


def to_markdown(result: Mapping[str, Any]) -> str:
    """Return the measurements as a table for people."""
    from clockwork_experiments.cost.latency import markdown_table, percent

    rows, bar = [], result["bar"]
    for kind in ("adaptor", "full"):
        for case in result["cases"]:
            step = case["steps"][kind]
            channels = "-".join(map(str, case["channels"]))
            rows.append(
                [
                    f"{kind} step, {channels} at {case['size']}×{case['size']}, "
                    f"{case['mode']}",
                    str(case["batch"]),
                    f"{step['bare_ms']:.2f}",
                    f"{percent(step['overhead'])} "
                    f"[{percent(step['low'])}, {percent(step['high'])}]",
                    percent(step["control"]),
                    f"≤ {100 * bar:g} %",
                    "yes" if step["overhead"] <= bar else "no",
                ]
            )
    header = ["", "batch", "bare ms", "overhead", "bare against itself", "bar", "met"]
    pairs = sorted(case["steps"]["full"]["pairs"] for case in result["cases"])
    count = " to ".join(map(str, dict.fromkeys((pairs[0], pairs[-1]))))
    versions = ", ".join(f"{k} {v}" for k, v in result["versions"].items())
    return (
        "**What a pass through the library's door costs above its modules**\n\n"
        f"{markdown_table(header, rows)}\n"
        f"Median of paired ratios ({count} pairs in random order, one process) with "
        "its 95 % bootstrap interval. The UNet is called as pipelines call it, with "
        "Clockwork applied, in one run at clock 2: an adaptor step (ε_H + φ) against "
        "its modules, called one by one; a full step against the forward of diffusers' "
        f"UNet. Adaptor: {result['adaptor']}. "
        f"{result['device']}; {versions}.\n"
    )


if __name__ == "__main__":
    run(measure_overhead)
