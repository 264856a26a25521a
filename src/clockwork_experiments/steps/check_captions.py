"""Check a folder of captions and images of your own before a run reads it."""

from __future__ import annotations

import logging
from pathlib import Path

from clockwork_experiments.data import captions
from clockwork_experiments.run import run

log = logging.getLogger(__name__)


def check_captions(folder: Path, /, count: int = 1) -> None:
    """Read every line and open every image; say how many there are.

    Args:
        folder: Holds prompts.txt, and images/ if there are any.
        count: Captions that there must be at least.
    """
    lines, images = captions.check(folder, count, opened=True)
    log.info("%s: %d captions, %d images", folder, lines, images)


if __name__ == "__main__":
    run(check_captions)
