"""Write the model card that lies beside each shipped weight file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.train.training import Trained


def write_card(
    folder: Path,
    title: str,
    what: str,
    data: str,
    spec: Any,
    trained: Trained,
    quality: Mapping[str, float | str],
    table: str = "",
) -> None:
    """Write ``README.md`` into a model's folder.

    Args:
        folder: The model's folder.
        title: The model's name.
        what: What the model is and is for, in a sentence or two.
        data: What it was trained on.
        spec: Its configuration, a dataclass; listed as it is.
        trained: The result of training, for the time and the last loss.
        quality: Measured figures by name.
        table: Path of a generated table that `embed_tables` copies into the card.
    """
    parameters = sum(p.numel() for p in trained.module.parameters())
    facts: dict[str, object] = {
        "data": data,
        "parameters": f"{parameters:,}",
        "device": provenance.device_name(),
        "training time": f"{trained.seconds / 60:.1f} min",
        "commit": provenance.commit(),
        "versions": ", ".join(
            f"{k} {v}" for k, v in provenance.versions("torch", "diffusers").items()
        ),
    }
    settings = _flatten(dataclasses.asdict(spec))
    measured = {
        name: f"{value:.4g}" if isinstance(value, float) else value
        for name, value in quality.items()
    }
    text = f"# {title}\n\n{what}\n\nWritten by the training rule; fp16 safetensors.\n"
    for heading, rows in (
        ("Training", facts),
        ("Settings", settings),
        ("Measured", measured),
    ):
        text += f"\n## {heading}\n\n| | |\n|---|---|\n"
        text += "".join(f"| {name} | {value} |\n" for name, value in rows.items())
    if table:
        text += f"\n<!-- table: {table} -->\n<!-- end of table -->\n"
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
