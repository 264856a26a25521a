"""Features of a full step stand in for the UNet's depth on light ones.

Which predictor does so is the entry's ``adaptor``: the identity (Clockwork's; the
pattern of NVIDIA's cache_diffusion), extrapolation, TaylorSeer, maps in closed form,
learned adaptors, or a branch (DeepCache).
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

from clockwork_diffusion.clock import Clock
from clockwork_experiments.benchmark.method import Given, Method


@dataclass(frozen=True)
class Reuse(Method):
    """Full and light steps by a clock or a mask.

    Attributes:
        clock: Runs the whole UNet once in so many steps.
        mask: A digit for each step, 1 where it is full, instead of a clock.
    """

    axis: ClassVar[str] = "reuse"
    clock: int = 2
    mask: str = ""

    def __post_init__(self) -> None:
        """Reject a clock without light steps, and a mask of other steps."""
        super().__post_init__()
        self.phases.full_steps(self.steps)
        if not self.phases.needs_adaptor:
            raise ValueError(f"{self.phases} has no light step")

    @property
    def phases(self) -> Clock:
        """When the whole UNet runs."""
        return Clock(mask=self.mask) if self.mask else Clock(self.clock)

    def applied(self, given: Given) -> AbstractContextManager[Any]:
        """Put the library's method on the pipeline."""
        from clockwork_experiments.generate import runs

        return runs.applied(
            given.pipe,
            self.phases,
            given.adaptor,
            branch=given.branch,
            prompts=given.prompts,
        )
