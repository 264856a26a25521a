"""Draw one figure as PDF and PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clockwork_experiments.config.parse import parse
from clockwork_experiments.report import kinds
from clockwork_experiments.run import run


def draw_figure(
    kind: str,
    spec: str,
    output: Path,
    inputs: dict[str, list[Path]] | None = None,
    runs: dict[str, Any] | None = None,
) -> None:
    """Draw one figure as PDF and PNG.

    Args:
        kind: Its kind, or ``my_package.my_module:MyFigure``.
        spec: The kind's settings as JSON.
        output: Path; the suffix is replaced.
        inputs: What it shows, by name.
        runs: What decides the FLOPs of its runs.
    """
    from clockwork_experiments.report.figures import style

    figure = parse(kinds.find(kinds.FIGURES, kind), spec)
    style.set_look()  # of a kind from elsewhere, too
    style.save(figure.make(kinds.Given(inputs or {}, runs or {})), output)


if __name__ == "__main__":
    run(draw_figure)
