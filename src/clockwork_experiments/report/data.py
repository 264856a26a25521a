"""Scores as tidy tables: a row per number, of each image and of each run.

Columns are ``run``, ``prompt``, ``seed``, ``metric``, ``unit`` and ``value``; values
are in that unit. Prompts and sampling seeds of images count from 0; of an edited run or
a translation, the prompt is the pair of source and prompt. Of a run, the seed is that
which it was configured with. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clockwork_experiments.base import storage
from clockwork_experiments.random import marks
from clockwork_experiments.score.names import SCORES

FOLDER = "data"
"""Below a scale's results."""

PER = {"run": "runs", "image": "images"}
"""The tables, and their files' names."""

WHOSE = {"run": ["run"], "image": ["run", "prompt", "seed"]}
"""What tells the rows of a wide table apart."""

NO_SCORES = ("source", "prompt", "seed", "frechet", "frechet_without")
"""Tensors beside scores that are no score of an image."""

UNITS = {"rmse_to_teacher": "of 255"}
"""Units of what no table shows."""


def unit_of(metric: str) -> str:
    """Return a metric's unit; nothing if it has none.

    >>> unit_of("psnr_to_teacher"), unit_of("psnr_minus_teacher"), unit_of("clip")
    ('dB', 'dB', '')
    """
    base = metric.removesuffix("_minus_teacher")
    if base in SCORES:
        return SCORES[base].unit
    if base in UNITS:
        return UNITS[base]
    return "dB" if base.startswith("psnr") else ""


def per_run(paths: Iterable[Path]) -> pd.DataFrame:
    """Return each run's scores, with the ends of their 95 % intervals.

    Args:
        paths: Score files of sampled and edited runs, and of translations.
    """
    rows = [
        {
            **{"run": name, "prompt": None, "seed": seed},
            **{"metric": metric, "unit": unit_of(metric)},
            **{key: score[key] for key in ("value", "low", "high", "n")},
            "note": mark,
        }
        for path in paths
        for name, seed, scores, mark in _scored(path)
        for metric, score in scores.items()
    ]
    return pd.DataFrame(rows, columns=[*_TIDY, "low", "high", "n", "note"])


_TIDY = ("run", "prompt", "seed", "metric", "unit", "value")


def _scored(path: Path) -> Iterator[tuple[str, int | None, dict[str, Any], str]]:
    """Yield runs of a score file: name, seed, scores, and what to know of them."""
    read = storage.read_json(path)
    mark = marks.SHOWN if marks.marks(read) else ""
    if "edits" in read:
        for edit, scores in read["edits"].items():
            yield f"{path.parent.name}/{edit}/{path.stem}", None, scores, mark
    else:
        name = read.get("translation") or read["run"]
        yield name, read.get("seed"), read["scores"], mark


def per_image(paths: Iterable[Path]) -> pd.DataFrame:
    """Return each image's scores.

    Args:
        paths: Values beside score files, safetensors; of edited runs in ``edits``.
    """
    frames = [frame for path in paths for frame in _images(path)]
    empty = pd.DataFrame(columns=list(_TIDY))
    return pd.concat(frames, ignore_index=True) if frames else empty


def _images(path: Path) -> Iterator[pd.DataFrame]:
    from safetensors.numpy import load_file

    tensors = load_file(path)
    edited = path.parent.parent.name == "edits"
    for name, values in sorted(tensors.items()):
        if name in NO_SCORES:
            continue
        run, metric = path.stem, name
        if edited:
            edit, _, metric = name.rpartition("/")
            run = f"{path.parent.name}/{edit}/{path.stem}"
        count = len(values)
        yield pd.DataFrame(
            {
                "run": run,
                "prompt": tensors.get("prompt", np.arange(count)),
                "seed": tensors.get("seed", np.zeros(count, dtype=np.int64)),
                "metric": metric,
                "unit": unit_of(metric),
                "value": values.astype(np.float64),
            }
        )


def write(table: pd.DataFrame, path: Path) -> None:
    """Write a table as ``<path>.csv`` and ``<path>.parquet``."""
    storage.write_text(path.with_suffix(".csv"), table.to_csv(index=False))
    with storage.atomic_path(path.with_suffix(".parquet")) as partial:
        table.to_parquet(partial, index=False)


def results(path: str | Path, scale: str, per: str) -> pd.DataFrame:
    """Return scores as `clockwork_experiments.results` says.

    Raises:
        ValueError: If ``per`` is neither run nor image.
        FileNotFoundError: If they have not been collected.
    """
    if per not in PER:
        raise ValueError(f"per {per!r} is not one of {', '.join(PER)}")
    file = Path(path) / scale / FOLDER / f"{PER[per]}.csv"
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} is not there; `snakemake {file.as_posix()}` collects the scores"
        )
    tidy = pd.read_csv(file, keep_default_na=False, na_values=[""], dtype={"run": str})
    shown = WHOSE[per]
    named = tidy["metric"] + tidy["unit"].fillna("").map(lambda u: u and f", {u}")
    values = ["value", "low", "high", "n"] if per == "run" else ["value"]
    wide = tidy.assign(metric=named).pivot(index=shown, columns="metric", values=values)
    pairs: list[Any] = wide.columns.tolist()
    wide.columns = pd.Index(
        [name if what == "value" else f"{name} ({what})" for what, name in pairs]
    )
    marked = ["note"] if per == "run" and tidy["note"].notna().any() else []
    order = tidy.drop_duplicates(shown)[[*shown, *marked]]
    wide = wide[sorted(wide.columns)].reset_index()
    return order.merge(wide, on=shown, how="left", validate="one_to_one")
