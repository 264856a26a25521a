"""Numbers that claims about time steps are judged by, from what searches found.

Searches are those of `search_steps`. γ of a search is one number: pairs that are
searched on are its only source of chance. Where the search was run once more on pairs
drawn with replacement, the spread of what it finds is γ's standard error. Elsewhere two
things stand in for that. Which side of 1 it lies on counts as far as its steps are
better than even ones on pairs that the search did not see. And two γ differ for certain
only where their *ranges* do: all γ that are as good, to the last digit in which the
paper prints PSNR.

Nothing here needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clockwork_experiments.report.tables.timesteps import METHODS
from clockwork_experiments.search.answers import Found, answer_of

SCORES = {
    "steps_psnr": "psnr_to_teacher",
    "steps_target": "psnr",
    "steps_clip_image": "clip_image",
    "steps_clip_direction": "clip_direction",
    "steps_clip": "clip",
}
"""By metric of time steps, the name of its values per held-out pair."""

DIRECTIONS = {"gamma_below": -1, "gamma_above": 1}
"""By metric of a γ, the side of 1 that it should lie on."""

RATIO = "gamma_ratio"
"""The metric of two γ."""

EQUAL = 0.01
"""Differences in dB that do not tell two γ apart: the paper's last digit (Table S9)."""

PUBLISHED_IMAGES = 100
"""Images that the paper's search evaluates time steps on."""

RIVAL_IMAGES, RIVAL_EVALUATIONS = 1000, 499
"""AutoDiffusion's full budget: images of an evaluation, and evaluations (its code)."""


@dataclass(frozen=True)
class StepAnswer:
    """What a method found in a search for time steps.

    Attributes:
        search: Id of the search.
        steps: Number of time steps.
        method: A key of `clockwork_experiments.report.tables.timesteps.METHODS`.
        over: The method of the same search that it is compared with.
        than: The search whose γ, by the same method, it is compared with.
    """

    search: str
    steps: int
    method: str
    over: str = ""
    than: str = ""

    def __post_init__(self) -> None:
        """Reject unknown methods, and comparisons with two things or with itself."""
        for name in (self.method, self.over or self.method):
            if name not in METHODS:
                raise ValueError(f"method {name!r} is not one of {', '.join(METHODS)}")
        if self.over and self.than:
            raise ValueError(
                f"over {self.over!r} and than {self.than!r}: one comparison at a time"
            )
        if self.over == self.method or self.than == self.search:
            raise ValueError(f"{self.name!r} is compared with itself")

    @property
    def name(self) -> str:
        """What to call it."""
        return f"{self.search}/{self.steps}/{self.method}"

    @property
    def other(self) -> str:
        """What to call what it is compared with; nothing if it is with nothing."""
        if self.over:
            return f"{self.search}/{self.steps}/{self.over}"
        return f"{self.than}/{self.steps}/{self.method}" if self.than else ""

    def check(self, metric: str) -> None:
        """Refuse a metric that needs another comparison.

        Raises:
            ValueError: In one line.
        """
        needed = {**dict.fromkeys(SCORES, "over"), RATIO: "than"}.get(metric, "")
        for key in ("over", "than"):
            if bool(getattr(self, key)) != (key == needed):
                needs = f"needs `{key}`" if key == needed else f"takes no `{key}`"
                raise ValueError(f"{metric!r} {needs}")


