"""Random weights load as the published ones do, and no score of theirs is shown."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import CLIPTokenizer

from clockwork_experiments.base import storage
from clockwork_experiments.generate import translators
from clockwork_experiments.models import encoders, loading, perceptual
from clockwork_experiments.random import marks, models
from clockwork_experiments.report.tables import results as tables
from clockwork_experiments.report.tables.table import Results, Value
from clockwork_experiments.score import structure

UNET = {
    "block_out_channels": (32, 32, 64, 64),
    "cross_attention_dim": 32,
    "attention_head_dim": 2,
    "sample_size": 8,
}
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "projection_dim": 32,
}
VAE = {"block_out_channels": (32, 32, 32, 32), "sample_size": 64}
PIPELINE = {"unet": UNET, "vae": VAE, "text_encoder": TEXT}
CLIP = {
    "embed_dim": 8,
    "vision_cfg": {"layers": 1, "width": 16, "head_width": 8},
    "text_cfg": {"layers": 1, "width": 8, "heads": 1},
}


def make(folder: Path, **spec: object) -> Path:
    folder.mkdir(parents=True)
    models.make_random_model(models.RandomModelSpec(**spec), folder)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Return a folder with a tiny model of each kind that a text-to-image run needs."""
    folder = tmp_path_factory.mktemp("random")
    make(folder / "sd", kind="pipeline", changes=PIPELINE)
    make(folder / "clip", kind="clip", changes={"clip": CLIP})
    make(folder / "inception", kind="inception", file="weights.pth")
    return folder


# --- formats ----------------------------------------------------------------------


def test_the_tokenizer_has_clips_format_and_size(tmp_path):
    models.write_tokenizer(tmp_path)
    vocabulary = json.loads((tmp_path / "vocab.json").read_text("utf-8"))
    assert len(vocabulary) == len(set(vocabulary.values())) == 49408
    lines = (tmp_path / "merges.txt").read_text("utf-8").splitlines()
    assert len(lines) == 48895 and lines[0].startswith("#version")
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert tokenizer.model_max_length == 77
    said = "a red ring on the sea, 3 birds"
    ids = tokenizer(said).input_ids
    assert ids[0] == 49406 and ids[-1] == 49407
    assert tokenizer.decode(ids[1:-1]).replace(" ", "") == said.replace(" ", "")
    # Merges are used: fewer tokens than letters.
    assert len(ids) - 2 < len(said.replace(" ", ""))


def test_a_pipeline_loads_in_half_precision_files_and_knows_what_it_is(made):
    pipe = loading.load_pipeline(made / "sd")
    assert pipe.tokenizer.model_max_length == 77 and len(pipe.tokenizer) == 49408
    assert pipe.unet.config.block_out_channels == [32, 32, 64, 64]
    card = storage.read_json(made / "sd" / marks.CARD)
    assert card["random_weights"] is True
    parts = (pipe.unet, pipe.vae, pipe.text_encoder)
    assert card["parameters"] == sum(p.numel() for m in parts for p in m.parameters())
    assert card["bytes"] < 2.1 * card["parameters"]


def test_translators_load(made, tmp_path):
    edit = make(tmp_path / "edit", kind="instruct_pix2pix", changes=PIPELINE)
    translators.load_translator("edit", edit, None, "cpu")
    control = make(tmp_path / "control", kind="controlnet", changes={"unet": UNET})
    translators.load_translator("control", control, made / "sd", "cpu")
    changes = {
        **PIPELINE,
        "unet": {**UNET, "attention_head_dim": (1, 1, 2, 2)},
        "structure_encoder": {"block_out_channels": (32, 32, 32, 32)},
    }
    restorer = make(tmp_path / "restorer", kind="stablesr", changes=changes)
    translators.load_translator("restoration", restorer, None, "cpu")


def test_networks_that_score_load(made, tmp_path):
    images = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8)
    clip = encoders.load_clip(made / "clip")
    assert encoders.clip_image_features(clip, images).shape == (2, 8)
    assert encoders.clip_text_features(clip, ["a red ring"]).shape == (1, 8)
    path = made / "inception" / "weights.pth"
    features = encoders.frechet_features(
        encoders.load_frechet("inception", path), images
    )
    assert features.shape == (2, 2048) and bool(features.isfinite().all())
    assert not features[0].equal(features[1])
    vit = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vit |= {"intermediate_size": 16}
    folder = make(tmp_path / "vit", kind="structure", changes={"vit": vit})
    assert structure.load_structure(folder).size == 224
    folder = make(tmp_path / "alex", kind="alexnet", file="alex.pth")
    perceptual.load_perceptual("alex", folder / "alex.pth")


