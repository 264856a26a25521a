"""ToMe: tokens that are alike are merged around self-attention."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

from clockwork_experiments.benchmark.method import Given, Method


@dataclass(frozen=True)
class ToMe(Method):
    """ToMe, at the highest resolution.

    Attributes:
        ratio: The share of the tokens that is merged away.
    """

    axis: ClassVar[str] = "tokens"
    ratio: float = 0.5

    def applied(self, given: Given) -> AbstractContextManager[Any]:
        """Put it on the pipeline."""
        from clockwork_experiments.rivals.tome import tome

        return tome(given.pipe, ratio=self.ratio)
