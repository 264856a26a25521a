"""Measure what the library's door adds to a UNet pass, against its modules bare."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.cost import overhead
from clockwork_experiments.run import run

log = logging.getLogger(__name__)


def measure_overhead(
    spec: overhead.OverheadSpec,
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
        rounds, compiled = case.pairs + overhead.WARM_UP, case.compiled
        with latency.through_the_door(unet, adaptor, given, rounds, compiled) as kinds:
            found = latency.compare_in_turns(
                kinds, case.pairs, warm_up=overhead.WARM_UP
            )
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
        "bar": overhead.BAR,
        "cases": measured,
        "versions": provenance.versions("torch", "diffusers"),
    }
    storage.write_json(output, result)
    storage.write_text(output.with_suffix(".md"), overhead.to_markdown(result))


if __name__ == "__main__":
    run(measure_overhead)
