"""The methods of the benchmark, one file each, by name or as ``my_module:MyMethod``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clockwork_experiments.base import classes
from clockwork_experiments.benchmark.method import Method
from clockwork_experiments.benchmark.methods.depth import Depth
from clockwork_experiments.benchmark.methods.plain import Plain
from clockwork_experiments.benchmark.methods.planned import Planned
from clockwork_experiments.benchmark.methods.reuse import Reuse
from clockwork_experiments.benchmark.methods.tgate import TGate
from clockwork_experiments.benchmark.methods.tome import ToMe
from clockwork_experiments.config.parse import parse

METHODS: dict[str, type[Method]] = {
    "plain": Plain,
    "reuse": Reuse,
    "depth": Depth,
    "tgate": TGate,
    "tome": ToMe,
    "planned": Planned,
}
"""Kinds of methods by name."""


def find(kind: str) -> type[Method]:
    """Return a kind of method.

    Raises:
        ValueError: If there is none of this name, and it is no ``module:Class``.
    """
    module, colon, name = kind.partition(":")
    if not colon:
        if kind not in METHODS:
            raise ValueError(
                f"kind {kind!r} is not one of {', '.join(METHODS)}, "
                "nor of the form my_package.my_module:MyMethod"
            )
        return METHODS[kind]
    found: type[Method] = classes.found_at(module, name, Method, f"kind {kind!r}")
    return found


def made(kind: str, settings: Mapping[str, Any], where: str = "settings") -> Method:
    """Return a method by its kind and settings.

    Raises:
        ValueError: If there is no such kind, or it has no such settings.
    """
    return parse(find(kind), dict(settings), where)
