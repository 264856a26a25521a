"""What an adaptor was made for, and in what its use differs from that.

The paper trains one adaptor per backbone, scheduler and number of steps. An adaptor
carries these facts in its configuration (``made_for``); the workflow refuses another
use, and the door warns of one.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusers import ModelMixin
from torch import nn

from clockwork_diffusion.clock import Clock, mask_of
from clockwork_diffusion.contract import LOOPS, cut_of
from clockwork_diffusion.schedulers import name_of


def check_made_for(
    adaptor: ModelMixin,
    folder: Path,
    *,
    model: str | None,
    scheduler: str,
    steps: int | None,
    cut: str,
    loop: str | None = LOOPS[0],
) -> None:
    """Make sure that an adaptor is for the run that is to use it.

    The paper trains one adaptor per backbone, scheduler and number of steps. One
    without weights is for any of them, at its cut.

    Args:
        adaptor: What `load_adaptor` returned.
        folder: Where it was loaded from; named in messages.
        model: SHA-256 of the model's weights (`storage.sha256_folder`); None if the
            model has none that count, as when random ones are timed.
        scheduler: Key of the run's scheduler.
        steps: Its number of sampling steps; None for an adaptor of any number.
        cut: Where its UNet is split.
        loop: Which of `LOOPS` it runs in; None for an adaptor of either.

    Raises:
        ValueError: If the adaptor is for something else, or does not say for what.
    """
    asked: dict[str, Any] = {"model": model, "scheduler": scheduler, "steps": steps}
    asked |= {"cut": cut, "loop": loop}
    asked = {name: value for name, value in asked.items() if value is not None}
    if "made_for" in adaptor.config:
        known = {"loop": LOOPS[0], **(adaptor.config.made_for or {})}
        missing = [name for name in asked if name not in {*known, "cut"}]
        if missing:
            raise ValueError(
                f"{folder} does not say for which {', '.join(missing)} it was trained"
            )
    difference = differences(adaptor, asked)
    if difference:
        raise ValueError(f"{folder} was {difference}")


def differences(adaptor: Any, asked: Mapping[str, Any]) -> str:
    """Say in what an adaptor's use differs from what it was made for.

    Args:
        adaptor: φ; one that does not say what it was made for is for anything.
        asked: Facts of its use by name, as they stand in ``config.made_for``.

    Returns:
        ``trained for …, and asked for …``; empty if nothing differs that both know.
    """
    noted = getattr(getattr(adaptor, "config", None), "made_for", None)
    # What was trained for sampling does not say so.
    made_for: dict[str, Any] = {"loop": LOOPS[0], **noted} if noted else {}
    cut = cut_of(adaptor)
    if cut is not None:
        made_for["cut"] = cut
    trained, wanted = [], []
    for name, value in asked.items():
        # One that has adaptor steps has no clock.
        known = next((n for n in _same(name) if n in made_for), None)
        if known is not None and (known != name or _differs(made_for[name], value)):
            trained.append(f"{known.replace('_', ' ')} {_short(made_for[known])}")
            wanted.append(f"{name.replace('_', ' ')} {_short(value)}")
    if not wanted:
        return ""
    return f"trained for {', '.join(trained)}, and asked for {', '.join(wanted)}"


def facts_of_use(
    unet: nn.Module, scheduler: Any, clock: Clock, cut: str, steps: int | None = None
) -> dict[str, Any]:
    """Return the facts of a run that an adaptor is trained for, and compared with.

    Args:
        unet: The UNet that it runs in.
        scheduler: The scheduler that samples.
        clock: Which steps use the adaptor.
        cut: Where the UNet is split.
        steps: Number of sampling steps; what the scheduler is set to if left out. A
            run that starts in the middle, as from an image, has the steps of the whole.
    """
    steps = getattr(scheduler, "num_inference_steps", None) if steps is None else steps
    facts: dict[str, Any] = {"scheduler": name_of(scheduler), "cut": cut}
    if steps is not None:
        facts["steps"] = steps
    return {**facts, **facts_of_clock(clock), "weights": weights_of(unet)}


def is_made_for_something(adaptor: Any) -> bool:
    """Tell whether an adaptor says what it was made for."""
    return bool(getattr(getattr(adaptor, "config", None), "made_for", None))


def facts_of_clock(clock: Clock) -> dict[str, Any]:
    """Return a clock as it stands in ``config.made_for``; a mask as what it equals."""
    if clock.every_step:
        return {"every_step": True}
    if clock.adaptor_steps:
        return {"adaptor_steps": list(clock.adaptor_steps)}
    if not clock.mask:
        return {"clock": clock.every}
    steps = len(clock.mask)
    for every in range(1, steps + 1):
        if mask_of(Clock(every), steps) == clock.mask:
            return {"clock": every}
    light = [index + 1 for index, digit in enumerate(clock.mask) if digit == "0"]
    return {"adaptor_steps": light}


def weights_of(unet: nn.Module) -> dict[str, float]:
    """Return a few of a UNet's weights by name, by which its checkpoint is recognised.

    They are the same in any precision, to rounding, and LoRA layers beside them do not
    count. Weights that are not at hand (offloaded, quantised) are left out.
    """
    found = {
        name.replace(".base_layer", ""): parameter
        for name, parameter in unet.named_parameters()
        if parameter.dim() > 1 and "lora_" not in name
    }
    spaced = sorted(found)[:: max(1, len(found) // SAMPLED)]
    values = {}
    for name in spaced:
        parameter = found[name]
        if parameter.is_floating_point() and not parameter.is_meta:
            middle = parameter.detach().flatten()[parameter.numel() // 2]
            values[name] = float(f"{float(middle):.5g}")
    return values


def warn_of_another_use(adaptor: Any, facts: Mapping[str, Any]) -> None:
    """Warn in one line if an adaptor runs in what it was not made for.

    Args:
        adaptor: φ.
        facts: As `facts_of_use` returns them.
    """
    difference = differences(adaptor, facts)
    if difference:
        kind = type(adaptor).__name__
        warnings.warn(f"the {kind} was {difference}", UserWarning, stacklevel=2)


SAMPLED = 16
"""How many weights tell one checkpoint from another."""

ROUNDING = 0.01
"""Relative distance of these weights up to which it is the same: bfloat16 has 0.004."""


CLOCKS = ("clock", "adaptor_steps", "every_step")
"""The facts that say which steps use the adaptor; one of them is there."""


def _same(name: str) -> tuple[str, ...]:
    """Return the names under which a fact may stand, its own first."""
    return (name, *(CLOCKS if name in CLOCKS else ()))


def _differs(made_for: Any, asked: Any) -> bool:
    """Compare two facts; sampled weights by their distance, where both have them.

    An adaptor may be for several clocks, or numbers of steps.
    """
    if isinstance(made_for, Sequence) and isinstance(asked, int):
        return asked not in made_for
    if not isinstance(made_for, Mapping):
        return bool(made_for != asked)
    shared = made_for.keys() & asked.keys()
    distance = math.hypot(*(made_for[name] - asked[name] for name in shared))
    return distance > ROUNDING * math.hypot(*(made_for[name] for name in shared))


def _short(value: object) -> str:
    """Return a value for a message; of a checksum or of weights, the start."""
    if isinstance(value, Mapping):
        return "that begin " + ", ".join(
            f"{each:.3g}" for each in [*value.values()][:3]
        )
    text = repr(value)
    return f"{text[:13]}…'" if len(text) > 40 else text
