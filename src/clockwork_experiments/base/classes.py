"""Find a class of somebody else's by ``my_package.my_module:MyClass``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any


def found_at(module: str, name: str, base: type, called: str) -> type[Any]:
    """Return a class, as `python -m` would find its module from this folder.

    Args:
        module: Where it lies, dotted.
        name: Its name there.
        base: What it must be.
        called: How a message speaks of it.

    Raises:
        ValueError: If there is none, or it is another class.
    """
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{called}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ValueError(f"{called} is no {base.__module__}.{base.__name__}")
    return found
