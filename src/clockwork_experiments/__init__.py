"""The reproduction of two papers with `clockwork_diffusion`: what the workflow runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clockwork_experiments.base import _torchvision

if TYPE_CHECKING:
    from pathlib import Path

    from pandas import DataFrame

_torchvision.install()


def results(
    path: str | Path = "results", scale: str = "mini", per: str = "run"
) -> DataFrame:
    """Return the scores of a scale, one row per run or image.

    Columns are named by metric and unit, such as ``psnr_to_teacher, dB``, and values
    are in that unit. Of a run there are the ends of the 95 % interval and n, too, such
    as ``clip (low)``, and what a reader must know, ``note``, if there is anything. The
    tidy tables behind it are in ``<path>/<scale>/data``.

    Args:
        path: The folder of results.
        scale: The scale.
        per: ``run`` or ``image``.

    Raises:
        ValueError: If ``per`` is neither.
        FileNotFoundError: If the scores have not been collected.
    """
    from clockwork_experiments.report import data

    return data.results(path, scale, per)
