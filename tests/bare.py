"""Pipelines of a UNet alone, for tests that give text features and take latents."""

import functools
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)

from clockwork_diffusion.encoding import Prompts
from clockwork_diffusion.hook import sampling_with
from clockwork_diffusion.passes import UNetPasses
from clockwork_experiments.generate import runs
from clockwork_experiments.generate.text import SamplerSpec, sample


def bare_pipeline(
    unet: UNet2DConditionModel, scheduler_config: Mapping[str, Any]
) -> StableDiffusionPipeline:
    """Return a pipeline without text encoder and autoencoder."""
    # By value: diffusers would overlook what was a default.
    predicted = {"prediction_type": scheduler_config["prediction_type"]}
    make = functools.partial(
        DPMSolverMultistepScheduler.from_config, scheduler_config, **predicted
    )
    pipe = StableDiffusionPipeline(
        vae=None,
        text_encoder=None,
        tokenizer=None,
        unet=unet,
        scheduler=make(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    # The pipeline has set its offset to 1, as Stable Diffusion's.
    pipe.scheduler = make()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sample_latents(
    passes: UNetPasses,
    config: Mapping[str, Any],
    prompts: Prompts,
    noise: torch.Tensor,
    spec: SamplerSpec,
) -> torch.Tensor:
    """Sample with passes of a UNet."""
    pipe = bare_pipeline(passes.unet, config)
    with sampling_with(pipe, passes, spec.phases, pool=runs.table_of(prompts)):
        return sample(pipe, prompts, noise, spec)
