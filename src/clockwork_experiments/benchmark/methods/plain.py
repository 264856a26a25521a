"""The sampler as it is: fewer steps, or steps elsewhere."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from clockwork_experiments.benchmark.method import Given, Method


@dataclass(frozen=True)
class Plain(Method):
    """The whole UNet at every step."""

    def applied(self, given: Given) -> AbstractContextManager[Any]:
        """Put nothing on the pipeline."""
        return nullcontext()