@dataclass(frozen=True)
class GammaRange:
    """A γ as a logarithm, and those around it that are as good.

    Attributes:
        value: ln γ of the best.
        low: Lower end.
        high: Upper end.
        resampled: The best on pairs drawn with replacement, each time; if there are.
    """

    value: float
    low: float
    high: float
    resampled: tuple[float, ...] = ()

    def __sub__(self, other: GammaRange) -> GammaRange:
        """Return the logarithm of the ratio, with all that it may be."""
        return GammaRange(
            self.value - other.value, self.low - other.high, self.high - other.low
        )

    def __str__(self) -> str:
        """Show γ itself."""
        value, low, high = (math.exp(x) for x in (self.value, self.low, self.high))
        return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def paired(
    of: StepAnswer, searches: Mapping[str, Found], score: str, over: str = ""
) -> list[float]:
    """Return what a method gains over another, for each held-out pair.

    Args:
        of: The answer.
        searches: Searches by id.
        score: Name of the values per pair.
        over: The other method, if not the answer's own.

    Raises:
        ValueError: If one of them was not searched for, or lacks the score.
    """
    values = []
    for method in (of.method, over or of.over):
        answer = answer_of(searches, of.search, of.steps, method)
        known = answer["heldout"]["pairs"]
        if score not in known:
            raise ValueError(
                f"search {of.search!r}: {score!r} is not one of {', '.join(known)}"
            )
        values.append(known[score])
    one, other = values
    if len(one) != len(other):
        raise ValueError(
            f"search {of.search!r}: {len(one)} and {len(other)} values make no pairs"
        )
    return [float(a) - float(b) for a, b in zip(one, other, strict=True)]


def gamma_range(answer: Mapping[str, Any]) -> GammaRange:
    """Return the γ that was found, and those between trials that are as good.

    Quality is linear in ln γ between two trials. Beyond the last trial nothing is
    known, and the range ends there.

    Raises:
        ValueError: If the method has no γ.
    """
    if answer["gamma"] is None:
        raise ValueError(f"method {answer['method']!r} finds time steps without a γ")
    chosen = math.log(answer["gamma"])
    curve = {math.log(trial["gamma"]): trial["quality"] for trial in answer["trials"]}
    curve.setdefault(chosen, answer["quality"])
    # Uneven steps may be found under a γ that another trial had already.
    enough = curve[chosen] - EQUAL
    below = sorted((x for x in curve if x < chosen), reverse=True)
    above = sorted(x for x in curve if x > chosen)
    low, high = (_reach(curve, chosen, side, enough) for side in (below, above))
    again = tuple(math.log(gamma) for gamma in answer.get("resampled", ()))
    return GammaRange(chosen, low, high, again)


def _reach(
    curve: Mapping[float, float], start: float, further: list[float], enough: float
) -> float:
    """Return how far from its best a curve stays at least as high."""
    at = start
    for x in further:
        if curve[x] < enough:
            fall = curve[at] - curve[x]
            return at + (x - at) * (curve[at] - enough) / fall
        at = x
    return at


def gammas(
    of: StepAnswer, searches: Mapping[str, Found]
) -> tuple[GammaRange, GammaRange | None]:
    """Return the γ of an answer, and that of the search it is compared with.

    Raises:
        ValueError: If one was not searched for, or has no γ.
    """
    names = [of.search, *([of.than] if of.than else [])]
    ranges = [
        gamma_range(answer_of(searches, name, of.steps, of.method)) for name in names
    ]
    return ranges[0], ranges[1] if of.than else None


def search_ratio(metric: str, of: StepAnswer, searches: Mapping[str, Found]) -> float:
    """Return how many times less a search takes than AutoDiffusion's full budget.

    Both in UNet samples. The full budget is 499 evaluations of 1000 images each; what
    its fitness takes besides is left out, which favours it. The other side includes
    the references, in full for each number of steps.

    Args:
        metric: ``search_cost``, as if time steps were evaluated on as many images as
            in the paper, 100; ``search_calls``, on as many as they were.
        of: The answer; its number of evaluations, or its UNet samples.
        searches: Searches by id.

    Raises:
        ValueError: If it was not searched for.
    """
    answer = answer_of(searches, of.search, of.steps, of.method)
    found, evaluations = searches[of.search], answer["evaluations"]
    if of.method == "uniform":
        raise ValueError(f"{of.name!r} is no search")
    rival = RIVAL_EVALUATIONS * RIVAL_IMAGES * of.steps
    if metric == "search_cost":
        # Rows of guidance cancel.
        own = PUBLISHED_IMAGES * (evaluations * of.steps + found["reference"])
        return rival / own
    images = found["pairs"]["search"]
    rows = answer["unet_calls"] / (images * of.steps * evaluations)
    return float(
        rival * rows / (answer["unet_calls"] + found["references"]["unet_calls"])
    )
