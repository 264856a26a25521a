"""Sample images with or without a clock; all state lives in one call.

The starting noise of an image depends on its own seed alone, so that image *i* is the
same in any batch or shard, and two runs with the same seeds are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    SchedulerMixin,
    StableDiffusionPipeline,
)

from clockwork_diffusion.clock import Clock
from clockwork_diffusion.split import SplitUNet, Step

SCHEDULERS: dict[str, type[SchedulerMixin]] = {
    "dpmpp": DPMSolverMultistepScheduler,
    "ddim": DDIMScheduler,
}
"""Samplers that call the UNet once per step."""


@dataclass(frozen=True)
class SamplerSpec:
    """How to sample.

    Attributes:
        scheduler: A key of `SCHEDULERS`.
        steps: Number of sampling steps.
        guidance: Scale of classifier-free guidance; 1 turns it off, and with it the
            second half of the batch.
        clock: Runs the whole UNet once in so many steps; 1 at every step.
    """

    scheduler: str
    steps: int
    guidance: float
    clock: int = 1

    def __post_init__(self) -> None:
        """Reject values that make no sampler."""
        if self.scheduler not in SCHEDULERS:
            raise ValueError(
                f"scheduler {self.scheduler!r} is not one of {', '.join(SCHEDULERS)}"
            )
        if self.steps < 1:
            raise ValueError(f"step count {self.steps} is less than 1")
        if self.guidance < 1:
            raise ValueError(f"guidance {self.guidance} is less than 1")
        Clock(self.clock)

    @property
    def branches(self) -> int:
        """UNet samples per image and step: 2 with guidance, else 1."""
        return 2 if self.guidance > 1 else 1


@dataclass(frozen=True)
class Prompts:
    """Encoded prompts, one row each.

    Attributes:
        text: Features for cross attention, ``(N, L, D)``.
        pooled: Pooled embedding for the adaptor, ``(N, P)``, or None.
        empty: The empty prompt's features, ``(1, L, D)``.
        empty_pooled: The empty prompt's pooled embedding, ``(1, P)``, or None.
    """

    text: torch.Tensor
    empty: torch.Tensor
    pooled: torch.Tensor | None = None
    empty_pooled: torch.Tensor | None = None

    def __getitem__(self, index: slice) -> Prompts:
        """Return some of the prompts."""
        pooled = None if self.pooled is None else self.pooled[index]
        return Prompts(self.text[index], self.empty, pooled, self.empty_pooled)

    def __len__(self) -> int:
        """Return the number of prompts."""
        return len(self.text)


class Passes:
    """The two kinds of UNet pass of a run, eager or compiled.

    Attributes:
        split: The UNet, split at the adaptor's cut.
        adaptor: φ, or None if every step is full.
    """

    def __init__(
        self,
        split: SplitUNet,
        adaptor: Any = None,
        *,
        compiled: bool = False,
    ) -> None:
        """Bind the passes.

        Args:
            split: The UNet, split at the adaptor's cut.
            adaptor: φ, or None if every step is full.
            compiled: Compile each kind of pass as one graph.

        Raises:
            ValueError: If the adaptor is for another cut.
        """
        self.split, self.adaptor = split, adaptor
        if adaptor is not None and adaptor.config.cut != split.cut:
            raise ValueError(
                f"the adaptor is for cut {adaptor.config.cut!r}, "
                f"and the UNet is split at {split.cut!r}"
            )
        self._full = _compile(split.full) if compiled else split.full
        self._adapt = _compile(split.adapt) if compiled else split.adapt
        self._reuse = _compile(split.reuse) if compiled else split.reuse

    def full(self, x: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> Step:
        """Run the whole UNet."""
        return self._full(x, t, c)

    def light(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        c: torch.Tensor,
        previous: Step,
        pooled: torch.Tensor | None,
        **kwargs: Any,
    ) -> Step:
        """Run ε_H and the adaptor, given what the previous step yielded."""
        if getattr(self.adaptor, "is_identity", False):
            return self._reuse(x, t, c, previous.up, previous.r_out, **kwargs)
        return self._adapt(x, t, c, previous.r_out, self.adaptor, pooled, **kwargs)


def _compile(function: Callable[..., Step]) -> Callable[..., Step]:
    return torch.compile(function, fullgraph=True)


def new_scheduler(kind: str, config: object, steps: int) -> SchedulerMixin:
    """Return a scheduler with a model's noise schedule, set to a number of steps."""
    if kind not in SCHEDULERS:
        raise ValueError(f"scheduler {kind!r} is not one of {', '.join(SCHEDULERS)}")
    scheduler = SCHEDULERS[kind].from_config(config)
    scheduler.set_timesteps(steps)
    return scheduler


