"""Put trained mini models in place of the shipped ones."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from clockwork_experiments.base import storage
from clockwork_experiments.models import overlay
from clockwork_experiments.run import run


def ship_models(models: list[Path], teachers: dict[str, Any], into: Path) -> None:
    """Put trained mini models in place of the shipped ones.

    Of what was made from a teacher, only what differs from it is shipped.

    Args:
        models: Their folders; a teacher comes before what was made from it.
        teachers: Names of the teachers of those that were made from one, by name.
        into: Folder of the shipped models.
    """
    for model in models:
        if model.name in teachers and (model / "model_index.json").is_file():
            base = into / teachers[model.name]
            overlay.pack(model, base, into / model.name)
        else:
            with storage.atomic_path(into / model.name) as partial:
                shutil.copytree(model, partial)


if __name__ == "__main__":
    run(ship_models)
