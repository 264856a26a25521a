"""Time the UNet passes of a whole sampling run with PyTorch's benchmark utilities.

As in the paper (Section 5.1): the UNet passes alone, at the batch that guidance needs,
without text encoder, scheduler and decoder; mean of ten runs after warm-up. Variants
take turns, so that a drift of the machine's speed touches all of them alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch.utils.benchmark import Timer

from clockwork_diffusion.clock import steps_of_calls
from clockwork_diffusion.sampling import Memory, SamplerSpec, UNetPasses


@dataclass(frozen=True)
class Timing:
    """Latency of one variant.

    Attributes:
        mean_ms: Mean over the runs in milliseconds.
        std_ms: Standard deviation over the runs in milliseconds.
        runs: Each run in milliseconds, in order; run *i* of all variants is a pair.
    """

    mean_ms: float
    std_ms: float
    runs: tuple[float, ...]


def unet_loop(
    passes: UNetPasses,
    spec: SamplerSpec,
    tokens: int,
    text_channels: int,
) -> Callable[[], None]:
    """Return a callable that runs one image's UNet passes, one after the other.

    Raises:
        ValueError: If the clock needs an adaptor, or one of another kind.
    """
    unet, clock = passes.unet, spec.phases
    passes.check(clock)
    like = {"device": unet.device, "dtype": unet.dtype}
    size, batch = unet.config.sample_size, spec.branches
    x = torch.randn(batch, unet.config.in_channels, size, size, **like)
    c = torch.randn(batch, tokens, unet.config.cross_attention_dim, **like)
    pooled = torch.randn(batch, text_channels, **like)
    owners = steps_of_calls(spec.scheduler, spec.steps)
    timesteps = torch.linspace(999, 0, len(owners), device=unet.device).round()

    @torch.inference_mode()
    def loop() -> None:
        memory = Memory()
        for index, timestep in zip(owners, timesteps, strict=True):
            memory.run(passes, clock, index, x, timestep, c, pooled)

    return loop


def time_in_turns(
    loops: Mapping[str, Callable[[], None]], runs: int = 10, warm_up: int = 2
) -> dict[str, Timing]:
    """Time callables in turns.

    Args:
        loops: What to time, by name.
        runs: Timed runs of each.
        warm_up: Untimed runs of each, first.
    """
    timers = {
        name: Timer(
            "loop()", globals={"loop": loop}, num_threads=torch.get_num_threads()
        )
        for name, loop in loops.items()
    }
    for loop in loops.values():
        for _ in range(warm_up):
            loop()
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(runs):
        for name, timer in timers.items():
            # Synchronises with the GPU, if there is one.
            seconds[name].append(timer.timeit(1).mean)
    timings = {}
    for name, values in seconds.items():
        in_ms = torch.tensor(values, dtype=torch.float64) * 1e3
        deviation = float(in_ms.std()) if runs > 1 else 0.0
        timings[name] = Timing(float(in_ms.mean()), deviation, tuple(in_ms.tolist()))
    return timings
