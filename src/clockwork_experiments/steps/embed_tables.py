"""Put results into Markdown files, between the comments that name them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.report import places
from clockwork_experiments.run import run


def embed_tables(files: Sequence[Path], /) -> None:
    """Fill the places of each file (`clockwork_experiments.report.places`).

    Args:
        files: Markdown files to fill in place.
    """
    root = Path.cwd()
    for path in files:
        text = storage.existing(path).read_text(encoding="utf-8")
        folder = Path(os.path.abspath(path)).parent
        storage.write_text(path, places.embed(text, root, folder))


if __name__ == "__main__":
    run(embed_tables)
