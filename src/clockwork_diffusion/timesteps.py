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
    _check(steps, gamma, last)
    shift = kappa * (max(gamma, 1 / gamma) - 1)
    ascending = []
    for index in range(steps):
        even = index * last / (steps - 1)
        share = (even + (shift if gamma < 1 else 0.0)) / (last + shift)
        scaled = last * min(max(share**gamma, 0.0), 1.0)
        ascending.append(math.floor(scaled + _ROUNDING))
    check_distinct(ascending, f"{steps} steps with gamma {gamma:g}")
    return tuple(reversed(ascending))


def ending_timesteps(
    steps: int, gamma: float, end: int, *, last: int = LAST
) -> tuple[int, ...]:
    """Return time steps between T and an end that is chosen apart from γ; ours.

    ``t_i = ⌊end + (T - end) (i / (n - 1))^γ⌋``: where steps crowd and where they end,
    which the published γ ties together, has a number each. γ = 1 with ``end`` 0 is
    evenly spaced.

    Args:
        steps: n, from 2 to ``last`` + 1.
        gamma: γ, above 0.
        end: The timestep visited last, from 0 to below ``last``.
        last: T.

    Returns:
        n distinct timesteps, descending.

    Raises:
        ValueError: If an argument is out of range, or rounding makes steps the same.
    """
    _check(steps, gamma, last)
    if not 0 <= end < last:
        raise ValueError(f"end {end} is not between 0 and {last - 1}")
    ascending = [
        math.floor(end + (last - end) * (index / (steps - 1)) ** gamma + _ROUNDING)
        for index in range(steps)
    ]
    check_distinct(ascending, f"{steps} steps with gamma {gamma:g} and end {end}")
    return tuple(reversed(ascending))


def _check(steps: int, gamma: float, last: int) -> None:
    """Refuse numbers that no sequence has."""
    if not 2 <= steps <= last + 1:
        raise ValueError(f"{steps} steps are not between 2 and {last + 1}")
    if not 0 < gamma < math.inf:
        raise ValueError(f"gamma {gamma:g} is not a number above 0")


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


def uniform_timesteps(steps: int, last: int = LAST) -> tuple[int, ...]:
    """Return ``steps`` timesteps from ``last`` to 0, evenly spaced and rounded down.

    Raises:
        ValueError: If there is no step, or more than timesteps.
    """
    if not 1 <= steps <= last + 1:
        raise ValueError(f"{steps} steps are not between 1 and {last + 1}")
    if steps == 1:
        return (last,)
    return tuple(last * index // (steps - 1) for index in reversed(range(steps)))


def check_timesteps(timesteps: Sequence[int], trained: int = LAST + 1) -> None:
    """Refuse timesteps that the model has not, or that do not descend.

    Raises:
        ValueError: In one line.
    """
    for timestep in timesteps:
        if not 0 <= timestep < trained:
            raise ValueError(f"timestep {timestep} is not one of 0 to {trained - 1}")
    for before, after in zip(timesteps, timesteps[1:], strict=False):
        if after >= before:
            raise ValueError(f"timesteps do not descend: {after} comes after {before}")
