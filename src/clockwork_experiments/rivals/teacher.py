"""A teacher's trajectory, which grids may be made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from clockwork_diffusion.encoding import Prompts
from clockwork_diffusion.schedulers import log_snr, new_scheduler, visiting
from clockwork_diffusion.timesteps import uniform_timesteps
from clockwork_experiments.generate.text import sampling_by


@dataclass(frozen=True)
class Teacher:
    """A model's noise schedule, and where DDIM with many steps leads.

    Attributes:
        scheduler: The model's own scheduler.
        timesteps: The time steps that were visited, M of them, descending.
        latents: Before each, and at the end: ``(M + 1, N, C, h, w)``.
    """

    scheduler: Any
    timesteps: tuple[int, ...]
    latents: torch.Tensor


def sigma(scheduler: Any, timesteps: torch.Tensor) -> torch.Tensor:
    """Return σ = √((1 − ᾱ) / ᾱ) of time steps; float64."""
    return torch.exp(-log_snr(scheduler, timesteps).double() / 2)


@torch.inference_mode()
def record(
    pipe: Any, prompts: Prompts, noise: torch.Tensor, steps: int, guidance: float
) -> Teacher:
    """Sample by DDIM with many even steps, and remember the way.

    Args:
        pipe: The pipeline, without a method on it.
        prompts: Encoded prompts, N of them.
        noise: The starting noise, ``(N, C, h, w)``, of unit variance.
        steps: M.
        guidance: Scale of classifier-free guidance.
    """
    timesteps = uniform_timesteps(steps, pipe.scheduler.config.num_train_timesteps - 1)
    way = [noise.float().cpu()]

    def keep(_: Any, step: int, timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
        way.append(given["latents"].float().cpu())
        return given

    ddim = visiting(new_scheduler("ddim", pipe.scheduler.config, steps), timesteps)
    with sampling_by(pipe, ddim):
        pipe(
            prompt_embeds=prompts.text,
            negative_prompt_embeds=prompts.empty.expand_as(prompts.text),
            num_inference_steps=steps,
            guidance_scale=guidance,
            latents=noise,
            callback_on_step_end=keep,
            output_type="latent",
        )
    return Teacher(pipe.scheduler, timesteps, torch.stack(way))
