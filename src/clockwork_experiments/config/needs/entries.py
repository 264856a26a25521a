"""Entries of the resolved configuration, by scale, section and id."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

Config = Mapping[str, Any]
"""The resolved configuration: scale, then section, then id."""

SMALL = ("mini", "study")
"""Scales of the shipped models: quick sizes, and those of the study."""


class Wildcards(Protocol):
    """A job's wildcards, as Snakemake hands them to functions."""

    def __getattr__(self, name: str) -> str:
        """Return a wildcard's value."""


def entries(config: Config, scale: str, section: str) -> dict[str, Any]:
    """Return a section of a scale, ids to settings; empty if there is none."""
    found: dict[str, Any] = config[scale].get(section, {})
    return found


def entry(config: Config, scale: str, section: str, name: str) -> Any:
    """Return one entry of a section.

    Raises:
        ValueError: If there is none of that id; names those that there are.
    """
    return _one(entries(config, scale, section), f"{scale}: ", name, section)


def editing(config: Config, scale: str, section: str) -> dict[str, Any]:
    """Return a section of a scale's editing, ids to settings."""
    found: dict[str, Any] = entries(config, scale, "editing").get(section, {})
    return found


def editing_entry(config: Config, scale: str, section: str, name: str) -> Any:
    """Return one entry of a section of editing.

    Raises:
        ValueError: If there is none of that id; names those that there are.
    """
    known = editing(config, scale, section)
    return _one(known, f"{scale}: ", name, f"{section} of editing")


def _one(known: Mapping[str, Any], where: str, name: str, of: str) -> Any:
    if name not in known:
        listed = ", ".join(known) or "none"
        raise ValueError(f"{where}{name!r} is not one of the {of} ({listed})")
    return known[name]


def chosen(settings: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """Return those of some keys that settings have."""
    return {key: settings[key] for key in keys if key in settings}


def as_json(value: Any) -> str:
    """Return settings as a step's command line takes them."""
    return json.dumps(value)
