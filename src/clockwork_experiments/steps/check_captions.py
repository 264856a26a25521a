"""Check a folder of captions and images of your own before a run reads it."""

from __future__ import annotations

import logging
from argparse import Namespace
from pathlib import Path

from clockwork_experiments.data import captions
from clockwork_experiments.run import new_parser, run

log = logging.getLogger(__name__)


def main(args: Namespace) -> None:
    """Read every line and open every image; say how many there are."""
    lines, images = captions.check(args.folder, args.count, opened=True)
    log.info("%s: %d captions, %d images", args.folder, lines, images)


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument(
        "folder", type=Path, help="holds prompts.txt, and images/ if there are any"
    )
    parser.add_argument(
        "--count", type=int, default=1, help="captions that there must be at least"
    )
    run(parser, main)
