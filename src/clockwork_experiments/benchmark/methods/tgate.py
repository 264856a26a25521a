"""T-GATE: no cross-attention is computed after a step."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

from clockwork_experiments.benchmark.method import Given, Method


@dataclass(frozen=True)
class TGate(Method):
    """T-GATE, as first published; of text-to-image alone.

    Attributes:
        gate: How many of the steps compute cross-attention, the first ones.
    """

    axis: ClassVar[str] = "attention"
    gate: int = 4

    def __post_init__(self) -> None:
        """Reject a gate that is not among the steps."""
        super().__post_init__()
        if not 1 <= self.gate <= self.steps:
            raise ValueError(
                f"gate {self.gate} is not between 1 and the {self.steps} steps"
            )

    def applied(self, given: Given) -> AbstractContextManager[Any]:
        """Put it on the pipeline."""
        from clockwork_experiments.rivals.tgate import tgate

        return tgate(given.pipe, steps=self.steps, gate=self.gate, guided=given.guided)
