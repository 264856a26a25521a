"""Tell functions what they are about, and leave the rest of their arguments open."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any


def bound(module: ModuleType, known: Mapping[str, Any]) -> SimpleNamespace:
    """Return a module's names, its functions told what their first argument is.

    Args:
        module: The module.
        known: Values by the names that first parameters have.
    """
    found = SimpleNamespace(**vars(module))
    for name, function in inspect.getmembers(module, inspect.isfunction):
        first = next(iter(inspect.signature(function).parameters), "")
        if first in known:
            setattr(found, name, partial(function, known[first]))
    return found


def remember_signatures(rules: Any) -> None:
    """Note what arguments the functions of rules take.

    Snakemake asks Python for it at each call, a tenth of the time that a graph takes.
    """
    for rule in rules:
        for each in (*rule.input, *rule.params, *rule.resources.values()):
            if callable(each) and not hasattr(each, "__signature__"):
                each.__signature__ = inspect.signature(each)
