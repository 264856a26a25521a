"""Time steps that crowd by one number, γ, and end at another: ours.

`clockwork_diffusion.timesteps.ending_timesteps`, with the two numbers that cost least
on the teacher's trajectory, by the same costs as `gits`: that searches all grids, this
one a family of two parameters.
"""

from __future__ import annotations

import itertools
import math

from clockwork_diffusion.timesteps import ending_timesteps
from clockwork_experiments.rivals.grids.gits import GROWTH, step_costs
from clockwork_experiments.rivals.teacher import Teacher

GAMMAS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 1.75, 2.0)
ENDS = (0.0, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2)
"""What is tried; ends as shares of the model's time steps."""


def timesteps(steps: int, teacher: Teacher) -> tuple[int, ...]:
    """Return the steps whose nearest points of the trajectory are the cheapest path.

    Raises:
        ValueError: If no such grid has distinct steps on the trajectory.
    """
    last = teacher.scheduler.config.num_train_timesteps - 1
    known, costs = teacher.timesteps, step_costs(teacher)
    best: tuple[float, tuple[int, ...]] = (math.inf, ())
    for gamma, share in itertools.product(GAMMAS, ENDS):
        try:
            grid = ending_timesteps(steps, gamma, round(share * last), last=last)
        except ValueError:
            continue  # rounding makes two steps the same
        path = [min(range(len(known)), key=lambda i: abs(known[i] - t)) for t in grid]
        if len(set(path)) == steps:
            spans = zip(path, [*path[1:], len(known)], strict=True)
            cost = sum(GROWTH**k * costs.get(s, 0.0) for k, s in enumerate(spans))
            best = min(best, (cost, grid))
    if not best[1]:
        raise ValueError(f"the trajectory is too short for {steps} steps of this kind")
    return best[1]
