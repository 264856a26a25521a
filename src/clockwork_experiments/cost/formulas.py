"""Add up the FLOPs of runs from the counts of single calls, without torch.

Counts are those of `count_flops`: ``full`` is a call of the whole UNet at batch 1,
``levels`` holds calls of the UNet down to a level, and ``adaptors`` a ``step`` of ε_H
with each adaptor. Those of image-to-image models are of `count_levels`.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from clockwork_diffusion.clock import clock_of
from clockwork_experiments.generate.tasks import guided_rows

FEATURES = ("latents", "activations")
"""What inversion keeps for the source row of Plug-and-Play's generation."""


def run_flops(
    run: Mapping[str, Any],
    flops: Mapping[str, Any],
    key: str,
    *,
    by_steps: bool = False,
    step: str = "step",
) -> float:
    """Return the FLOPs of one image: all UNet passes of a run.

    The paper multiplies the cost of a call by the number of steps, and so prints the
    same 9.5 and 5.9 TFLOPs for all schedulers of Table S1. PNDM and Heun call the UNet
    more often than that. We count calls, unless asked to count ``by_steps`` as printed;
    for DPM++, DPM and DDIM there is no difference.

    Args:
        run: ``model``, ``adaptor`` (an id or empty), ``sampler``, and ``level`` if the
            UNet ends there; or of an edited run ``model``, ``inversion`` and
            ``generation``, see `edit_flops`.
        flops: Counts of the run's model.
        key: ``flops`` or ``flops_with_attention``.
        by_steps: Take a step for a call, as the paper does.
        step: Which count of a light step to take; see `light_count`.
    """
    if "inversion" in run:
        # DDIM both ways: a step is a call.
        return edit_flops(run, flops, key, step=step)
    sampler = run["sampler"]
    # Any of the samplers with one call per step counts steps.
    scheduler = "dpmpp" if by_steps else sampler.get("scheduler", "dpmpp")
    calls = clock_of(sampler).calls(scheduler, sampler["steps"])
    branches = 2 if sampler["guidance"] > 1 else 1
    total = calls.full * full_count(run, flops)[key]
    if calls.light:
        total += calls.light * light_count(run["adaptor"], flops, step)[key]
    return float(branches * total)


def light_count(adaptor: str, flops: Mapping[str, Any], step: str) -> Mapping[str, Any]:
    """Return the count of a light step with an adaptor.

    Args:
        adaptor: Its id.
        flops: Counts of the run's model.
        step: ``step``, as the paper counts it; or ``step_after_upsampler``, where the
            upsampler need not run since its output is kept, which the identity alone
            has and for others is the same.
    """
    counted = flops["adaptors"][adaptor]
    return dict(counted.get(step, counted["step"]))


def reuses_upsampled(run: Mapping[str, Any], flops: Mapping[str, Any]) -> bool:
    """Tell whether a run has light steps that need no upsampler."""
    loops = [run["inversion"], run["generation"]] if "inversion" in run else [run]
    known = flops.get("adaptors", {})
    return any(
        "step_after_upsampler" in known.get(loop.get("adaptor"), {}) for loop in loops
    )


