"""Copy generated tables into Markdown files, between the comments that name them.

A place looks like ``<!-- table: docs/reference/mini/quality/teacher.md -->`` and ends
at ``<!-- end of table -->``; so no number in the README or on a model card is typed.
"""

from __future__ import annotations

import re
from argparse import Namespace
from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.run import new_parser, run

PLACE = re.compile(
    r"(<!-- table: (?P<path>\S+) -->\n).*?(<!-- end of table -->)", re.DOTALL
)


def embed(text: str, root: Path) -> str:
    """Return a text with every place filled from its file below ``root``.

    Raises:
        ValueError: If a file does not exist.
    """

    def fill(match: re.Match[str]) -> str:
        path = storage.existing(root / match["path"])
        return f"{match[1]}\n{path.read_text(encoding='utf-8')}\n{match[3]}"

    return PLACE.sub(fill, text)


def main(args: Namespace) -> None:
    """Fill the places of each file."""
    for path in args.files:
        text = storage.existing(path).read_text(encoding="utf-8")
        storage.write_text(path, embed(text, Path.cwd()))


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument(
        "files", nargs="+", type=Path, help="Markdown files to fill in place"
    )
    run(parser, main)
