"""Time both loops of several edited runs in turns, of one model or of several."""

from __future__ import annotations

import logging
from pathlib import Path

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.cost import edit_timing
from clockwork_experiments.run import run

log = logging.getLogger(__name__)


def time_editing(
    spec: edit_timing.TimingSpec,
    output: Path,
) -> None:
    """Load each model once, and let the loops of all runs take turns.

    Args:
        spec: What to time, and how.
        output: JSON to write.
    """
    import torch

    from clockwork_experiments.cost import edit_loops, latency
    from clockwork_experiments.generate import runs
    from clockwork_experiments.models import loading

    device, dtype = loading.default_device(), getattr(torch, spec.dtype)
    models = {}
    for folder in dict.fromkeys(timed.model for timed in spec.runs.values()):
        pipe = loading.load_pipeline(Path(folder), device, dtype)
        # What else a pipeline holds may go.
        models[folder] = (pipe.unet, pipe.scheduler.config)
    timers, memory = {}, {}
    for name, timed in spec.runs.items():
        where = f"spec.runs.{name}"
        inversion = parse(
            edit_loops.InversionLoop, timed.inversion, f"{where}.inversion"
        )
        generation = parse(
            edit_loops.GenerationLoop, timed.generation, f"{where}.generation"
        )
        unet, config = models[timed.model]
        try:
            inverting, generating = (
                runs.split_passes(
                    unet,
                    loop.cut,
                    loop.adaptor,
                    spec.text_channels,
                    model=Path(timed.model),
                    scheduler="ddim",
                    steps=None,
                    loop=None,
                )
                for loop in (inversion, generation)
            )
            loops = edit_loops.EditLoops(
                inverting,
                generating,
                config,
                inversion,
                generation,
                timed.tokens,
                spec.text_channels,
            )
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        invert, generate, memory[name] = edit_timing.parts_of(loops)
        timers[f"{name} inversion"], timers[f"{name} generation"] = invert, generate
    log.info("%d runs of %d models take turns", len(spec.runs), len(models))
    # Once is enough: an inversion ran already, to make what its generation needs.
    timings = latency.time_in_turns(timers, spec.repeats, warm_up=1)
    storage.write_json(
        output,
        {
            "unit": "milliseconds for both loops of one image and one target prompt",
            "device": provenance.device_name(),
            "dtype": spec.dtype,
            "runs": {
                name: edit_timing.add_up(
                    timings[f"{name} inversion"], timings[f"{name} generation"]
                )
                for name in spec.runs
            },
            "memory": memory,
            "versions": provenance.versions("torch", "diffusers"),
        },
    )


if __name__ == "__main__":
    run(time_editing)
