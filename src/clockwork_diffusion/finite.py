"""Finite or nothing: no NaN or infinity becomes a black picture without a word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class NotFiniteError(ValueError):
    """Some rows of a batch hold NaN or infinity.

    Attributes:
        what: What they are of, such as ``latents after step 3 (t = 624)``.
        rows: The rows, ascending.
        of: How many rows there are.
    """

    def __init__(self, what: str, rows: tuple[int, ...], of: int) -> None:
        """Say what is not finite, and where."""
        self.what, self.rows, self.of = what, rows, of
        listed = ", ".join(map(str, rows[:8])) + ", …" * (len(rows) > 8)
        which = f"row {listed}" if len(rows) == 1 else f"rows {listed}"
        super().__init__(f"{what} are not finite: {which} of {of}, from 0")


def check_finite(values: torch.Tensor, what: str) -> None:
    """Refuse a batch in which a value is not finite.

    Args:
        values: ``(N, …)``.
        what: What they are, in the plural.

    Raises:
        NotFiniteError: If one is not, naming the rows.

    >>> try:
    ...     check_finite(torch.tensor([[1.0], [float("nan")]]), "latents")
    ... except ValueError as error:
    ...     print(error)
    latents are not finite: row 1 of 2, from 0
    """
    if values.is_meta:
        return  # Shapes alone, to count operations by.
    finite = values.isfinite()
    if not bool(finite.all()):
        bad = ~finite.flatten(1).all(dim=1)
        raise NotFiniteError(what, tuple(bad.nonzero().flatten().tolist()), len(values))


def after_each_step(
    pipe: Any, index: int, timestep: Any, kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Check a pipeline's latents: a ``callback_on_step_end`` of diffusers."""
    check_finite(kwargs["latents"], step_name(index, timestep))
    return {}


def step_name(index: int, timestep: Any) -> str:
    """Say which latents those after a step are; ``index`` counts from 0."""
    return f"latents after step {index + 1} (t = {float(timestep):g})"


def then(other: Callable[..., dict[str, Any]] | None) -> Callable[..., dict[str, Any]]:
    """Return `after_each_step`, followed by another callback if there is one."""
    if other is None:
        return after_each_step

    def both(*given: Any) -> dict[str, Any]:
        after_each_step(*given)
        return other(*given)

    return both
