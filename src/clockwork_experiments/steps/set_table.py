"""Set one table as CSV, Markdown, LaTeX and HTML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.report import kinds
from clockwork_experiments.run import run


def set_table(
    spec: str,
    output: Path,
    kind: str = "results",
    inputs: dict[str, list[Path]] | None = None,
    runs: dict[str, Any] | None = None,
) -> None:
    """Set one table as CSV, Markdown, LaTeX and HTML.

    Args:
        spec: The kind's settings as JSON.
        output: Path; the suffix is replaced.
        kind: Its kind, or ``my_package.my_module:MyTable``.
        inputs: The results that it shows, by name.
        runs: What decides the FLOPs of its runs.
    """
    chosen = parse(kinds.find(kinds.TABLES, kind), spec)
    table = chosen.make(kinds.Given(inputs or {}, runs or {}))
    # Both papers have a Table 1.
    files = table.files(f"{output.parent.name}-{output.stem}")
    for suffix, text in files.items():
        storage.write_text(output.with_suffix(suffix), text)


if __name__ == "__main__":
    run(set_table)
