"""How near a shipped adaptor's images are to the teacher's, beside reuse alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from clockwork_diffusion.pipeline import clockwork
from clockwork_experiments.score import metrics

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


def quality(
    pipe: StableDiffusionPipeline,
    adaptor: torch.nn.Module,
    prompts: Sequence[str],
    steps: int,
    clock: int,
    guidance_scale: float,
) -> dict[str, dict[str, Any]]:
    """Return PSNR to the teacher's images, by name with interval: with it, without it.

    Args:
        pipe: The teacher, with its scheduler.
        adaptor: The adaptor.
        prompts: Captions that it was not trained on; seeds are their numbers.
        steps: Sampling steps.
        clock: The clock.
        guidance_scale: Guidance of the teacher.
    """

    def images() -> torch.Tensor:
        generators = [torch.Generator().manual_seed(n) for n in range(len(prompts))]
        found = pipe(
            list(prompts),
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            generator=generators,
            output_type="np",
        ).images
        # As any pipeline of diffusers rounds them.
        levels = torch.from_numpy((found * 255).round()).to(torch.uint8)
        return levels.permute(0, 3, 1, 2)

    teacher, found = images(), dict[str, dict[str, Any]]()
    light: dict[str, torch.nn.Module | None] = {
        "PSNR to the teacher in dB": adaptor,
        "PSNR of reuse alone in dB": None,
    }
    for name, used in light.items():
        with clockwork(pipe, clock=clock, adaptor=used):
            score = metrics.mean_score(metrics.psnr(images(), teacher))
        found[name] = asdict(score)
    return found
