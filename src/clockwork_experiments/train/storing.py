"""What trajectories take as features and as latents."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from clockwork_experiments.train.trajectories import TrajectorySpec


@dataclass(frozen=True)
class StorageSpec:
    """What to compare.

    Attributes:
        backbone: A key of `clockwork_experiments.cost.architectures.BACKBONES`.
        tokens: Length of a prompt.
        text_channels: Channels of the pooled text embedding.
        trajectory: What is recorded; it is stored in both ways.
        batch_size: Samples per batch.
        batches: Batches to time.
        prompts: Prompts to draw them from.
    """

    backbone: str
    tokens: int
    text_channels: int
    trajectory: TrajectorySpec
    batch_size: int = 16
    batches: int = 20
    prompts: int = 8


def samples_per_second(spec: StorageSpec, model: Path) -> dict[str, float]:
    """Time what training asks of trajectories: a step's features and r_out before."""
    import torch

    from clockwork_diffusion import encoding
    from clockwork_diffusion.unet import SplitUNet
    from clockwork_experiments.models import loading
    from clockwork_experiments.train import trajectories
    from clockwork_experiments.train.training import generator_for

    device = loading.default_device()
    pipe = loading.load_pipeline(model, device)
    # What the prompts say does not change the time.
    width = pipe.unet.config.cross_attention_dim
    prompts = encoding.Prompts(
        torch.zeros(spec.prompts, spec.tokens, width, device=device),
        torch.zeros(1, spec.tokens, width, device=device),
        torch.zeros(spec.prompts, spec.text_channels, device=device),
        torch.zeros(1, spec.text_channels, device=device),
    )
    clean = torch.zeros(spec.prompts, *trajectories.latent_shape(pipe.unet))
    speeds = {}
    for stored in trajectories.STORED:
        chosen = replace(spec.trajectory, stored=stored)
        shard = trajectories.unroll(pipe, prompts, chosen, 0, clean)
        shard |= trajectories.constants(pipe, prompts, chosen)
        data = trajectories.join([shard], partial(SplitUNet, pipe.unet, chosen.cut))

        def deliver(number: int, data: trajectories.Recorded = data) -> None:
            generator = generator_for(0, number)
            size = (spec.batch_size,)
            rows = torch.randint(len(data), size, generator=generator)
            steps = torch.randint(1, data.steps, size, generator=generator)
            data.pick(rows, steps, [steps - 1], device)
            if device.type == "cuda":
                torch.cuda.synchronize()

        deliver(-1)  # the first call also allocates
        began = time.perf_counter()
        for number in range(spec.batches):
            deliver(number)
        seconds = time.perf_counter() - began
        speeds[stored] = spec.batches * spec.batch_size / seconds
    return speeds
