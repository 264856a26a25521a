"""Time UNets of Stable Diffusion's size on a GPU: Table S3, with random weights.

Time depends on the architecture and not on the weights, so that none are needed. Rows
are written as soon as they exist; a run that was cut off goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from pathlib import Path

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.cost import unet_timing
from clockwork_experiments.run import run

log = logging.getLogger(__name__)


def time_unet(
    spec: unet_timing.UNetTimingSpec,
    output: Path,
    device: str = "cuda",
    gpu: str = "",
    state: Path | None = None,
) -> None:
    """Time what is not yet timed, and keep each row as soon as it exists.

    Args:
        spec: What to time, and how.
        output: JSON to write; Markdown beside it.
        device: Where to time.
        gpu: Refuse any GPU but this, by its id.
        state: Where rows are kept until all exist.
    """
    import torch

    from clockwork_experiments.cost import latency

    began = time.monotonic()
    for mode in spec.modes:
        if mode not in latency.MODES:
            raise ValueError(f"mode {mode!r} is not one of {', '.join(latency.MODES)}")
    where = torch.device(device)
    on_gpu = where.type == "cuda"
    if on_gpu and not torch.cuda.is_available():
        raise ValueError(
            "UNets of Stable Diffusion's size are timed on a CUDA GPU, "
            "and there is none here"
        )
    slug = latency.gpu_slug() if on_gpu else "cpu"
    if gpu and gpu != slug:
        raise ValueError(f"the device here is {slug}, not {gpu}")
    facts = {
        "unit": "milliseconds for the UNet passes of one image",
        "weights": "random",
        "device": torch.cuda.get_device_name() if on_gpu else "CPU",
        "cuda": torch.version.cuda,
        "spec": dataclasses.asdict(spec),
        "code": provenance.code_sha256("steps.time_unet"),
        "versions": provenance.versions("torch", "diffusers"),
    }
    kept = state or output
    rows = unet_timing.known_rows(kept, facts)

    def write() -> None:
        result = {
            **facts,
            "complete": unet_timing.is_complete(spec, rows),
            "rows": rows,
        }
        for path in dict.fromkeys((kept, output)):
            storage.write_json(path, result)
        storage.write_text(output.with_suffix(".md"), unet_timing.to_markdown(result))

    def elapsed() -> float:
        return time.monotonic() - began

    unet_timing.time_rows(spec, where, rows, write, elapsed)
    write()
    if unet_timing.is_complete(spec, rows) and kept != output:
        kept.unlink()
    log.info("%d rows after %.0f s", len(rows), elapsed())


if __name__ == "__main__":
    run(time_unet)
