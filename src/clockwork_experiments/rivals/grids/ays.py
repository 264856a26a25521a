"""Align Your Steps: the published time steps of Stable Diffusion 1.5, for any number.

Sabour, Fidler and Kreis, "Align Your Steps: Optimizing Sampling Schedules in Diffusion
Models", ICML 2024. They publish ten time steps (diffusers has them), with 0 as the end,
and interpolate log σ linearly for another number: log σ is half the negative log-SNR.
Where a model was trained with less noise at the most, or more at the least, log σ is
scaled linearly to what it knows. That is our choice: of all levels beyond its schedule
the nearest time step would be the same.
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers import DDIMScheduler
from diffusers.schedulers import AysSchedules

from clockwork_diffusion.timesteps import check_distinct
from clockwork_experiments.rivals.teacher import Teacher, sigma

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
"""The noise schedule that the published time steps are of."""


def timesteps(steps: int, teacher: Teacher) -> tuple[int, ...]:
    """Return the time steps at which the model has the noise of the published ones.

    Of a model whose schedule lacks some of it, that of the published ones as scaled to
    its schedule, so that the first or last has the model's most or least noise.

    Raises:
        ValueError: If there are so many that rounding makes some the same.
    """
    published = torch.tensor([*AysSchedules["StableDiffusionTimesteps"], 0])
    noise = np.log(sigma(DDIMScheduler(**SD), published).numpy())
    trained = teacher.scheduler.config.num_train_timesteps
    known = np.log(sigma(teacher.scheduler, torch.arange(trained)).numpy())
    top, bottom = min(noise[0], known[-1]), max(noise[-1], known[0])
    if (top, bottom) != (noise[0], noise[-1]):
        noise = np.interp(noise, noise[[-1, 0]], [bottom, top])
    places = np.linspace(0, len(noise) - 1, steps + 1)[:-1]
    wanted = np.interp(places, np.arange(len(noise)), noise)
    found = [int(np.abs(known - each).argmin()) for each in wanted]
    check_distinct(found, f"{steps} steps of Align Your Steps")
    return tuple(found)
