"""The joint plan: mask, predictor and time steps chosen together for a budget."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

from clockwork_experiments.benchmark.method import Given, Method


@dataclass(frozen=True)
class Planned(Method):
    """A plan of `clockwork_diffusion.plan`, made on other captions.

    Attributes:
        budget: The share of the FLOPs of as many full steps that it may spend.
        choose: What is chosen; without time steps, it changes one axis alone.
    """

    axis: ClassVar[str] = "reuse"
    planned: ClassVar[bool] = True
    budget: float = 0.65
    choose: tuple[str, ...] = ("time steps", "mask", "predictor")

    def __post_init__(self) -> None:
        """Reject a budget that is no share, and a grid, which the plan chooses."""
        super().__post_init__()
        if not 0 < self.budget <= 1:
            raise ValueError(f"budget {self.budget} is not above 0 and at most 1")
        if self.grid:
            raise ValueError(f"grid {self.grid!r}: a plan chooses its own time steps")

    @property
    def axes(self) -> tuple[str, ...]:
        """It may change both, unless it is told not to choose time steps."""
        return ("reuse", "time steps") if "time steps" in self.choose else ("reuse",)

    def sampled(self, given: Given) -> tuple[int, tuple[int, ...]]:
        """Return the plan's number of steps and its time steps."""
        found = self._plan(given)
        return found.steps, found.timesteps

    def applied(self, given: Given) -> AbstractContextManager[Any]:
        """Put the plan's mask and predictor on the pipeline."""
        from clockwork_diffusion.pipeline import clockwork
        from clockwork_diffusion.plan import PREDICTORS

        found = self._plan(given)
        adaptor = PREDICTORS[found.predictor]()
        return clockwork(given.pipe, mask=found.mask, adaptor=adaptor)

    def _plan(self, given: Given) -> Any:
        from clockwork_diffusion.plan import Plan

        if given.plan is None:
            raise ValueError("a planned method needs a plan, and none is given")
        return Plan.load(given.plan)
