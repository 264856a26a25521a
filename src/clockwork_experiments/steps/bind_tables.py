"""Write the LaTeX document that shows all numbered tables of a scale."""

from __future__ import annotations

import os
from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.report import latex
from clockwork_experiments.run import run


def bind_tables(title: str, tables: list[Path], output: Path) -> None:
    """Write the LaTeX document that shows all numbered tables of a scale.

    Args:
        title: Its title.
        tables: The tables' LaTeX, in their order.
        output: LaTeX to write; compile it in its own folder.
    """
    # Windows has other separators, TeX has not.
    seen = [Path(os.path.relpath(path, output.parent)).as_posix() for path in tables]
    storage.write_text(output, latex.write_document(title, seen))


if __name__ == "__main__":
    run(bind_tables)