def full_count(run: Mapping[str, Any], flops: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the count of a call of a run's UNet, which may end at a level.

    Raises:
        ValueError: If its level is not counted.
    """
    level = run.get("level")
    if level is None:
        return dict(flops["full"])
    counted = flops.get("levels", {})
    if str(level) not in counted:
        known = ", ".join(counted) or "none"
        raise ValueError(f"level {level} is not one of those counted: {known}")
    return dict(counted[str(level)])


def run_parameters(run: Mapping[str, Any], flops: Mapping[str, Any]) -> int:
    """Return the parameters of a run: of its UNet, and of its adaptor."""
    total = int(full_count(run, flops)["parameters"])
    if run.get("adaptor"):
        total += int(flops["adaptors"][run["adaptor"]]["parameters"])
    return total


def call_flops(
    run: Mapping[str, Any], flops: Mapping[str, Any], key: str, step: str = "step"
) -> float:
    """Return the FLOPs of one UNet call for one image, guidance included.

    With the adaptor, if the run has one: the figure of Tables 3 and S2. ``step`` is as
    for `light_count`.
    """
    count = full_count(run, flops)
    if run["adaptor"]:
        count = light_count(run["adaptor"], flops, step)
    return float((2 if run["sampler"]["guidance"] > 1 else 1) * count[key])


def edit_flops(
    run: Mapping[str, Any],
    flops: Mapping[str, Any],
    key: str,
    *,
    printed: bool = False,
    step: str = "step",
) -> float:
    """Return the FLOPs of one edited image: inversion at batch 1, and generation.

    Generation has three rows: source, negative prompt, target prompt. Without guidance
    the negative row is absent. The source row is absent where ``drop_source`` says so
    once no step injects its features any more; and at all steps where ``features`` are
    ``activations`` kept at inversion time, which takes a pass of one row for each step
    that injects, once for all target prompts of an image.

    Args:
        run: ``inversion`` (``steps``, ``clock``, ``adaptor``) and ``generation`` (these
            and ``guidance``, ``tau_f``, ``tau_a``; optionally ``drop_source``,
            ``features``, and ``prompts`` that share kept activations).
        flops: Counts of the run's model.
        key: ``flops`` or ``flops_with_attention``.
        printed: Count by Eqs. 2–4 instead: N div C full passes, where a clock makes
            ⌈N / C⌉, and always three rows at all steps.
        step: Which count of a light step to take; see `light_count`.

    Raises:
        ValueError: If ``features`` are unknown, or more steps inject than there are.
    """
    inversion, generation = run["inversion"], run["generation"]
    if printed:
        return _printed(inversion, flops, key) + 3 * _printed(generation, flops, key)
    features = generation.get("features", "latents")
    if features not in FEATURES:
        raise ValueError(f"features {features!r} are not one of {', '.join(FEATURES)}")
    every, injecting = generation["steps"], injecting_steps(generation)
    counts = (flops, key, step)
    total = _passes(inversion, inversion["steps"], *counts)
    rows = 2 if generation["guidance"] > 1 else 1
    total += rows * _passes(generation, every, *counts)
    if features == "activations":
        shared = _passes(generation, injecting, *counts)
        return total + shared / generation.get("prompts", 1)
    dropped = generation.get("drop_source", False)
    return total + _passes(generation, injecting if dropped else every, *counts)


def injecting_steps(generation: Mapping[str, Any]) -> int:
    """Return after how many generation steps nothing of the source is injected.

    Raises:
        ValueError: If these are more than there are steps, or fewer than none.
    """
    steps = generation["steps"]
    last = max(int(steps * generation[name]) for name in ("tau_f", "tau_a"))
    if not 0 <= last <= steps:
        raise ValueError(f"{last} injecting steps are not within 0 to {steps} steps")
    return last


def _passes(
    loop: Mapping[str, Any], first: int, flops: Mapping[str, Any], key: str, step: str
) -> float:
    """Return the FLOPs of the first steps of a loop at batch 1, as its clock has it."""
    clock = clock_of(loop)
    clock.full_steps(loop["steps"])  # Refuses adaptor steps beyond the last.
    full = sum(clock.is_full(index) for index in range(first))
    return _cost(loop, full, first - full, flops, key, step)


def _printed(loop: Mapping[str, Any], flops: Mapping[str, Any], key: str) -> float:
    """Return the FLOPs of a loop at batch 1 with N div C full passes (Eqs. 2 and 3)."""
    full = loop["steps"] // loop.get("clock", 1)
    return _cost(loop, full, loop["steps"] - full, flops, key, "step")


def _cost(
    loop: Mapping[str, Any],
    full: int,
    light: int,
    flops: Mapping[str, Any],
    key: str,
    step: str,
) -> float:
    total = float(full * flops["full"][key])
    if light:
        total += light * light_count(loop["adaptor"], flops, step)[key]
    return total


# --- image-to-image -------------------------------------------------------------------


def kept_share(counts: Mapping[str, Any], level: int) -> float:
    """Return the share of parameters that is kept down to a level, as the paper has it.

    The time embedding is left out; the output layers count in what is kept, and not in
    the whole (Table S7: 0.70 % at D01, where the level itself has 0.69 %).

    Raises:
        ValueError: If there is no such level.
    """
    levels = counts["levels"]
    if not 1 <= level <= len(levels):
        raise ValueError(f"level {level} is not one of 1 to {len(levels)}")
    kept = sum(entry["parameters"] for entry in levels[:level])
    whole = sum(entry["parameters"] for entry in levels)
    return float((kept + counts["shared"]["output"]) / whole)


def typical_ms(timing: Mapping[str, Any]) -> float:
    """Return the median of a timing's calls: one that was disturbed is no matter."""
    return float(statistics.median(timing["runs"]))


def translation_rows(run: Mapping[str, Any], task: str) -> int:
    """Return how many UNet samples a translation computes per image and step."""
    return guided_rows(task, run.get("guidance", 1.0))


def translation_count(
    run: Mapping[str, Any], counts: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return the count of a call of a translation's UNet, which may end at a level."""
    levels = counts["levels"]
    return dict(levels[run.get("level", len(levels)) - 1]["count"])


def translation_ms(run: Mapping[str, Any], timing: Mapping[str, Any]) -> float | None:
    """Return the milliseconds of one translated image: its UNet calls, ControlNet's.

    Of all rows that the task has, be they computed or not: that is what is timed.

    Args:
        run: As for `translation_flops`.
        timing: As `time_levels` writes it; empty if nothing is timed.

    Raises:
        ValueError: If the level or the adaptor is not timed.
    """
    if not timing:
        return None
    clock, steps = clock_of(run), run["steps"]
    full = sum(clock.is_full(index) for index in range(steps))
    levels, light = timing["levels"], timing.get("light", {})
    level = str(run.get("level", max(map(int, levels))))
    if level not in levels:
        raise ValueError(
            f"level {level} is not one of those timed: {', '.join(levels)}"
        )
    total = full * typical_ms(levels[level])
    if full < steps:
        if run["adaptor"] not in light:
            listed = ", ".join(light) or "none"
            raise ValueError(
                f"adaptor {run['adaptor']!r} is not one of those timed: {listed}"
            )
        total += (steps - full) * typical_ms(light[run["adaptor"]])
    if timing["branch"]:
        total += steps * typical_ms(timing["branch"])
    return total


def translation_flops(
    run: Mapping[str, Any], counts: Mapping[str, Any], key: str
) -> float:
    """Return the FLOPs of one translated image: of the UNet, and of ControlNet.

    Encoders, decoders and the structure encoder are left out.

    Args:
        run: ``steps`` and, where they differ from none, ``level``, ``clock``,
            ``adaptor``, ``guidance`` and ``image_guidance``.
        counts: Counts of the model's levels.
        key: ``flops`` or ``flops_with_attention``.

    Raises:
        ValueError: If the adaptor is not counted.
    """
    clock, steps = clock_of(run), run["steps"]
    full = sum(clock.is_full(index) for index in range(steps))
    total = float(full * translation_count(run, counts)[key])
    if full < steps:
        known = counts.get("adaptors", {})
        if run["adaptor"] not in known:
            listed = ", ".join(known) or "none"
            raise ValueError(
                f"adaptor {run['adaptor']!r} is not one of those counted: {listed}"
            )
        total += (steps - full) * known[run["adaptor"]][key]
    if counts["branch"]:
        total += steps * counts["branch"][key]
    return translation_rows(run, counts["task"]) * total
