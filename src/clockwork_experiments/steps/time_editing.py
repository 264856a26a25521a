"""Time both loops of several edited runs in turns, of one model or of several."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.run import run

if TYPE_CHECKING:
    from collections.abc import Callable

    from clockwork_experiments.cost.edit_loops import EditLoops
    from clockwork_experiments.cost.latency import Timing

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TimedEdit:
    """An edited run to time.

    An adaptor is the folder of a learned one; a key of
    `clockwork_diffusion.adaptors.KINDS`, with random weights if it has any; or empty.

    Attributes:
        model: Folder of the pipeline.
        tokens: Length of a prompt.
        inversion: A `cost.edit_loops.InversionLoop`, as plain data.
        generation: A `cost.edit_loops.GenerationLoop`, as plain data.
    """

    model: str
    tokens: int
    inversion: dict[str, object]
    generation: dict[str, object]


@dataclass(frozen=True)
class TimingSpec:
    """What to time, and how often.

    Attributes:
        runs: Runs by ``<edit>/<setting>``; they take turns in this order.
        repeats: Timed runs of each.
        text_channels: Width of the pooled text embedding.
        dtype: Precision to compute in, ``float16`` or ``float32``.
    """

    runs: dict[str, TimedEdit]
    repeats: int
    text_channels: int
    dtype: str = "float32"

    def __post_init__(self) -> None:
        """Reject what cannot be timed, or not be looked up later."""
        if self.dtype not in ("float16", "float32"):
            raise ValueError(f"dtype {self.dtype!r} is not float16 or float32")
        if self.repeats < 1:
            raise ValueError(f"repeats {self.repeats} is less than 1")
        for name in self.runs:
            if name.count("/") != 1:
                raise ValueError(f"run {name!r} is not <edit>/<setting>")


def time_editing(
    spec: TimingSpec,
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
        invert, generate, memory[name] = _parts(loops)
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
                name: _together(
                    timings[f"{name} inversion"], timings[f"{name} generation"]
                )
                for name in spec.runs
            },
            "memory": memory,
            "versions": provenance.versions("torch", "diffusers"),
        },
    )


def _parts(
    loops: EditLoops,
) -> tuple[Callable[[], object], Callable[[], object], int]:
    """Return what is done once for an image, what for each prompt, and bytes kept."""
    from clockwork_experiments.cost.edit_loops import kept_bytes

    def invert() -> Any:
        inverted = loops.invert()
        return inverted, loops.extract(inverted)

    kept = invert()
    return invert, lambda: loops.generate(*kept), kept_bytes(*kept)


def _together(inversion: Timing, generation: Timing) -> dict[str, object]:
    """Add up the two loops' times; run *i* of both are a pair."""
    import torch

    pairs = zip(inversion.runs, generation.runs, strict=True)
    both = torch.tensor([sum(pair) for pair in pairs], dtype=torch.float64)
    return {
        "mean_ms": float(both.mean()),
        "std_ms": float(both.std()) if len(both) > 1 else 0.0,
        "runs": both.tolist(),
        "inversion_ms": inversion.mean_ms,
        "generation_ms": generation.mean_ms,
        # Whatever is kept of the image is there already.
        "per_prompt_ms": generation.mean_ms,
    }


if __name__ == "__main__":
    run(time_editing)
