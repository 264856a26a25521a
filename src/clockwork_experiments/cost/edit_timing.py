"""Time both loops of edits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from clockwork_experiments.cost.edit_loops import EditLoops
    from clockwork_experiments.cost.latency import Timing


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


def parts_of(
    loops: EditLoops,
) -> tuple[Callable[[], object], Callable[[], object], int]:
    """Return what is done once for an image, what for each prompt, and bytes kept."""
    from clockwork_experiments.cost.edit_loops import kept_bytes

    def invert() -> Any:
        inverted = loops.invert()
        return inverted, loops.extract(inverted)

    kept = invert()
    return invert, lambda: loops.generate(*kept), kept_bytes(*kept)


def add_up(inversion: Timing, generation: Timing) -> dict[str, object]:
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
