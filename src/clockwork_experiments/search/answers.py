"""What a search for time steps found, as `search_steps` writes it. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Found = Mapping[str, Any]
"""A search for time steps, as `search_steps` writes it."""


def answer_of(
    searches: Mapping[str, Found], search: str, steps: int, method: str
) -> Mapping[str, Any]:
    """Return what a method found.

    Raises:
        ValueError: If it was not searched for.
    """
    if search not in searches:
        known = ", ".join(searches) or "none"
        raise ValueError(f"search {search!r} is not one of those: {known}")
    answers = searches[search]["searches"]
    for answer in answers:
        if (answer["steps"], answer["method"]) == (steps, method):
            found: Mapping[str, Any] = answer
            return found
    known = ", ".join(f"{each['method']} at {each['steps']}" for each in answers)
    raise ValueError(
        f"search {search!r} has no answer by {method!r} at {steps} steps, but by "
        f"{known or 'none'}"
    )
