"""Know random weights from real ones, all the way to the tables.

A folder of random weights says so in its card, whatever lies in it takes over the mark:
images sampled with it, features extracted by it, scores computed from either. A table
shows words where a number would stand. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from clockwork_experiments.base import storage

CARD = "card.json"
"""File in a folder of random weights that says what they are."""

KEY = "random_weights"
"""The mark: true in a card and in scores, ``"true"`` in a tensor file's metadata."""

SHOWN = "random weights"
"""What stands in a table instead of a number."""


def is_random(path: Path) -> bool:
    """Tell whether a folder or file of weights is random, or was made with such.

    Args:
        path: A model's folder, a weight file in such a folder, or a file of tensors
            or of JSON that a step wrote.

    Raises:
        ValueError: If a file is damaged, naming it.
    """
    folder = path if path.is_dir() else path.parent
    card = folder / CARD
    if card.is_file() and marks(storage.read_json(card)):
        return True
    if path.suffix == ".json" and path.is_file():
        return marks(storage.read_json(path))
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    try:
        with safe_open(str(path), framework="np") as file:
            return bool((file.metadata() or {}).get(KEY) == "true")
    except SafetensorError as error:
        raise ValueError(f"{path} is corrupt or truncated ({error})") from error


def notes(paths: Iterable[Path | None]) -> dict[str, str]:
    """Return the metadata of what is made with some weights or files: marked, or none.

    Args:
        paths: What it is made with; None for what is not there.
    """
    found = any(is_random(path) for path in paths if path is not None)
    return {KEY: "true"} if found else {}


def mark(paths: Iterable[Path | None]) -> dict[str, bool]:
    """Return the same as `notes`, for JSON."""
    return {KEY: True} if notes(paths) else {}


def marks(data: Mapping[str, Any]) -> bool:
    """Tell whether a card or scores are marked."""
    return data.get(KEY) is True
