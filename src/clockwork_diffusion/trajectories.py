"""Unroll the teacher, and keep what an adaptor learns from (Algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from clockwork_diffusion import storage
from clockwork_diffusion.clock import steps_of_calls
from clockwork_diffusion.sampling import (
    Passes,
    Prompts,
    SamplerSpec,
    image_seed,
    initial_noise,
    new_scheduler,
    sample_latents,
)
from clockwork_diffusion.split import Step


@dataclass(frozen=True)
class TrajectorySpec:
    """Which trajectories to unroll.

    Attributes:
        sampler: How the teacher samples; always at clock 1.
        cut: Where the features are taken.
        seed: Seed of the starting noise.
        batch_size: Prompts per batch.
        dtype: Precision on disk, ``float16`` or ``float32``.
    """

    sampler: SamplerSpec
    cut: str
    seed: int
    batch_size: int
    dtype: str = "float16"

    def __post_init__(self) -> None:
        """Reject clocks and precisions that make no sense here."""
        if self.sampler.phases.needs_adaptor:
            raise ValueError(
                f"clock {self.sampler.clock}: the teacher runs in full at every step"
                if self.sampler.clock > 1
                else "adaptor steps: the teacher runs in full at every step"
            )
        if self.dtype not in ("float16", "float32"):
            raise ValueError(f"dtype {self.dtype!r} is not float16 or float32")


def unroll(
    passes: Passes,
    scheduler_config: object,
    prompts: Prompts,
    spec: TrajectorySpec,
    first: int,
) -> dict[str, torch.Tensor]:
    """Sample with the teacher and record r_in and r_out of every step.

    Where a step has several calls, its last one counts: that is what an adaptor sees of
    a previous step.

    Args:
        passes: The teacher.
        scheduler_config: Configuration of the model's own scheduler.
        prompts: N encoded prompts with their pooled embeddings.
        spec: What to unroll.
        first: Index of the first prompt within its set; decides the starting noise.

    Returns:
        ``r_in`` and ``r_out``, ``(N, branches, steps, c, h, w)``, the empty prompt's
        branch first; ``pooled``, ``(N, branches, P)``; all on the CPU.
    """
    unet = passes.split.unet
    dtype = getattr(torch, spec.dtype)
    count, branches = len(prompts), spec.sampler.branches
    kept: dict[str, list[torch.Tensor]] = {"r_in": [], "r_out": []}

    def record(index: int, timestep: torch.Tensor, step: Step) -> None:
        for name, value in (("r_in", step.r_in), ("r_out", step.r_out)):
            rows = value.view(branches, count, *value.shape[1:]).transpose(0, 1)
            kept[name][index:] = [rows.to("cpu", dtype)]

    size = unet.config.sample_size
    seeds = [image_seed(spec.seed, first + index) for index in range(count)]
    noise = initial_noise(seeds, (unet.config.in_channels, size, size))
    sample_latents(passes, scheduler_config, prompts, noise, spec.sampler, record)
    features = {name: torch.stack(steps, dim=2) for name, steps in kept.items()}
    for name, value in features.items():
        if not torch.isfinite(value).all():
            raise ValueError(f"{name} of the trajectories is not finite in {dtype}")
    assert prompts.pooled is not None and prompts.empty_pooled is not None
    pooled = prompts.pooled[:, None]
    if branches == 2:
        empty = prompts.empty_pooled.expand_as(prompts.pooled)
        pooled = torch.stack([empty, prompts.pooled], dim=1)
    return {**features, "pooled": pooled.cpu().float()}


def recorded_timesteps(sampler: SamplerSpec, scheduler_config: object) -> torch.Tensor:
    """Return the timestep of the call that `unroll` records of each step."""
    scheduler = new_scheduler(sampler.scheduler, scheduler_config, sampler.steps)
    owners = steps_of_calls(sampler.scheduler, sampler.steps)
    # Of equal keys, a dictionary keeps the last value.
    calls = {owner: call for call, owner in enumerate(owners)}
    timesteps: torch.Tensor = scheduler.timesteps[list(calls.values())]
    return timesteps


@torch.inference_mode()
def time_embeddings(
    passes: Passes, timesteps: torch.Tensor, text: torch.Tensor
) -> torch.Tensor:
    """Return the UNet's time embedding of each sampling step, ``(steps, E)``."""
    unet = passes.split.unet
    size = unet.config.sample_size
    blank = torch.zeros(1, unet.config.in_channels, size, size).to(text)
    rows = [
        passes.split.condition(blank, timestep, text[:1]).t_emb
        for timestep in timesteps
    ]
    return torch.cat(rows).cpu().float()


@dataclass(frozen=True)
class Trajectories:
    """Recorded trajectories of one teacher, as an adaptor's data.

    Attributes:
        r_in: ``(N, steps, c_in, h, w)``; N counts prompts × branches.
        r_out: ``(N, steps, c_out, h, w)``.
        pooled: ``(N, P)``.
        t_emb: ``(steps, E)``.
        teacher: SHA-256 of the teacher's weights.
    """

    r_in: torch.Tensor
    r_out: torch.Tensor
    pooled: torch.Tensor
    t_emb: torch.Tensor
    teacher: str

    @property
    def steps(self) -> int:
        """Number of sampling steps."""
        return self.r_in.shape[1]


def read_trajectories(paths: Sequence[Path], teacher: str) -> Trajectories:
    """Read shards of trajectories.

    Args:
        paths: The shards.
        teacher: SHA-256 of the weights of the teacher that they must come from.

    Raises:
        ValueError: If a shard is damaged, of another teacher, or of another shape than
            the first; the message names it.
    """
    shards: list[dict[str, torch.Tensor]] = []
    for path in paths:
        tensors, metadata = storage.read_tensors(path)
        if metadata.get("teacher") != teacher:
            raise ValueError(
                f"{path} is of another teacher ({metadata.get('teacher', 'unknown')}); "
                f"this one is {teacher}"
            )
        missing = {"r_in", "r_out", "pooled", "t_emb"} - set(tensors)
        if missing:
            raise ValueError(f"{path} lacks {', '.join(sorted(missing))}")
        if shards and tensors["r_in"].shape[2:] != shards[0]["r_in"].shape[2:]:
            raise ValueError(f"{path} has other steps or features than {paths[0]}")
        shards.append(tensors)

    def joined(name: str) -> torch.Tensor:
        return torch.cat([shard[name].flatten(0, 1) for shard in shards])

    return Trajectories(
        joined("r_in"), joined("r_out"), joined("pooled"), shards[0]["t_emb"], teacher
    )