@torch.inference_mode()
def encode_prompts(
    pipe: StableDiffusionPipeline,
    prompts: Sequence[str],
    pool: Callable[[Sequence[str]], torch.Tensor] | None = None,
) -> Prompts:
    """Encode prompts with the pipeline's text encoder, and pool them for an adaptor.

    Args:
        pipe: The pipeline.
        prompts: The prompts.
        pool: Maps texts to pooled embeddings, ``(N, P)``; the paper takes OpenCLIP's.
    """
    text, empty = pipe.encode_prompt(
        list(prompts),
        device=pipe.device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=True,
    )
    if pool is None:
        return Prompts(text, empty[:1])
    like = {"device": pipe.device, "dtype": text.dtype}
    return Prompts(text, empty[:1], pool(prompts).to(**like), pool([""]).to(**like))


def image_seed(seed: int, index: int) -> int:
    """Return the seed of image ``index`` of a run; runs of another seed share none."""
    return seed * 1_000_000 + index


def initial_noise(seeds: Sequence[int], shape: tuple[int, int, int]) -> torch.Tensor:
    """Draw each image's starting noise on the CPU from its own seed.

    Returns:
        float32, ``(len(seeds), *shape)``.
    """
    return torch.stack(
        [
            torch.randn(shape, generator=torch.Generator().manual_seed(seed))
            for seed in seeds
        ]
    )


@torch.inference_mode()
def sample_latents(
    passes: Passes,
    scheduler_config: object,
    prompts: Prompts,
    noise: torch.Tensor,
    spec: SamplerSpec,
    on_step: Callable[[int, torch.Tensor, Step], None] | None = None,
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

    Returns:
        Latents, ``(N, C, h, w)``, scaled as the UNet sees them.

    Raises:
        ValueError: If the clock needs an adaptor and there is none.
    """
    clock = Clock(spec.clock)
    if spec.clock > 1 and passes.adaptor is None:
        raise ValueError(f"clock {spec.clock} needs an adaptor")
    scheduler = new_scheduler(spec.scheduler, scheduler_config, spec.steps)
    unet = passes.split.unet
    count, guided = len(prompts), spec.branches == 2
    text, pooled = prompts.text, prompts.pooled
    if guided:
        text = torch.cat([prompts.empty.expand(count, -1, -1), text])
        if pooled is not None and prompts.empty_pooled is not None:
            pooled = torch.cat([prompts.empty_pooled.expand(count, -1), pooled])
    latents = noise.to(unet.device, unet.dtype) * scheduler.init_noise_sigma
    step: Step | None = None
    for index, timestep in enumerate(scheduler.timesteps):
        batch = torch.cat([latents, latents]) if guided else latents
        batch = scheduler.scale_model_input(batch, timestep)
        if step is None or clock.is_full(index):
            step = passes.full(batch, timestep, text)
        else:
            step = passes.light(batch, timestep, text, step, pooled)
        if on_step is not None:
            on_step(index, timestep, step)
        eps = step.eps
        if guided:
            empty, prompted = eps.chunk(2)
            eps = empty + spec.guidance * (prompted - empty)
        latents = scheduler.step(eps, timestep, latents, return_dict=False)[0]
    return latents


@torch.inference_mode()
def decode_latents(
    pipe: StableDiffusionPipeline, latents: torch.Tensor, batch_size: int = 64
) -> torch.Tensor:
    """Decode latents to uint8 images, ``(N, 3, H, W)``, on the CPU."""
    parts = []
    for batch in latents.split(batch_size):
        pixels = pipe.vae.decode(batch / pipe.vae.config.scaling_factor).sample
        parts.append(((pixels / 2 + 0.5).clamp(0, 1) * 255).round().byte().cpu())
    return torch.cat(parts)
