"""Sample images by diffusers' pipelines, with or without a method applied.

The starting noise of an image depends on its own seed alone, so that image *i* is the
same in any batch or shard, and two runs with the same seeds are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import SchedulerMixin, StableDiffusionPipeline

from clockwork_diffusion.clock import Calls, Clock
from clockwork_diffusion.encoding import Prompts
from clockwork_diffusion.finite import then
from clockwork_diffusion.pooling import PooledTable
from clockwork_diffusion.schedulers import (
    new_scheduler,
    scheduler_class,
    visiting,
)


@dataclass(frozen=True)
class SamplerSpec:
    """How to sample.

    Attributes:
        scheduler: A key of `clockwork_diffusion.schedulers.SCHEDULERS`, or a class of
            diffusers by its name.
        steps: Number of sampling steps.
        guidance: Scale of classifier-free guidance; 1 turns it off, and with it the
            second half of the batch.
        clock: Runs the whole UNet once in so many steps; 1 at every step.
        adaptor_steps: Steps that use the adaptor, counted from 1 (Table 3), instead of
            a clock.
        every_step: Use the adaptor at all steps, the first included (Table S2's model
            distillation), instead of a clock.
        mask: A digit for each step, 1 where it is full and 0 where it is light, such
            as "10010100", instead of a clock.
    """

    scheduler: str
    steps: int
    guidance: float
    clock: int = 1
    adaptor_steps: tuple[int, ...] = ()
    every_step: bool = False
    mask: str = ""

    def __post_init__(self) -> None:
        """Reject values that make no sampler."""
        scheduler_class(self.scheduler)
        if self.guidance < 1:
            raise ValueError(f"guidance {self.guidance} is less than 1")
        self.phases.full_steps(self.steps)

    @property
    def phases(self) -> Clock:
        """The clock C(t), given by its period or by its steps."""
        return Clock(self.clock, self.adaptor_steps, self.every_step, self.mask)

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


def described(prompt: str, seed: int, index: int) -> str:
    """Say which image of a run is meant."""
    return f"image {index}, prompt {prompt!r}, seed {image_seed(seed, index)}"


def table_of(prompts: Prompts) -> PooledTable | None:
    """Return what finds prompts' pooled embeddings by their text features, if any."""
    if prompts.pooled is None or prompts.empty_pooled is None:
        return None
    table = PooledTable(len(prompts) + 1)
    table.add(prompts.text, prompts.pooled)
    table.add(prompts.empty, prompts.empty_pooled)
    return table


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """Return each image's generator, on the CPU, so that devices draw the same."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def initial_noise(seeds: Sequence[int], shape: tuple[int, int, int]) -> torch.Tensor:
    """Draw each image's starting noise from its own seed, as pipelines do.

    Returns:
        float32, ``(len(seeds), *shape)``.
    """
    return torch.stack([torch.randn(shape, generator=g) for g in generators(seeds)])


@contextmanager
def sampling_by(pipe: Any, scheduler: SchedulerMixin) -> Iterator[None]:
    """Let another scheduler sample within a block; the model's own comes back."""
    own, pipe.scheduler = pipe.scheduler, scheduler
    try:
        yield
    finally:
        pipe.scheduler = own


@torch.inference_mode()
def sample(
    pipe: StableDiffusionPipeline,
    prompts: Prompts,
    noise: torch.Tensor | Sequence[torch.Generator],
    spec: SamplerSpec,
    on_step_end: Callable[..., dict[str, Any]] | None = None,
    timesteps: Sequence[int] = (),
) -> torch.Tensor:
    """Sample by the pipeline itself, with whatever method is applied to it.

    Args:
        pipe: The pipeline; `clockwork_diffusion` may be applied to it.
        prompts: Encoded prompts, N of them.
        noise: What draws each image's starting noise, and what a stochastic scheduler
            adds; or the starting noise itself, ``(N, C, h, w)``, of unit variance.
        spec: How to sample; its clock is the method's, which is applied already.
        on_step_end: As the pipeline's ``callback_on_step_end``.
        timesteps: The time steps to visit; the scheduler's own if left out.

    Returns:
        Latents, ``(N, C, h, w)``, scaled as the UNet sees them.

    Raises:
        NotFiniteError: If latents are not finite, naming step and rows.
    """
    given = isinstance(noise, torch.Tensor)
    scheduler = new_scheduler(spec.scheduler, pipe.scheduler.config, spec.steps)
    if timesteps:
        scheduler = visiting(scheduler, timesteps)
    with sampling_by(pipe, scheduler):
        latents: torch.Tensor = pipe(
            prompt_embeds=prompts.text,
            negative_prompt_embeds=prompts.empty.expand_as(prompts.text),
            num_inference_steps=spec.steps,
            guidance_scale=spec.guidance,
            latents=noise if given else None,
            generator=None if given else list(noise),
            callback_on_step_end=then(on_step_end),
            output_type="latent",
        ).images
    return latents
