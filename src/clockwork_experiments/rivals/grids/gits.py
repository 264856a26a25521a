"""Time steps by dynamic programming over the teacher's trajectory, as GITS has them.

Chen, Zhou, Wang, Shen and Lyu, "On the Trajectory Regularity of ODE-based Diffusion
Sampling", ICML 2024. What one Euler step from a point of the trajectory to a later one
costs is how far it lands from there; the cheapest path of n steps is chosen. A factor
lets what comes later weigh more, since early errors may be mended. Our teacher is DDIM
with even steps, theirs a multistep solver; hence "GITS-style".
"""

from __future__ import annotations

import torch

from clockwork_diffusion.masks import Span, best_mask
from clockwork_experiments.rivals.teacher import Teacher, sigma

GROWTH = 1.15
"""By what factor a step's cost weighs more than that of the step before, as theirs."""


def timesteps(steps: int, teacher: Teacher) -> tuple[int, ...]:
    """Return the cheapest n of the teacher's time steps; its first is always there.

    Raises:
        ValueError: If the teacher has fewer.
    """
    chosen = best_mask(len(teacher.timesteps), steps, step_costs(teacher), GROWTH)
    return tuple(
        timestep
        for timestep, digit in zip(teacher.timesteps, chosen, strict=True)
        if digit == "1"
    )


def step_costs(teacher: Teacher) -> dict[Span, float]:
    """Return by how much a step from one point to a later one misses it.

    Points are scaled so that σ is their noise's deviation, where DDIM is Euler's
    method, and the teacher's own step is the direction at its beginning.
    """
    noise = sigma(teacher.scheduler, torch.tensor(teacher.timesteps))
    scale = torch.sqrt(1 + noise.square())
    # The end is clean.
    noise = torch.cat([noise, torch.zeros(1).double()])
    scale = torch.cat([scale, torch.ones(1).double()])
    points = teacher.latents.double() * scale[:, None, None, None, None]
    count = len(teacher.timesteps)
    costs: dict[Span, float] = {}
    for start in range(count):
        moved = points[start + 1] - points[start]
        slope = moved / (noise[start + 1] - noise[start])
        for stop in range(start + 2, count + 1):
            reached = points[start] + (noise[stop] - noise[start]) * slope
            missed = (reached - points[stop]).flatten(1).norm(dim=1)
            costs[start, stop] = float(missed.mean())
    return costs
