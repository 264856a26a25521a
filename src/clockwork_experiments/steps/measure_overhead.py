"""Measure what our code adds to a UNet pass, against the same modules run bare."""

from __future__ import annotations

import dataclasses
import logging
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.run import new_parser, run

log = logging.getLogger(__name__)

BARS = {"adaptor": 0.03, "full": 0.01}
"""The most that an adaptor step and a full step may cost above their modules."""

STEPS = {
    "adaptor": "An adaptor step (ε_H + φ) against its modules, called one by one",
    "full": "a full step against the forward of diffusers' UNet",
}


@dataclass(frozen=True)
class Case:
    """A UNet and a batch.

    Attributes:
        batch: Samples per pass.
        pairs: Pairs of timed calls.
        channels: Channels of a random UNet with SD v1.5's topology; of the shipped
            model if empty.
        size: Its height and width of latents.
    """

    batch: int
    pairs: int
    channels: tuple[int, ...] = ()
    size: int = 0


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


def main(args: Namespace) -> None:
    """Measure case by case in one process."""
    import torch

    from clockwork_diffusion import adaptors
    from clockwork_experiments.cost import architectures, latency
    from clockwork_experiments.models import loading

    spec = parse(OverheadSpec, args.spec)
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
        steps = {}
        for kind, (ours, bare) in latency.step_pairs(unet, adaptor, given).items():
            steps[kind] = dataclasses.asdict(latency.compare(ours, bare, case.pairs))
            log.info("batch %d, %s: %s", case.batch, kind, steps[kind])
        measured.append(
            {
                "unet": "random weights" if case.channels else spec.model,
                "channels": list(unet.config.block_out_channels),
                "size": unet.config.sample_size,
                "batch": case.batch,
                "steps": steps,
            }
        )
    result = {
        "unit": "share of the bare time; 0.01 is 1 %",
        "device": provenance.device_name(),
        "threads": torch.get_num_threads(),
        "adaptor": f"{spec.adaptor}, random weights",
        "bars": BARS,
        "cases": measured,
        "versions": provenance.versions("torch", "diffusers"),
    }
    storage.write_json(args.output, result)
    storage.write_text(args.output.with_suffix(".md"), to_markdown(result))


def to_markdown(result: Mapping[str, Any]) -> str:
    """Return the measurements as a table for people."""
    from clockwork_experiments.cost.latency import markdown_table, percent

    rows = []
    for kind, bar in result["bars"].items():
        for case in result["cases"]:
            step = case["steps"][kind]
            channels = "-".join(map(str, case["channels"]))
            rows.append(
                [
                    f"{kind} step, {channels} at {case['size']}×{case['size']}",
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
    pairs = sorted(c["steps"][kind]["pairs"] for c in result["cases"] for kind in STEPS)
    count = " to ".join(map(str, dict.fromkeys((pairs[0], pairs[-1]))))
    versions = ", ".join(f"{k} {v}" for k, v in result["versions"].items())
    return (
        "**What our code adds to a UNet pass**\n\n"
        f"{markdown_table(header, rows)}\n"
        f"Median of paired ratios ({count} pairs in random order, one process) with "
        "its 95 % bootstrap interval. "
        f"{'; '.join(STEPS.values())}. Adaptor: {result['adaptor']}. "
        f"{result['device']}; {versions}.\n"
    )


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="OverheadSpec as JSON")
    parser.add_argument(
        "--output", required=True, type=Path, help="JSON to write; Markdown beside it"
    )
    run(parser, main)
