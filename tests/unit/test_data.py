"""Scores as tidy tables, and as pandas has them."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

import clockwork_experiments
from clockwork_experiments.base import storage
from clockwork_experiments.random import marks
from clockwork_experiments.report import data
from clockwork_experiments.score.names import SCORES
from clockwork_experiments.steps import collect_scores


def score(value: float) -> dict:
    return {"value": value, "low": value - 1, "high": value + 1, "n": 4}


@pytest.fixture
def collected(tmp_path):
    """Collect a sampled run of two prompts and two seeds, an edit, a translation."""
    scores = tmp_path / "scores"
    files = {
        "sd.json": {
            "run": "sd",
            "seed": 7,
            "scores": {"clip": score(0.5), "psnr_to_teacher": score(40.0)},
        },
        "edits/real/steps50.json": {"edits": {"pnp": {"structure": score(0.1)}}},
        "translations/ip2p.json": {
            "translation": "ip2p",
            "scores": {"lpips": score(0.3)},
            marks.KEY: True,
        },
    }
    values = {
        "sd": {
            "prompt": torch.tensor([0, 1, 0, 1]),
            "seed": torch.tensor([0, 0, 1, 1]),
            "clip": torch.tensor([0.1, 0.2, 0.3, 0.4]),
            "psnr_to_teacher": torch.tensor([10.0, 20.0, 30.0, 40.0]),
        },
        "edits/real/steps50": {
            "source": torch.tensor([0, 0]),
            "pnp/structure": torch.tensor([0.5, 0.25]),
        },
        "translations/ip2p": {
            "lpips": torch.tensor([0.5]),
            "frechet": torch.tensor([3.0]),
            "frechet_without": torch.tensor([1.0, 2.0]),
        },
    }
    for name, found in files.items():
        storage.write_json(scores / name, found)
    for name, tensors in values.items():
        storage.write_tensors(scores / f"{name}.safetensors", tensors)
    folder = tmp_path / "results" / "mini" / "data"
    collect_scores.collect_scores(
        [scores / name for name in files],
        [folder / "runs.csv", folder / "images.csv"],
        [scores / f"{name}.safetensors" for name in values],
    )
    return folder


def test_tables_are_tidy_and_the_same_as_csv_and_parquet(collected):
    for name in ("runs", "images"):
        csv = pd.read_csv(collected / f"{name}.csv", keep_default_na=False)
        parquet = pd.read_parquet(collected / f"{name}.parquet")
        assert list(csv)[:6] == ["run", "prompt", "seed", "metric", "unit", "value"]
        assert list(csv) == list(parquet) and len(csv) == len(parquet)
        assert np.allclose(csv["value"], parquet["value"])
    images = pd.read_parquet(collected / "images.parquet")
    assert len(images) == 8 + 2 + 1
    sd = images[(images["run"] == "sd") & (images["metric"] == "psnr_to_teacher")]
    assert sd[["prompt", "seed", "value"]].values.tolist() == [
        *([0, 0, 10], [1, 0, 20], [0, 1, 30], [1, 1, 40])
    ]
    assert set(sd["unit"]) == {"dB"}
    edited = images[images["run"] == "real/pnp/steps50"]
    assert edited["value"].tolist() == [0.5, 0.25]
    assert set(images["metric"]) == {"clip", "psnr_to_teacher", "structure", "lpips"}


def test_results_name_their_units_and_intervals(collected):
    path = collected.parents[1]
    runs = clockwork_experiments.results(path)
    assert runs["run"].tolist() == ["sd", "real/pnp/steps50", "ip2p"]
    first = runs.iloc[0]
    assert first["psnr_to_teacher, dB"] == 40 and first["clip"] == 0.5
    assert first["clip (low)"] == -0.5 and first["clip (n)"] == 4
    # Random weights say nothing of any model, and are marked.
    assert runs["note"].isna().tolist() == [True, True, False]
    images = clockwork_experiments.results(str(path), per="image")
    assert len(images) == 4 + 2 + 1
    assert images.loc[3, ["prompt", "seed", "clip"]].tolist() == pytest.approx(
        [1, 1, 0.4]
    )


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(ValueError, match="per 'pixel' is not one of run, image"):
        clockwork_experiments.results(tmp_path, per="pixel")
    with pytest.raises(FileNotFoundError, match="/paper/data/runs.csv` collects the"):
        clockwork_experiments.results(tmp_path, "paper")


def test_every_score_has_its_unit():
    for name, known in SCORES.items():
        assert data.unit_of(name) == known.unit
        assert data.unit_of(f"{name}_minus_teacher") == known.unit
    assert data.unit_of("rmse_to_teacher") == "of 255"


def test_the_package_alone_imports_neither_pandas_nor_pyarrow():
    code = (
        "import sys, clockwork_experiments;"
        "sys.exit(bool({'pandas', 'pyarrow'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
