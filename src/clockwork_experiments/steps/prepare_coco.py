"""Turn COCO's archives into folders of captions, images and pairs."""

from __future__ import annotations

import os
from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.data import captions, coco, pair_sets, sources
from clockwork_experiments.run import run


def prepare_coco(
    name: str,
    spec: coco.CocoSpec,
    output: Path,
    placed: bool = False,
) -> None:
    """Make the folder unless the user has placed it, check it, write its manifest.

    Args:
        name: The set's name.
        spec: What to make of which archives.
        output: Manifest to write.
        placed: Whether the user has placed the folder, which is checked then.
    """
    folder = Path(spec.path)
    if not placed:
        coco.prepare(spec)
    if spec.of:
        pair_sets.read_list(
            pair_sets.PairSetSpec("control", "folder", path=spec.path, size=1)
        )
        main_file = pair_sets.LIST
    else:
        main_file = os.path.relpath(captions.read(folder).listed, folder)
    manifest = sources.describe(name, folder, [main_file])
    if not placed:
        manifest["made_from"] = spec.of or [spec.images, spec.annotations]
    storage.write_json(output, manifest)


if __name__ == "__main__":
    run(prepare_coco)
