"""The joint plan: steps, mask, predictor and time steps chosen together."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from clockwork_experiments.benchmark.method import Given, Method

AXES = {
    **{"mask": "reuse", "predictor": "reuse", "level": "depth"},
    **{"steps": "time steps", "time steps": "time steps"},
}
"""What a plan may choose, and which axis that is."""


@dataclass(frozen=True)
class Planned(Method):
    """A plan of `clockwork_diffusion.plan`, made on other captions.

    Attributes:
        budget: The share of the FLOPs of as many full steps that it may spend.
        choose: What is chosen, of `AXES`.
    """

    axis: ClassVar[str] = "reuse"
    planned: ClassVar[bool] = True
    budget: float = 0.65
    choose: tuple[str, ...] = ("steps", "level", "time steps", "mask", "predictor")

    def __post_init__(self) -> None:
        """Reject a budget that is no share, and a grid, which the plan chooses."""
        super().__post_init__()
        if not 0 < self.budget <= 1:
            raise ValueError(f"budget {self.budget} is not above 0 and at most 1")
        if not self.choose or not set(self.choose) <= AXES.keys():
            raise ValueError(
                f"choose {list(self.choose)} is not some of {', '.join(AXES)}"
            )
        if self.grid:
            raise ValueError(f"grid {self.grid!r}: a plan chooses its own time steps")

    @property
    def axes(self) -> tuple[str, ...]:
        """It may change what it is told to choose."""
        return tuple(dict.fromkeys(AXES[each] for each in self.choose))

    def sampled(self, given: Given) -> tuple[int, tuple[int, ...]]:
        """Return the plan's number of steps and its time steps."""
        found = self._plan(given)
        return found.steps, found.timesteps

    def applied(self, given: Given) -> AbstractContextManager[Any]:
        """Put the plan on the pipeline, but for its time steps."""
        made = replace(self._plan(given), timesteps=())
        applied: AbstractContextManager[Any] = made.applied(given.pipe)
        return applied

    def _plan(self, given: Given) -> Any:
        from clockwork_diffusion.plan import Plan

        if given.plan is None:
            raise ValueError("a planned method needs a plan, and none is given")
        return Plan.load(given.plan)
