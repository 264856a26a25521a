"""Which time steps a plain sampler visits, one file each.

A grid is a function of a number of steps and a `Teacher`, of which most need the noise
schedule alone. It returns time steps for `clockwork_diffusion.at_timesteps`.
"""

from __future__ import annotations

from collections.abc import Callable

from clockwork_experiments.rivals.grids import ays, ending, even, gits
from clockwork_experiments.rivals.teacher import Teacher

Grid = Callable[[int, Teacher], tuple[int, ...]]

GRIDS: dict[str, Grid] = {
    "even": even.timesteps,
    "ays": ays.timesteps,
    "gits": gits.timesteps,
    "ending": ending.timesteps,
}
"""The grids by name."""
