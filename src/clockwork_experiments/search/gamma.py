"""Search for γ: which time steps make few steps look like many (Kim et al. 2024).

A search knows nothing but a function from time steps to quality, such as the PSNR to
what many evenly spaced steps make of the same noise; so it works with any sampler, and
with whatever makes the UNet cheaper in place. Three searches:

- `greedy_search`, as published: from γ = 1 on, p = max(γ, 1/γ) grows by 0.2 while
  quality improves, then from the best p by 0.1, and so on down to 0.01. Which way, to
  γ < 1 or to γ > 1, is given. It never steps back: what lies between the last good p
  and the one before is not looked at. Even steps are measured, and not compared with,
  as in the official code: the answer is p = 1.2 or more, be it worse than they are.
- `bracketed_search`, ours: over log γ, both ways. The best of three is enclosed, and
  the enclosure narrowed by the vertex of the parabola through its three points, or by
  the golden section where that does not help.
- `ending_search`, ours: for where even steps should end, then for γ with that end.

Time steps that were evaluated are never evaluated again, under whichever γ. Nothing
here needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from clockwork_diffusion.timesteps import (
    LAST,
    ending_timesteps,
    gamma_of,
    gamma_timesteps,
)

Timesteps = tuple[int, ...]
"""Time steps, descending."""

Quality = Callable[[Timesteps], float]
"""Measures time steps; more is better."""

INCREMENTS = (0.2, 0.1, 0.05, 0.02, 0.01)
"""By what p grows, one after the other (official code)."""

MOST = 60
"""Evaluations of a greedy search, at most; published ones take 8 to 17."""

_GOLDEN = (3 - math.sqrt(5)) / 2


@dataclass(frozen=True)
class Trial:
    """One γ that was evaluated.

    Attributes:
        gamma: γ.
        timesteps: Its time steps.
        quality: What they are worth.
        end: Their end, where it is chosen apart from γ; see
            `clockwork_diffusion.timesteps.ending_timesteps`.
    """

    gamma: float
    timesteps: Timesteps
    quality: float
    end: int | None = None


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        best: The best trial; of the greedy search, the last that was an improvement.
        trials: All trials, each an evaluation, in that order; the first is γ = 1.
    """

    best: Trial
    trials: tuple[Trial, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the fields, and the number of evaluations."""
        return {**asdict(self), "evaluations": len(self.trials)}


class Trials:
    """Evaluate γ by γ, the same time steps once; ``latest`` is what was asked last."""

    def __init__(
        self,
        quality: Quality,
        steps: int,
        most: int,
        on_trial: Callable[[Trial, int], None] | None = None,
    ) -> None:
        """Bind what measures.

        Args:
            quality: Measures time steps.
            steps: n.
            most: Evaluations, at most.
            on_trial: Called after each evaluation with it and with how many remain.

        Raises:
            ValueError: If there is nothing to search with.
        """
        if most < 1:
            raise ValueError(f"{most} evaluations are not 1 or more")
        self._quality, self._steps, self._most = quality, steps, most
        self._on_trial = on_trial
        self.done: dict[Timesteps, Trial] = {}
        self.latest: Trial | None = None

    @property
    def spent(self) -> bool:
        """Whether no evaluation remains."""
        return len(self.done) >= self._most

    def __call__(self, gamma: float, end: int | None = None) -> float | None:
        """Return the quality of γ; None if it makes steps the same, or none remain."""
        try:
            if end is None:
                timesteps = gamma_timesteps(self._steps, gamma)
            else:
                timesteps = ending_timesteps(self._steps, gamma, end)
        except ValueError:
            # γ = 1 always has steps, or there are no such sequences at all.
            if gamma == 1 and not end:
                raise
            return None
        if timesteps not in self.done:
            if self.spent:
                return None
            trial = Trial(gamma, timesteps, self._quality(timesteps), end)
            self.done[timesteps] = trial
            if self._on_trial is not None:
                self._on_trial(trial, self._most - len(self.done))
        self.latest = self.done[timesteps]
        return self.latest.quality

    def found(self) -> Found:
        """Return the best; of equals the first."""
        trials = tuple(self.done.values())
        return Found(max(trials, key=lambda trial: trial.quality), trials)


def greedy_search(
    quality: Quality,
    steps: int,
    direction: int,
    *,
    most: int = MOST,
    increments: tuple[float, ...] = INCREMENTS,
    on_trial: Callable[[Trial, int], None] | None = None,
) -> Found:
    """Search as published, one way from γ = 1.

    Args:
        quality: Measures time steps.
        steps: n.
        direction: 1 towards γ > 1, -1 towards γ < 1.
        most: Evaluations, at most.
        increments: By what p grows.
        on_trial: Called after each evaluation with it and with how many remain.

    Raises:
        ValueError: If there are no such steps, or no such direction.
    """
    trials = Trials(quality, steps, most, on_trial)
    p, best = 1.0, -math.inf
    trials(gamma_of(p, direction))
    chosen = trials.latest
    for increment in increments:
        while True:
            # Decimals as they are written, not as they add up.
            further = round(p + increment, 6)
            found = trials(gamma_of(further, direction))
            if found is None or found <= best:
                break
            p, best, chosen = further, found, trials.latest
    assert chosen is not None
    return Found(chosen, tuple(trials.done.values()))


def bracketed_search(
    quality: Quality,
    steps: int,
    *,
    most: int,
    first: float = 1.5,
    tolerance: float = 0.01,
    on_trial: Callable[[Trial, int], None] | None = None,
) -> Found:
    """Search both ways from γ = 1, and between what was tried; ours.

    Args:
        quality: Measures time steps.
        steps: n.
        most: Evaluations, at most.
        first: The first γ that is tried above 1; its inverse is the first below.
        tolerance: In log γ, below which differences are not looked into.
        on_trial: Called after each evaluation with it and with how many remain.

    Raises:
        ValueError: If there are no such steps.
    """
    trials = Trials(quality, steps, most, on_trial)

    _climb(lambda x: trials(_gamma(x)), 0.0, math.log(first), tolerance, trials)
    return trials.found()


def ending_search(
    quality: Quality,
    steps: int,
    *,
    most: int,
    on_trial: Callable[[Trial, int], None] | None = None,
) -> Found:
    """Search for where even steps should end, then for γ with that end; ours.

    With few steps the last one at timestep 0 changes next to nothing, since hardly any
    noise is left there. The published sequences can end earlier only by γ < 1, which
    crowds the others on noise as well.

    Args:
        quality: Measures time steps.
        steps: n.
        most: Evaluations, at most.
        on_trial: Called after each evaluation with it and with how many remain.

    Raises:
        ValueError: If there are no such steps.
    """
    trials = Trials(quality, steps, most, on_trial)
    stride = LAST / (steps - 1) / 4
    end = round(
        _climb(
            lambda x: trials(1.0, round(x)) if x >= 0 else None,
            0.0,
            stride,
            max(stride / 8, 1.0),
            trials,
        )
    )
    _climb(lambda x: trials(_gamma(x), end), 0.0, math.log(1.25), 0.03, trials)
    return trials.found()


def _climb(
    quality: Callable[[float], float | None],
    start: float,
    stride: float,
    tolerance: float,
    trials: Trials,
) -> float:
    """Return where a quality is highest: enclose it, then close in.

    Args:
        quality: Of one number; None where there is none, or no evaluation remains.
        start: Where to begin.
        stride: How far to look first, to either side.
        tolerance: Below which differences are not looked into.
        trials: What is evaluated, for what remains.
    """

    def at(x: float) -> float:
        found = quality(x)
        return -math.inf if found is None else found

    # Both sides, whatever the first is like: some qualities have a hill on each.
    points = {each: at(each) for each in (start, start - stride, start + stride)}
    x = max(points, key=lambda each: points[each])
    if x != start:
        # Twice as far each time, until it is worse.
        while True:
            stride *= 2
            further = x + math.copysign(stride, x - start)
            points[further] = at(further)
            if points[further] <= points[x]:
                break
            x = further
    before = [each for each in points if each < x]
    after = [each for each in points if each > x]
    low, high = max(before), min(after)
    widths = [high - low]
    while high - low > 2 * tolerance and not trials.spent:
        near = (points[low], points[x], points[high])
        tried = _vertex((low, x, high), near)
        slow = len(widths) > 2 and widths[-1] > 0.5 * widths[-3]
        if tried is None or slow or not low + tolerance < tried < high - tolerance:
            tried = _cut(low, x, high)
        elif abs(tried - x) < tolerance:
            away = 1 if high - x > x - low else -1
            tried = x + away * tolerance
        points[tried] = at(tried)
        if points[tried] > points[x]:
            low, high = (low, x) if tried < x else (x, high)
            x = tried
        elif tried < x:
            low = tried
        else:
            high = tried
        widths.append(high - low)
    return x


def _gamma(x: float) -> float:
    """Return γ of its logarithm, with as many digits as anyone prints."""
    return round(math.exp(x), 4)


def _vertex(
    x: tuple[float, float, float], y: tuple[float, float, float]
) -> float | None:
    """Return where the parabola through three points is highest, if it is."""
    if not all(math.isfinite(each) for each in y):
        return None
    left, right = (x[1] - x[0]) * (y[1] - y[2]), (x[1] - x[2]) * (y[1] - y[0])
    below = left - right
    if below <= 0:
        return None
    return x[1] - 0.5 * ((x[1] - x[0]) * left - (x[1] - x[2]) * right) / below


def _cut(low: float, middle: float, high: float) -> float:
    """Return the golden section of the wider part of an enclosure."""
    if high - middle > middle - low:
        return middle + _GOLDEN * (high - middle)
    return middle - _GOLDEN * (middle - low)
