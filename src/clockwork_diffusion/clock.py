"""Decide which sampling steps run the whole UNet: the clock C(t) of the paper."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Clock:
    """A clock: one full pass every ``every`` steps, or an explicit set of steps.

    Attributes:
        every: N of "clock N"; 1 runs the whole UNet at every step.
        adaptor_steps: Steps that use the adaptor, counted from 1 as in Table 3, instead
            of a period. The first step has nothing to reuse, and must be full.
    """

    every: int = 1
    adaptor_steps: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Reject clocks that cannot run."""
        if self.every < 1:
            raise ValueError(f"clock {self.every} is less than 1")
        if self.adaptor_steps is not None:
            if self.every != 1:
                raise ValueError("give either a clock or adaptor steps, not both")
            if min(self.adaptor_steps, default=2) < 2:
                raise ValueError(
                    f"adaptor step {min(self.adaptor_steps)} is less than 2: "
                    "the first step has nothing to reuse"
                )

    def is_full(self, index: int) -> bool:
        """Tell whether a step, counted from 0, runs the whole UNet (C(t) = 0)."""
        if self.adaptor_steps is not None:
            return index + 1 not in self.adaptor_steps
        return index % self.every == 0

    def full_steps(self, steps: int) -> int:
        """Return how many of ``steps`` steps run the whole UNet.

        Raises:
            ValueError: If ``steps`` is less than 1, or an adaptor step lies beyond it.
        """
        if steps < 1:
            raise ValueError(f"step count {steps} is less than 1")
        if max(self.adaptor_steps or (0,)) > steps:
            raise ValueError(
                f"adaptor step {max(self.adaptor_steps or ())} is beyond "
                f"the {steps} steps"
            )
        return sum(self.is_full(index) for index in range(steps))
