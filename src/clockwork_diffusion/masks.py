"""Which steps should be full? Masks, spans, and the best mask by additive costs.

A mask (see `clockwork_diffusion.clock.Clock`) is a path: it goes from one full step to
the next, and over the light ones between them. A *span* ``(start, stop)`` is a full
step and where the next one is, or the run's end. If what a mask costs were the sum of
what its spans cost, the best mask with so many full steps would be the cheapest path of
so many spans, which dynamic programming finds without looking at all of them. Nothing
here needs torch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

Span = tuple[int, int]
"""A full step's index from 0, and the index of the next one or the number of steps."""


def all_masks(steps: int) -> tuple[str, ...]:
    """Return all masks of a number of steps, the whole UNet at all of them last.

    >>> all_masks(3)
    ('100', '101', '110', '111')
    """
    if steps < 1:
        raise ValueError(f"step count {steps} is less than 1")
    return tuple(
        "1" + "".join(digits) for digits in itertools.product("01", repeat=steps - 1)
    )


def spans_of(mask: str) -> tuple[Span, ...]:
    """Return a mask's spans.

    >>> spans_of("10010")
    ((0, 3), (3, 5))
    """
    full = [index for index, digit in enumerate(mask) if digit == "1"]
    return tuple(zip(full, [*full[1:], len(mask)], strict=True))


def mask_of_span(steps: int, span: Span) -> str:
    """Return the mask that is light within one span, and full everywhere else.

    >>> mask_of_span(5, (1, 4))
    '11001'
    """
    start, stop = span
    return "".join("01"[not start < index < stop] for index in range(steps))


def all_spans(steps: int) -> tuple[Span, ...]:
    """Return all spans with a light step, the earliest first."""
    return tuple(
        (start, stop) for start in range(steps) for stop in range(start + 2, steps + 1)
    )


def additive(mask: str, costs: Mapping[Span, float]) -> float:
    """Return the sum of what a mask's spans cost; one without a light step is free."""
    return math.fsum(costs[span] for span in spans_of(mask) if span[1] - span[0] > 1)


def costs_of_steps(per_step: Mapping[int, float], steps: int) -> dict[Span, float]:
    """Return what spans cost if a light step costs the same whatever came before it.

    Args:
        per_step: Of each step's index from 1.
        steps: Number of steps.
    """
    return {
        (start, stop): math.fsum(per_step[index] for index in range(start + 1, stop))
        for start, stop in all_spans(steps)
    }


def best_mask(
    steps: int, full: int, costs: Mapping[Span, float], growth: float = 1.0
) -> str:
    """Return the mask with so many full steps whose spans cost least together.

    By dynamic programming over where the latest full step is. Of equals the one whose
    full steps come first.

    Args:
        steps: Number of steps.
        full: How many are full.
        costs: Of each span with a light step.
        growth: By what factor a span weighs more than the one before it.

    Raises:
        ValueError: If there are not so many steps, or none is full.
    """
    if not 1 <= full <= steps:
        raise ValueError(f"{full} full steps are not between 1 and the {steps} steps")

    def cost(start: int, stop: int) -> float:
        return 0.0 if stop - start == 1 else costs[start, stop]

    # Of each place of the latest full step: the cost so far, and the mask up to it.
    reached = {0: (0.0, "1")}
    for place in range(full - 1):
        weight = growth**place
        found: dict[int, tuple[float, str]] = {}
        for stop in range(1, steps):
            ways = [
                (
                    spent + weight * cost(start, stop),
                    path + "0" * (stop - start - 1) + "1",
                )
                for start, (spent, path) in reached.items()
                if start < stop
            ]
            if ways:
                found[stop] = min(ways, key=_cheapest)
        reached = found
    weight = growth ** (full - 1)
    ends = [
        (spent + weight * cost(start, steps), path + "0" * (steps - start - 1))
        for start, (spent, path) in reached.items()
    ]
    return min(ends, key=_cheapest)[1]


def _cheapest(way: tuple[float, str]) -> tuple[float, int]:
    spent, path = way
    return spent, -int(path, 2)
