"""All clocks: measure every mask of a few steps, and what may stand for measuring it.

For 8 steps there are 2^7 masks, few enough to sample with every one of them. The
question is whether that is needed: does the sum of what single steps or single spans
cost predict what a whole mask costs, and how much is lost if the best mask for a budget
is looked for in that sum (`clockwork_diffusion.masks.best_mask`)?
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from clockwork_diffusion.adaptors import IdentityAdaptor
from clockwork_diffusion.clock import Clock
from clockwork_diffusion.encoding import Prompts
from clockwork_diffusion.masks import (
    Span,
    additive,
    all_masks,
    all_spans,
    best_mask,
    costs_of_steps,
    mask_of_span,
)
from clockwork_experiments.base import chunks
from clockwork_experiments.generate import runs, text
from clockwork_experiments.generate.text import SamplerSpec

MASKS = 8
"""Masks that are measured between two looks at whether to stop."""


@dataclass(frozen=True)
class Prediction:
    """How well sums predict what masks cost; masks that are summands do not count.

    Attributes:
        n: Number of masks that were predicted.
        r2: Share of the measured costs' variance that a line through the predicted ones
            explains.
        slope: The line's slope; 1 if costs add up, below 1 if they overlap.
        intercept: Where it begins.
    """

    n: int
    r2: float
    slope: float
    intercept: float


@dataclass(frozen=True)
class Best:
    """The mask that is chosen by a sum for a budget, beside the one that is best.

    Attributes:
        full: The budget: how many steps are full.
        chosen: The mask whose sum is least.
        error: What that was measured to cost.
        best: The mask that was measured to cost least.
        least: What that costs.
        gap: By what share the chosen one costs more, the measured optimality gap.
        rank: The chosen one's place among the masks of this budget, from 1.
        masks: How many these are.
    """

    full: int
    chosen: str
    error: float
    best: str
    least: float
    gap: float
    rank: int
    masks: int


def measure(
    pipe: Any,
    prompts: Prompts,
    noise: torch.Tensor,
    spec: SamplerSpec,
    state: Path,
    fingerprint: str,
    *,
    adaptor: Any = None,
) -> dict[str, torch.Tensor]:
    """Sample with every mask, and compare with what the whole UNet draws.

    What was measured is kept, so that a killed process goes on where it was.

    Args:
        pipe: The pipeline, without a method on it.
        prompts: Encoded prompts, N of them, sampled together; pooled, for a predictor
            that looks at text.
        noise: The starting noise of each, ``(N, C, h, w)``.
        spec: How to sample; without a clock.
        state: Folder of what was measured.
        fingerprint: Says what decides the images: weights, prompts, predictor, code.
        adaptor: The predictor; the identity if left out.

    Returns:
        Of each mask the mean squared distance of its latents to those of the mask that
        is full everywhere, by prompt: float64, ``(N,)``.
    """
    if spec.phases.needs_adaptor:
        raise ValueError(f"the masks stand in for the clock, and {spec.phases} is set")
    masks = all_masks(spec.steps)
    phi = IdentityAdaptor() if adaptor is None else adaptor

    def draw(mask: str) -> torch.Tensor:
        with runs.applied(pipe, Clock(mask=mask), phi, prompts=prompts):
            asked = replace(spec, mask=mask)
            return text.sample(pipe, prompts, noise, asked).double().cpu()

    teacher: list[torch.Tensor] = []

    def work(rows: slice) -> dict[str, torch.Tensor]:
        if not teacher:
            teacher.append(draw(masks[-1]))
        drawn = torch.stack([draw(mask) for mask in masks[rows]])
        return {"errors": (drawn - teacher[0]).square().mean(dim=(2, 3, 4))}

    known = f"{fingerprint}\n{spec}\n{len(prompts.text)}"
    found = chunks.in_chunks(len(masks), MASKS, work, state, known, "masks")
    return dict(zip(masks, found["errors"], strict=True))


def report(errors: Mapping[str, float], steps: int) -> dict[str, Any]:
    """Return what sums of costs predict, and what is lost by trusting them.

    Args:
        errors: What every mask of these steps costs.
        steps: Number of steps.

    Returns:
        By ``steps`` (7 numbers for 8 steps: what one light step costs) and by ``spans``
        (28: what one span costs): a `Prediction`, and a `Best` of each budget.
    """
    return {
        name: {
            "prediction": asdict(predicted(errors, costs, steps)),
            "best": [
                asdict(chosen(errors, costs, steps, full)) for full in range(1, steps)
            ],
        }
        for name, costs in sums(errors, steps).items()
    }


def sums(errors: Mapping[str, float], steps: int) -> dict[str, dict[Span, float]]:
    """Return what spans cost, by measured single steps and by measured spans."""
    spans = {span: errors[mask_of_span(steps, span)] for span in all_spans(steps)}
    single = {
        start + 1: cost for (start, stop), cost in spans.items() if stop - start == 2
    }
    return {"steps": costs_of_steps(single, steps), "spans": spans}


def predicted(
    errors: Mapping[str, float], costs: Mapping[Span, float], steps: int
) -> Prediction:
    """Compare the sums with what was measured."""
    summands = {mask_of_span(steps, span) for span in all_spans(steps)}
    others = [mask for mask in errors if mask not in summands and "0" in mask]
    guesses = [additive(mask, costs) for mask in others]
    measured = [errors[mask] for mask in others]
    slope, intercept = statistics.linear_regression(guesses, measured)
    r2 = statistics.correlation(guesses, measured) ** 2
    return Prediction(len(others), r2, slope, intercept)


def chosen(
    errors: Mapping[str, float], costs: Mapping[Span, float], steps: int, full: int
) -> Best:
    """Choose a mask for a budget by the sums, and say how good it is."""
    mask = best_mask(steps, full, costs)
    ranked = sorted(
        (each for each in errors if each.count("1") == full), key=lambda m: errors[m]
    )
    best = ranked[0]
    gap = errors[mask] / errors[best] - 1 if errors[best] else 0.0
    rank = ranked.index(mask) + 1
    return Best(full, mask, errors[mask], best, errors[best], gap, rank, len(ranked))
