"""Make a `with` block of what is applied to a pipeline and removed again."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def scoped(
    name: str, apply: Callable[P, T], remove: Callable[[Any], None], doc: str
) -> Callable[P, AbstractContextManager[T]]:
    """Return a function that applies a method within a block.

    Args:
        name: What the function is called, in the module of ``apply``.
        apply: Takes a pipeline first; the function has its arguments and yields what
            it returns.
        remove: Takes the pipeline, when the block is left.
        doc: The function's docstring.
    """

    @contextmanager
    def applied(*args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        given = inspect.signature(apply).bind(*args, **kwargs).args
        found = apply(*args, **kwargs)
        try:
            yield found
        finally:
            remove(given[0])

    functools.update_wrapper(applied, apply)
    applied.__name__ = applied.__qualname__ = name
    applied.__doc__ = doc
    return applied
