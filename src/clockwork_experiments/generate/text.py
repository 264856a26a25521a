"""Sample images with or without a clock; all state lives in one call.

The starting noise of an image depends on its own seed alone, so that image *i* is the
same in any batch or shard, and two runs with the same seeds are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from clockwork_diffusion.adaptors import log_snr
from clockwork_diffusion.clock import Calls, Clock, steps_of_calls
from clockwork_diffusion.encoding import Prompts
from clockwork_diffusion.passes import Memory, UNetPasses
from clockwork_diffusion.schedulers import SCHEDULERS, new_scheduler


@dataclass(frozen=True)
class SamplerSpec:
    """How to sample.

    Attributes:
        scheduler: A key of `clockwork_diffusion.schedulers.SCHEDULERS`.
        steps: Number of sampling steps.
        guidance: Scale of classifier-free guidance; 1 turns it off, and with it the
            second half of the batch.
        clock: Runs the whole UNet once in so many steps; 1 at every step.
        adaptor_steps: Steps that use the adaptor, counted from 1 (Table 3), instead of
            a clock.
        every_step: Use the adaptor at all steps, the first included (Table S2's model
            distillation), instead of a clock.
    """

    scheduler: str
    steps: int
    guidance: float
    clock: int = 1
    adaptor_steps: tuple[int, ...] = ()
    every_step: bool = False

    def __post_init__(self) -> None:
        """Reject values that make no sampler."""
        if self.scheduler not in SCHEDULERS:
            raise ValueError(
                f"scheduler {self.scheduler!r} is not one of {', '.join(SCHEDULERS)}"
            )
        if self.guidance < 1:
            raise ValueError(f"guidance {self.guidance} is less than 1")
        self.phases.full_steps(self.steps)

    @property
    def phases(self) -> Clock:
        """The clock C(t), given by its period or by its steps."""
        return Clock(self.clock, self.adaptor_steps, self.every_step)

    @property
    def branches(self) -> int:
        """UNet samples per image and step: 2 with guidance, else 1."""
        return 2 if self.guidance > 1 else 1

    @property
    def calls(self) -> Calls:
        """UNet calls of a run by kind, each at a batch of `branches` per image."""
        return self.phases.calls(self.scheduler, self.steps)


def image_seed(seed: int, index: int) -> int:
    """Return the seed of image ``index`` of a run; runs of another seed share none."""
    return seed * 1_000_000 + index


def initial_noise(seeds: Sequence[int], shape: tuple[int, int, int]) -> torch.Tensor:
    """Draw each image's starting noise on the CPU from its own seed.

    Returns:
        float32, ``(len(seeds), *shape)``.
    """
    return draw_noise([torch.Generator().manual_seed(seed) for seed in seeds], shape)


def step_generators(
    seeds: Sequence[int], shape: tuple[int, int, int]
) -> list[torch.Generator]:
    """Return each image's generator as `initial_noise` leaves it.

    What it draws at sampling steps depends on the image's seed alone, and is
    independent of the starting noise, which stays that of deterministic runs.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    draw_noise(generators, shape)
    return generators


def draw_noise(
    generators: Sequence[torch.Generator], shape: tuple[int, int, int]
) -> torch.Tensor:
    """Draw noise on the CPU, of each image from its own generator.

    Returns:
        float32, ``(len(generators), *shape)``.
    """
    return torch.stack([torch.randn(shape, generator=each) for each in generators])


@torch.inference_mode()
def sample_latents(
    passes: UNetPasses,
    scheduler_config: object,
    prompts: Prompts,
    noise: torch.Tensor,
    spec: SamplerSpec,
    on_step: Callable[[int, torch.Tensor, Any], None] | None = None,
) -> torch.Tensor:
    """Denoise; full passes and adaptor passes alternate as the clock says.

    Args:
        passes: The UNet's passes.
        scheduler_config: Configuration of the model's own scheduler.
        prompts: Encoded prompts, N of them.
        noise: Starting noise, ``(N, C, h, w)``, unit variance.
        spec: How to sample.
        on_step: Called after each pass with the step's index from 0, its timestep, and
            what the pass yielded; with guidance its rows are N empty, then N prompted.
            A step of several calls is reported after each of them.

    Returns:
        Latents, ``(N, C, h, w)``, scaled as the UNet sees them.

    Raises:
        ValueError: If the clock needs an adaptor, or one of another kind.
    """
    clock, memory = spec.phases, Memory()
    passes.check(clock)
    scheduler = new_scheduler(spec.scheduler, scheduler_config, spec.steps)
    unet = passes.unet
    count, guided = len(prompts), spec.branches == 2
    text, pooled = prompts.text, prompts.pooled
    if guided:
        text = torch.cat([prompts.empty.expand(count, -1, -1), text])
        if pooled is not None and prompts.empty_pooled is not None:
            pooled = torch.cat([prompts.empty_pooled.expand(count, -1), pooled])
    latents = noise.to(unet.device, unet.dtype) * scheduler.init_noise_sigma
    owners = steps_of_calls(spec.scheduler, spec.steps)
    firsts = [owners.index(step) for step in range(spec.steps)]
    levels = log_snr(scheduler, scheduler.timesteps[firsts])
    for index, timestep in zip(owners, scheduler.timesteps, strict=True):
        batch = torch.cat([latents, latents]) if guided else latents
        batch = scheduler.scale_model_input(batch, timestep)
        given = (batch, timestep, text, pooled)
        step = memory.run(passes, clock, index, *given, log_snr=levels)
        if on_step is not None:
            on_step(index, timestep, step)
        output = step.eps
        if guided:
            empty, prompted = output.chunk(2)
            output = empty + spec.guidance * (prompted - empty)
        latents = scheduler.step(output, timestep, latents, return_dict=False)[0]
    return latents
