"""Evenly spaced time steps, down to the model's last."""

from __future__ import annotations

from clockwork_diffusion.timesteps import uniform_timesteps
from clockwork_experiments.rivals.teacher import Teacher


def timesteps(steps: int, teacher: Teacher) -> tuple[int, ...]:
    """Return even time steps from T to 0."""
    return uniform_timesteps(steps, teacher.scheduler.config.num_train_timesteps - 1)
