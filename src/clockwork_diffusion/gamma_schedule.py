"""The time steps of Kim et al. 2024: n of them, spaced by one number, γ.

With T the last timestep, n steps, u_i = i T / (n - 1) and p = max(γ, 1/γ)::

    γ ≥ 1:  s_i = u_i / (T + κ (p - 1))
    γ < 1:  s_i = (u_i + κ (p - 1)) / (T + κ (p - 1))
    t_i = ⌊T clip(s_i^γ, 0, 1)⌋

visited in descending order. γ = 1 is evenly spaced; γ < 1 spends more steps on noise,
and ends before timestep 0; γ > 1 spends more on detail, and starts below T. Nothing
here needs torch.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

LAST = 999
"""T: the timestep that sequences reach up to."""

KAPPA = 30.0
"""κ: how far the ends move with p, in timesteps."""

_ROUNDING = 1e-9
"""What floating point may take from a whole timestep."""

_SHOWN = 8
"""Steps that are listed in a message, at most."""


def gamma_timesteps(
    steps: int, gamma: float, *, last: int = LAST, kappa: float = KAPPA
) -> tuple[int, ...]:
    """Return the time steps of γ (Kim et al. 2024, from the official code).

    Args:
        steps: n, from 2 to ``last`` + 1.
        gamma: γ, above 0; 1 is evenly spaced.
        last: T.
        kappa: κ.

    Returns:
        n distinct timesteps, descending, within 0 and ``last``.

    Raises:
        ValueError: If n or γ is out of range, or rounding makes two steps the same.
    """
    if not 2 <= steps <= last + 1:
        raise ValueError(f"{steps} steps are not between 2 and {last + 1}")
    if not 0 < gamma < math.inf:
        raise ValueError(f"gamma {gamma:g} is not a number above 0")
    shift = kappa * (max(gamma, 1 / gamma) - 1)
    ascending = []
    for index in range(steps):
        even = index * last / (steps - 1)
        share = (even + (shift if gamma < 1 else 0.0)) / (last + shift)
        scaled = last * min(max(share**gamma, 0.0), 1.0)
        ascending.append(math.floor(scaled + _ROUNDING))
    check_distinct(ascending, f"{steps} steps with gamma {gamma:g}")
    return tuple(reversed(ascending))


def check_distinct(timesteps: Sequence[int], what: str) -> None:
    """Refuse time steps of which some are the same.

    Args:
        timesteps: The steps.
        what: Where they come from, for the message.

    Raises:
        ValueError: In one line, with the first that occur twice.
    """
    twice = sorted(each for each, times in Counter(timesteps).items() if times > 1)
    if twice:
        listed = ", ".join(map(str, twice[:_SHOWN]))
        more = f" and {len(twice) - _SHOWN} more" if len(twice) > _SHOWN else ""
        raise ValueError(f"{what}: rounding makes steps the same: {listed}{more}")


def gamma_of(p: float, direction: int) -> float:
    """Return γ of p, which is 1 or more, towards γ > 1 (``direction`` 1) or γ < 1 (-1).

    Raises:
        ValueError: If p is less than 1, or the direction neither.
    """
    if p < 1:
        raise ValueError(f"p {p:g} is less than 1")
    if direction not in (-1, 1):
        raise ValueError(f"direction {direction} is not -1 or 1")
    return p if direction == 1 else 1 / p
