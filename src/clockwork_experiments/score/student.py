"""Student's t, of which intervals of few values are made."""

from __future__ import annotations

import math
from functools import cache

FEW = 50
"""Below so many units a mean gets Student's t instead of the bootstrap, whose 95 % are
87 % for 8 units and 75 % for 3."""


@cache
def student_quantile(freedom: int, share: float) -> float:
    """Return the quantile of Student's t for a share above one half.

    By bisection of the closed form for whole degrees of freedom (Abramowitz and Stegun,
    26.7.3 and 26.7.4).
    """

    def within(t: float) -> float:
        angle = math.atan(t / math.sqrt(freedom))
        odd = freedom % 2
        if freedom == 1:
            return 2 * angle / math.pi
        term = math.cos(angle) if odd else 1.0
        total = term
        for index in range(3 if odd else 2, freedom - 1, 2):
            term *= (index - 1) / index * math.cos(angle) ** 2
            total += term
        if odd:
            return 2 / math.pi * (angle + math.sin(angle) * total)
        return math.sin(angle) * total

    low, high = 0.0, 1e4
    for _ in range(100):
        middle = (low + high) / 2
        if within(middle) < 2 * share - 1:
            low = middle
        else:
            high = middle
    return high
