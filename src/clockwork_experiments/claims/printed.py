"""What the papers print, as the effects that claims are about. Nothing needs torch."""

from __future__ import annotations

import math

from clockwork_experiments.claims.registry import METRICS

SAVED = ("flops", "latency", "macs_saved", "level_time", "footprint")
"""Metrics that are a share of what the other costs."""

RATIOS = {"gamma_below": -1, "gamma_above": 1, "gamma_ratio": 1}
"""Metrics that are the logarithm of a ratio, and their signs."""


def printed_effect(metric: str, of: float, over: float) -> float:
    """Return a printed effect, in the unit and with the sign of ours.

    Args:
        metric: A key of `METRICS`.
        of: What is printed of the one.
        over: What is printed of that which it is compared with.

    Raises:
        ValueError: If no effect is known of two printed values of this metric.

    >>> round(printed_effect("flops", 7.3, 10.8), 3)
    0.324
    >>> round(printed_effect("frechet", 24.11, 24.64), 2)
    0.53
    """
    if metric in SAVED:
        return 1 - of / over
    if metric in RATIOS:
        return RATIOS[metric] * math.log(of / over)
    if metric == "search_cost":
        return over / of
    if not METRICS[metric].sign:
        raise ValueError(f"{metric!r}: no effect is known of what is printed")
    return METRICS[metric].sign * (of - over)
