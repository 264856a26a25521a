"""Depth-skip: the UNet ends at a level at every step."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

from clockwork_experiments.benchmark.method import Given, Method


@dataclass(frozen=True)
class Depth(Method):
    """Depth-skip, as Kim et al. 2024 prune.

    Attributes:
        level: The deepest level to keep.
    """

    axis: ClassVar[str] = "depth"
    level: int = 9

    def applied(self, given: Given) -> AbstractContextManager[Any]:
        """Put it on the pipeline."""
        from clockwork_diffusion.depth_skip import depth_skipped

        return depth_skipped(given.pipe, self.level)
