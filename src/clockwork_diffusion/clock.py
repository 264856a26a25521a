"""Decide which sampling steps run the whole UNet: the clock C(t) of the paper.

The clock counts *sampling steps*, not UNet calls. A second-order sampler calls the UNet
more than once in a step, and all calls of a step share its phase. Nothing here needs
torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

CORRECTED = (
    *("heun", "HeunDiscreteScheduler", "KDPM2DiscreteScheduler"),
    *("KDPM2AncestralDiscreteScheduler", "DPMSolverSDEScheduler"),
)
"""Samplers that correct every step but the last, by key or class; PNDM the first."""


class Calls(NamedTuple):
    """Number of UNet calls for one image, each at the batch that guidance needs.

    Attributes:
        full: Calls of the whole UNet.
        light: Calls of ε_H and the adaptor.
    """

    full: int
    light: int


@dataclass(frozen=True)
class Clock:
    """A clock: one full pass every ``every`` steps, or an explicit choice of steps.

    Attributes:
        every: N of "clock N"; 1 runs the whole UNet at every step.
        adaptor_steps: Steps that use the adaptor, counted from 1 as in Table 3, instead
            of a period. The first step has nothing to reuse, and must be full.
        every_step: Use the adaptor at all steps, the first included (Table S2's "model
            distillation"); only for an adaptor that reuses nothing.
        mask: A digit for each step of a run, 1 where it is full and 0 where it is
            light, such as ``10010100``: every clock is such a mask. A run must have as
            many steps.
    """

    every: int = 1
    adaptor_steps: tuple[int, ...] = ()
    every_step: bool = False
    mask: str = ""

    def __post_init__(self) -> None:
        """Reject clocks that cannot run."""
        for value in (self.every, *self.adaptor_steps):
            if type(value) is not int:
                raise ValueError(f"clock or adaptor step {value!r} is not an integer")
        if self.every < 1:
            raise ValueError(f"clock {self.every} is less than 1")
        given = (self.every > 1, bool(self.adaptor_steps), self.every_step)
        if sum(given) + (self.mask != "") > 1:
            raise ValueError(
                "give either a clock or adaptor steps or every step or a mask, "
                "not several"
            )
        if min(self.adaptor_steps, default=2) < 2:
            raise ValueError(
                f"adaptor step {min(self.adaptor_steps)} is less than 2: "
                "the first step has nothing to reuse"
            )
        if not isinstance(self.mask, str) or set(self.mask) - {"0", "1"}:
            raise ValueError(
                f"mask {self.mask!r} is not a text of 1 (full) and 0 (light), such as "
                "'1010'"
            )
        if self.mask.startswith("0"):
            raise ValueError(
                f"mask {self.mask!r} begins with a light step: the first step has "
                "nothing to reuse"
            )

    def __str__(self) -> str:
        """Return the choice of steps in words."""
        if self.every_step:
            return "the adaptor at every step"
        if self.adaptor_steps:
            return f"the adaptor at steps {', '.join(map(str, self.adaptor_steps))}"
        if self.mask:
            return f"mask {self.mask}"
        return f"clock {self.every}"

    @property
    def needs_adaptor(self) -> bool:
        """Tell whether the clock ever asks for the adaptor."""
        listed = bool(self.adaptor_steps) or "0" in self.mask
        return self.every > 1 or listed or self.every_step

    def is_full(self, index: int) -> bool:
        """Tell whether a step, counted from 0, runs the whole UNet (C(t) = 0)."""
        if self.every_step:
            return False
        if self.adaptor_steps:
            return index + 1 not in self.adaptor_steps
        if self.mask:
            return self.mask[index : index + 1] != "0"
        return index % self.every == 0

    def full_steps(self, steps: int) -> int:
        """Return how many of ``steps`` steps run the whole UNet.

        Raises:
            ValueError: If ``steps`` is less than 1, an adaptor step lies beyond it, or
                a mask is of another number of steps.
        """
        if steps < 1:
            raise ValueError(f"step count {steps} is less than 1")
        if max(self.adaptor_steps, default=0) > steps:
            raise ValueError(
                f"adaptor step {max(self.adaptor_steps)} is beyond the {steps} steps"
            )
        if self.mask and len(self.mask) != steps:
            raise ValueError(
                f"mask {self.mask} has {len(self.mask)} steps, and the run {steps}"
            )
        return sum(self.is_full(index) for index in range(steps))

    def calls(self, scheduler: str, steps: int) -> Calls:
        """Return how many UNet calls of each kind a run of ``steps`` steps makes."""
        self.full_steps(steps)
        owners = steps_of_calls(scheduler, steps)
        full = sum(self.is_full(index) for index in owners)
        return Calls(full, len(owners) - full)


def clock_of(sampler: Mapping[str, Any]) -> Clock:
    """Return the clock of a sampler's settings as they stand in the configuration."""
    return Clock(
        sampler.get("clock", 1),
        tuple(sampler.get("adaptor_steps", ())),
        sampler.get("every_step", False),
        sampler.get("mask", ""),
    )


def mask_of(clock: Clock, steps: int) -> str:
    """Return a clock as the mask that it is over a number of steps.

    >>> mask_of(Clock(3), 8)
    '10010010'

    Raises:
        ValueError: If the clock does not fit the steps, or has no full step.
    """
    if clock.full_steps(steps) == 0:
        raise ValueError("every step uses the adaptor, and a mask begins with a full")
    return "".join(str(int(clock.is_full(index))) for index in range(steps))


def steps_of_calls(scheduler: str, steps: int) -> tuple[int, ...]:
    """Return the sampling step, from 0, that each UNet call of a run belongs to.

    Heun's method corrects every step but the last by a second call at the step's end,
    and so does PNDM (without Runge-Kutta steps) at its first step: the call after that
    repeats the timestep, but begins the next step.

    Args:
        scheduler: A key of `clockwork_diffusion.schedulers.SCHEDULERS`, or a class of
            diffusers by its name.
        steps: Number of sampling steps.
    """
    corrected = steps - 1 if scheduler in CORRECTED else 0
    if scheduler in ("pndm", "PNDMScheduler"):
        corrected = min(steps - 1, 1)
    return tuple(
        index for index in range(steps) for _ in range(1 + (index < corrected))
    )
