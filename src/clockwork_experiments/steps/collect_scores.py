"""Collect all scores of a scale in two tidy tables: of runs, and of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clockwork_experiments.report import data
from clockwork_experiments.run import run


def collect_scores(
    scores: list[Path], output: list[Path], values: Sequence[Path] = ()
) -> None:
    """Collect all scores of a scale in two tidy tables: of runs, and of images.

    Args:
        scores: Score files, JSON.
        output: ``runs`` and ``images``; each is written as CSV and Parquet.
        values: The values of images beside them, safetensors.
    """
    runs, images = output
    data.write(data.per_run(scores), runs)
    data.write(data.per_image(values), images)


if __name__ == "__main__":
    run(collect_scores)