def test_one_seed_gives_one_model_and_another_another(tmp_path):
    sums = [
        make(tmp_path / str(place), kind="alexnet", file="a.pth", seed=seed)
        / "SHA256SUMS"
        for place, seed in enumerate((0, 0, 1))
    ]
    first, again, other = (path.read_text() for path in sums)
    assert first == again != other


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"kind": "vgg"}, "kind 'vgg' is not one of pipeline, "),
        ({"kind": "inception"}, "file '': kinds inception, alexnet name a file"),
        ({"kind": "clip", "file": "x.pth"}, "file 'x.pth': kinds inception, alexnet"),
    ],
)
def test_wrong_specs_are_refused(spec, said):
    with pytest.raises(ValueError, match=said):
        models.RandomModelSpec(**spec)


# --- what is made with them -------------------------------------------------------


def step(name: str, *arguments: object) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            f"clockwork_experiments.steps.{name}",
            *map(str, arguments),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def sample(made: Path, folder: Path, model: Path) -> Path:
    prompts = folder / "prompts.json"
    storage.write_json(prompts, ["a red ring", "a blue star", "a green disc"])
    sampler = {"scheduler": "dpmpp", "steps": 1, "guidance": 1.0}
    spec = {"sampler": sampler, "seed": 0, "batch_size": 3}
    images = folder / "images" / "sd" / "000.safetensors"
    step(
        *("sample_images", "--spec", json.dumps(spec), "--model", model),
        *("--prompts", prompts, "--shard", 0, "--shards", 1),
        *("--state", folder / "state", "--output", images),
    )
    return images


def extract(images: Path, clip: Path, frechet: tuple[str, Path], folder: Path) -> Path:
    features = folder / "sd" / "000.safetensors"
    step(
        *("extract_features", "--images", images, "--clip", clip),
        *("--frechet-kind", frechet[0], "--frechet", frechet[1]),
        *("--prompts", images.parents[2] / "prompts.json", "--output", features),
    )
    return features


def test_scores_of_random_weights_are_marked_and_not_shown(made, root, tmp_path):
    """From sampling to the table, by the steps that the rules call."""
    images = sample(made, tmp_path, made / "sd")
    assert marks.is_random(images)
    mini = root / "resources" / "mini"
    # Real networks, images of a random model: marked as well.
    by_mini = ("mini", mini / "features")
    features = extract(images, mini / "clip", by_mini, tmp_path / "features")
    assert marks.is_random(features)
    score = tmp_path / "scores" / "sd.json"
    step(
        *("score_images", "--spec", json.dumps({"sd": {"seed": 0}})),
        *("--features", features, "--images", images, "--reference", features),
        *("--captions", features, "--output", score),
    )
    assert storage.read_json(score)["random_weights"] is True
    spec = {
        "title": "T",
        "caption": "C.",
        "columns": ["fid_published", "frechet", "clip", "n"],
        "rows": [{"label": "SD", "run": "sd", "published": {"fid": 24.64}}],
    }
    table = tmp_path / "table.md"
    step(
        *("set_table", "--spec", json.dumps(spec), "--runs", "{}"),
        *("--inputs", f"scores={score}", "--output", table),
    )
    row = table.read_text("utf-8").splitlines()[4]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["SD", "24.64", "random weights", "random weights", "3"]
    shown = pd.read_csv(table.with_suffix(".csv"), dtype=str).iloc[0]
    assert shown["frechet"] == shown["clip"] == "random weights"
    assert "frechet_low" not in shown
    assert "random weights" in table.with_suffix(".tex").read_text("utf-8")


def test_real_images_seen_by_random_networks_are_marked_and_by_real_ones_not(
    made, root, tmp_path
):
    mini = root / "resources" / "mini"
    images = sample(made, tmp_path, mini / "stable-diffusion")
    assert not marks.is_random(images)
    inception = ("inception", made / "inception" / "weights.pth")
    random = extract(images, mini / "clip", inception, tmp_path / "random")
    assert marks.is_random(random)
    real = extract(
        images, mini / "clip", ("mini", mini / "features"), tmp_path / "real"
    )
    assert not marks.is_random(real)


def test_unmarked_scores_are_shown():
    row = tables.Row("SD", run="sd")
    score = {"value": 5.0, "low": 4.0, "high": 6.0, "n": 3}
    column = tables.COLUMNS["frechet"]
    for scored, wanted in (
        ({"scores": {"frechet": score}}, Value(5.0, 4.0, 6.0)),
        ({"random_weights": True, "scores": {"frechet": score}}, "random weights"),
    ):
        results = Results(runs={"sd": {}}, scores={"sd": scored})
        assert tables.cell(column, row, results) == wanted


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"x\.safetensors is corrupt or truncated"):
        marks.is_random(path)
