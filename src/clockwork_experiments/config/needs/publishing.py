"""What is shipped, and could be uploaded to a hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clockwork_experiments.config.needs import files
from clockwork_experiments.config.needs.entries import Config, entries

SHIPPED = Path("resources/mini")
PREFIX = "clockwork-mini"


def published(config: Config, models: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the folders that are shipped, by the name of their repository.

    Args:
        config: The configuration.
        models: What ``workflow/mini_models.yaml`` says.
    """
    found = {}
    for card in sorted(SHIPPED.rglob("README.md")):
        inner = card.parent.relative_to(SHIPPED)
        if len(inner.parts) == 1 or inner.parts[0] == "adaptors":
            name = f"{PREFIX}-{'-'.join(inner.parts)}"
            spec = {
                "name": name,
                "owner": config.get("hub_owner", "clockwork-diffusion"),
            }
            base = _base(config, models, inner)
            if base:
                spec["base"] = f"{PREFIX}-{base}"
            found[name] = {"folder": str(card.parent), "spec": spec}
    return found


def _base(config: Config, models: Mapping[str, Any], inner: Path) -> str:
    """Return the shipped model that another one was made from; "" if none."""
    if inner.parts[0] == "adaptors":
        return inner.name
    backbones = entries(config, "mini", "backbones")
    if inner.name in backbones:
        teacher = backbones[inner.name]["teacher"]
        known = entries(config, "mini", "models")
        return Path(known[teacher]["path"]).name if teacher in known else str(teacher)
    return str(models.get(inner.name, {}).get("reads", {}).get("teacher", ""))


def hub_files(folder: str) -> list[str]:
    """Return the files of a model, each watched."""
    return files.files_within(Path(folder))
