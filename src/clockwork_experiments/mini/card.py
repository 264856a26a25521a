"""Write the model card that lies beside each shipped weight file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.train.training import Trained


@dataclass(frozen=True)
class Card:
    """What a model card says beside the settings.

    Attributes:
        title: The model's name.
        what: What the model is and is for, in a sentence or two.
        data: What it was trained on.
        trained: The result of training, for the time and the last loss.
        quality: Measured figures by name.
        table: Path of a generated table that `embed_tables` copies into the card.
    """

    title: str
    what: str
    data: str
    trained: Trained
    quality: Mapping[str, float | str]
    table: str = ""


def write_card(folder: Path, spec: Any, card: Card) -> None:
    """Write ``README.md`` into a model's folder.

    Args:
        folder: The model's folder.
        spec: Its configuration, a dataclass; listed as it is.
        card: The rest.
    """
    parameters = sum(p.numel() for p in card.trained.module.parameters())
    facts: dict[str, object] = {
        "data": card.data,
        "parameters": f"{parameters:,}",
        "device": provenance.device_name(),
        "training time": f"{card.trained.seconds / 60:.1f} min",
        "commit": provenance.commit(),
        "versions": ", ".join(
            f"{k} {v}" for k, v in provenance.versions("torch", "diffusers").items()
        ),
    }
    settings = _flatten(dataclasses.asdict(spec))
    measured = {
        name: f"{value:.4g}" if isinstance(value, float) else value
        for name, value in card.quality.items()
    }
    text = f"# {card.title}\n\n{card.what}\n\n"
    text += "Written by the training rule; fp16 safetensors.\n"
    for heading, rows in (
        ("Training", facts),
        ("Settings", settings),
        ("Measured", measured),
    ):
        text += f"\n## {heading}\n\n| | |\n|---|---|\n"
        text += "".join(f"| {name} | {value} |\n" for name, value in rows.items())
    if card.table:
        text += f"\n<!-- table: {card.table} -->\n<!-- end of table -->\n"
    storage.write_text(folder / "README.md", text)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{name}."))
        elif isinstance(value, tuple) and any(isinstance(item, dict) for item in value):
            for number, item in enumerate(value, 1):
                flat.update(_flatten(item, f"{prefix}{name}.{number}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat
