"""Make the pictures that a repository carries lighter."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.run import run

COLOURS = 256


def compact_pictures(files: Sequence[Path], /) -> None:
    """Store each picture with a palette of its own: half of the bytes.

    Args:
        files: PNG files to replace, if that makes them smaller.
    """
    from PIL import Image

    from clockwork_experiments.data import pictures

    for path in files:
        small = io.BytesIO()
        whole = pictures.read(path)
        # Once for the palette, once more to dither with it: without, skies have bands.
        palette = whole.quantize(COLOURS)
        dithered = whole.quantize(
            COLOURS, palette=palette, dither=Image.Dither.FLOYDSTEINBERG
        )
        dithered.save(small, "PNG", optimize=True)
        if small.tell() < path.stat().st_size:
            with storage.atomic_path(path) as partial:
                partial.write_bytes(small.getvalue())


if __name__ == "__main__":
    run(compact_pictures)
