"""What a method of the benchmark is: settings, and how it is put on a pipeline.

A method is a frozen dataclass in a file of its own, here in `benchmark.methods` or
anywhere else, and an entry of the configuration's section ``benchmark``. Nothing here
needs torch, so that entries are checked before anything runs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar


@dataclass(frozen=True)
class Given:
    """What a method is put on, and what it may ask for.

    Attributes:
        pipe: The pipeline, without a method on it.
        guided: Whether both branches of guidance are in one batch.
        adaptor: What light steps run, of an entry that names an adaptor with weights or
            without; else None.
        branch: The skip connection of an entry whose adaptor is a branch; else None.
        prompts: All prompts to come, encoded, for an adaptor that looks at text.
        grids: Time steps by the name of their grid, then by their number as text.
        plan: The file of a planned method's plan.
    """

    pipe: Any
    guided: bool = True
    adaptor: Any = None
    branch: int | None = None
    prompts: Any = None
    grids: Mapping[str, Mapping[str, Sequence[int]]] = field(default_factory=dict)
    plan: Path | None = None


@dataclass(frozen=True)
class Method(ABC):
    """A method, with its settings as fields.

    Attributes:
        steps: Number of sampling steps.
        grid: Which of `rivals.grids.GRIDS` says the time steps; the scheduler's own if
            empty.
    """

    axis: ClassVar[str] = ""
    """What it changes beside the time steps; nothing if empty."""
    planned: ClassVar[bool] = False
    """Whether it needs a plan, made beforehand on other captions."""

    steps: int = 8
    grid: str = ""

    def __post_init__(self) -> None:
        """Reject a number of steps that is none."""
        if self.steps < 1:
            raise ValueError(f"step count {self.steps} is less than 1")

    @property
    def axes(self) -> tuple[str, ...]:
        """What it changes of a plain sampler with as many steps as all are given."""
        moved = "time steps" if self.grid or not self.axis else ""
        return tuple(filter(None, (self.axis, moved)))

    def sampled(self, given: Given) -> tuple[int, tuple[int, ...]]:
        """Return the number of steps, and the time steps unless they are the own."""
        if not self.grid:
            return self.steps, ()
        return self.steps, tuple(given.grids[self.grid][str(self.steps)])

    @abstractmethod
    def applied(self, given: Given) -> AbstractContextManager[Any]:
        """Put it on the pipeline within a block."""
