"""Made-up searches for time steps, in the format of `search_steps`."""

from __future__ import annotations

import math
import random
import statistics
from typing import Any

from clockwork_diffusion.timesteps import gamma_timesteps
from clockwork_experiments.search.evolution import EvolutionSpec, evolve
from clockwork_experiments.search.gamma import (
    bracketed_search,
    ending_search,
    greedy_search,
)

SEEN, UNSEEN, ROWS = 16, 48, 2
"""Pairs that are searched on, pairs that are not, and rows of guidance."""

HEIGHT = {5: 24.0, 10: 28.0, 15: 31.0, 20: 34.0}
"""PSNR that even steps reach."""

SCORES = {"clip_image": (0.7, 0.01), "clip_direction": (0.2, 0.02), "psnr": (22.0, 0.2)}
"""By score, what even steps reach, and what a dB of PSNR adds."""


def interval(values: list[float]) -> dict[str, float]:
    mean = statistics.fmean(values)
    half = 2 * statistics.stdev(values) / math.sqrt(len(values))
    return {"value": mean, "low": mean - half, "high": mean + half, "n": len(values)}


def heldout(
    gain: float, even: dict[str, list[float]] | None, noise: float, seed: int, n: int
) -> dict[str, Any]:
    """Return scores of pairs, even ones' plus a gain in dB."""
    draw = random.Random(seed)
    pairs: dict[str, list[float]] = {}
    known = {"psnr_to_teacher": (34.0, 1.0), **SCORES}
    for name, (level, slope) in known.items():
        base = (
            [level + slope * (draw.gauss(0, 2) + HEIGHT[n] - 34) for _ in range(UNSEEN)]
            if even is None
            else even[name]
        )
        pairs[name] = [x + slope * (gain + draw.gauss(0, noise)) for x in base]
    made: dict[str, Any] = {
        "scores": {name: interval(values) for name, values in pairs.items()},
        "frechet": None,
        "pairs": pairs,
    }
    if even is not None:
        made["minus_uniform"] = {
            name: interval([a - b for a, b in zip(values, even[name], strict=True)])
            for name, values in pairs.items()
        }
    return made


def search(
    best: dict[int, float],
    *,
    evolved: tuple[int, ...] = (),
    curvature: float = 2.0,
    noise: float = 0.3,
    reference: int = 50,
    task: str = "edit",
) -> dict[str, Any]:
    """Return a search by all methods.

    Args:
        best: By number of steps the best γ.
        evolved: Numbers of steps for which AutoDiffusion searches as well.
        curvature: What quality falls by, in dB, where γ is e times off.
        noise: Of a pair's gain, in dB.
        reference: Steps of the reference.
        task: The task.
    """
    searches = []
    for steps, gamma in best.items():
        peak = curvature * math.log(gamma) ** 2

        def of_gamma(
            timesteps: tuple[int, ...], gamma: float = gamma, peak: float = peak
        ) -> float:
            # γ of the sequence again, from how its mean compares with even steps.
            n = len(timesteps)
            low, high = -3.0, 3.0
            for _ in range(40):
                middle = (low + high) / 2
                if sum(gamma_like(n, math.exp(middle))) > sum(timesteps):
                    low = middle
                else:
                    high = middle
            off = low - math.log(gamma)
            even = gamma_like(n, math.exp(low))
            spread = sum(abs(a - b) for a, b in zip(timesteps, even, strict=True))
            return HEIGHT[n] + peak - curvature * off**2 - 0.004 * spread / n

        direction = -1 if gamma <= 1 else 1
        found: dict[str, Any] = {
            "greedy": greedy_search(of_gamma, steps, direction),
            "bracketed": bracketed_search(of_gamma, steps, most=25),
            "ending": ending_search(of_gamma, steps, most=25),
        }
        if steps in evolved:
            budget = EvolutionSpec(12, 5, 4, 6, 3)
            for name in ("evolution_psnr", "evolution_frechet"):
                found[name] = evolve(of_gamma, steps, budget)
        even = heldout(0.0, None, 0.0, steps, steps)
        evenly = gamma_timesteps(steps, 1.0)
        once = {"gamma": 1.0, "timesteps": evenly, "quality": HEIGHT[steps]}
        searches.append(answer(steps, "uniform", 1.0, evenly, [once], even))
        for seed, (method, each) in enumerate(found.items()):
            gain = each.best.quality - HEIGHT[steps]
            gain -= 0.5 if method == "evolution_frechet" else 0.0
            made = heldout(gain, even["pairs"], noise, seed + 10 * steps, steps)
            listed = (
                [t for generation in each.generations for t in generation]
                if steps in evolved and method.startswith("evolution")
                else each.trials
            )
            trials = [
                {
                    "gamma": getattr(trial, "gamma", None),
                    "timesteps": list(trial.timesteps),
                    "quality": trial.quality,
                }
                for trial in listed
            ]
            searches.append(
                answer(
                    steps,
                    method,
                    getattr(each.best, "gamma", None),
                    each.best.timesteps,
                    trials,
                    made,
                    each.best.quality,
                )
            )
    return {
        "task": task,
        "reference": reference,
        "scheduler": "ddim",
        "pairs": {"search": SEEN, "heldout": UNSEEN},
        "references": {
            "unet_calls": SEEN * ROWS * reference,
            "seconds": 9.0,
            "heldout": {
                "scores": {n: {"value": level} for n, (level, _) in SCORES.items()}
            },
        },
        "searches": searches,
    }


def gamma_like(steps: int, gamma: float) -> list[float]:
    """Return time steps of γ without rounding."""
    shift = 30 * (max(gamma, 1 / gamma) - 1)
    even = [index * 999 / (steps - 1) for index in range(steps)]
    s = [(u + (shift if gamma < 1 else 0)) / (999 + shift) for u in even]
    return [999 * each**gamma for each in reversed(s)]


def answer(
    steps: int,
    method: str,
    gamma: float | None,
    timesteps: tuple[int, ...],
    trials: list[dict[str, Any]],
    made: dict[str, Any],
    quality: float | None = None,
) -> dict[str, Any]:
    quality = HEIGHT[steps] if quality is None else quality
    seen = {"value": quality, "low": quality - 0.5, "high": quality + 0.5, "n": SEEN}
    return {
        "steps": steps,
        "method": method,
        "gamma": gamma,
        "timesteps": list(timesteps),
        "quality": quality,
        "evaluations": len(trials),
        "unet_calls": SEEN * ROWS * steps * len(trials),
        "seconds": 1.0,
        "trials": trials,
        "search": {"psnr_to_teacher": seen},
        "heldout": made,
    }
