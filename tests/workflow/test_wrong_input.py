"""What a step is given and cannot use: one line that names it, and no output."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from checkout import ROOT, environment
from diffusers import UNet2DConditionModel

from clockwork_diffusion import adaptors
from clockwork_experiments import run as runner
from clockwork_experiments.base import storage
from clockwork_experiments.base.failures import Kind
from clockwork_experiments.steps import (
    extract_features,
    prepare_prompts,
    sample_images,
    sample_trajectories,
    score_images,
    train_adaptor,
)
from clockwork_experiments.train import training

MODEL = ROOT / "resources" / "mini" / "stable-diffusion"
CLIP = ROOT / "resources" / "mini" / "clip"
FRECHET = ROOT / "resources" / "mini" / "features"
SAMPLER = {"scheduler": "dpmpp", "steps": 2, "guidance": 4.0, "clock": 2}
RUN = {"sampler": SAMPLER, "seed": 0, "batch_size": 2}
TRAJECTORY = {
    "sampler": {**SAMPLER, "clock": 1},
    "cut": "stage1",
    "seed": 1,
    "batch_size": 2,
}
ADAPTOR = {
    "kind": "resnet",
    "cut": "stage1",
    "clock": 2,
    "optimisation": {"steps": 2, "batch_size": 2, "lr": 0.001},
}


def flip(path: Path) -> None:
    """Invert 16 bytes in the middle of a file."""
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 16] = bytes(255 - b for b in data[middle : middle + 16])
    path.write_bytes(data)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Return a folder with good inputs of every kind."""
    storage.write_json(tmp_path / "prompts.json", ["a red ring", "a blue star"])
    shutil.copytree(MODEL, tmp_path / "model")
    sizes = UNet2DConditionModel.load_config(MODEL / "unet")
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(sizes)
    model = storage.sha256_folder(MODEL)
    adaptor = adaptors.build_adaptor(
        "resnet",
        unet,
        "stage1",
        text_channels=64,
        made_for={"model": model, "scheduler": "dpmpp", "steps": 2, "cut": "stage1"},
    )
    adaptor.save_pretrained(tmp_path / "adaptor")
    storage.write_checksums(tmp_path / "adaptor")
    storage.write_tensors(
        tmp_path / "trajectories.safetensors",
        {
            "r_in": torch.randn(2, 2, 2, *feature_shape(unet, 0)),
            "r_out": torch.randn(2, 2, 2, *feature_shape(unet, 1)),
            "pooled": torch.zeros(2, 2, 64),
            "t_emb": torch.zeros(2, unet.time_embedding.linear_2.out_features),
            "log_snr": torch.tensor([-4.0, 2.0]),
        },
        {"teacher": model, "spec": json.dumps(TRAJECTORY)},
    )
    storage.write_tensors(
        tmp_path / "images.safetensors",
        {"images": torch.zeros(2, 3, 64, 64, dtype=torch.uint8)},
    )
    return tmp_path


def feature_shape(unet: UNet2DConditionModel, level: int) -> tuple[int, int, int]:
    half = unet.config.sample_size // 2
    return unet.config.block_out_channels[level], half, half


def arguments(step, folder: Path, **changes: object) -> dict[str, Any]:
    """Return good arguments of a step, with some changed."""
    shard = {"shard": 0, "shards": 1, "state": folder / "state"}
    paths = {"model": folder / "model", "clip": CLIP, "output": folder / "out" / "x"}
    prompts = {"prompts": folder / "prompts.json"}
    given = {
        prepare_prompts: {
            "spec": json.dumps({"source": "scenes", "count": 2}),
            "output": paths["output"],
        },
        sample_images: {
            "spec": json.dumps(RUN),
            "adaptor": folder / "adaptor",
            **paths,
            **prompts,
            **shard,
        },
        sample_trajectories: {
            "spec": json.dumps(TRAJECTORY),
            **paths,
            **prompts,
            **shard,
        },
        train_adaptor: {
            "spec": json.dumps(ADAPTOR),
            "model": folder / "model",
            "train": [folder / "trajectories.safetensors"],
            "heldout": [folder / "trajectories.safetensors"],
            "state": folder / "state" / "adaptor.pt",
            "output": folder / "out" / "adaptor",
            "error": folder / "out" / "error.json",
            "curve": folder / "out" / "curve.csv",
            **prompts,
        },
        extract_features: {
            "images": [folder / "images.safetensors"],
            "clip": CLIP,
            "frechet": FRECHET,
            "frechet_kind": "mini",
            "size": 0,
            "output": [paths["output"]],
            **prompts,
            "shard": 0,
            "shards": 1,
        },
    }[step]
    return {**given, **changes}


def words(arguments: dict[str, Any]) -> list[str]:
    """Return the command line of a step."""
    said = []
    for name, value in arguments.items():
        values = value if isinstance(value, list) else [value]
        if value is not None:
            said += [f"--{name.replace('_', '-')}", *map(str, values)]
    return said


def run(step, arguments: dict[str, Any]) -> None:
    """Run a step by its command line, in this process."""
    parser, call = runner.options_of(vars(step)[step.__name__.rpartition(".")[2]])
    call(parser.parse_args(words(arguments)))


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def refuse(step, folder: Path, *expected: str, **changes: object) -> None:
    """Run a step that must fail with a message that holds all of ``expected``."""
    with pytest.raises(ValueError) as caught:
        run(step, arguments(step, folder, **changes))
    for part in expected:
        assert part in str(caught.value)
    assert not files(folder / "out")
    assert not list(folder.rglob("*.partial"))


# --- in this process -----------------------------------------------------------------


def test_good_input_is_accepted(folder):
    """Otherwise the tests below would show nothing."""
    for step in (sample_images, train_adaptor, extract_features):
        run(step, arguments(step, folder))
        assert files(folder / "out")
        shutil.rmtree(folder / "out")


@pytest.mark.parametrize("step", [sample_images, sample_trajectories, extract_features])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "holds no prompt"),
        ("[1, 2]", "is not a list of prompts"),
        ("", "is not valid JSON"),
        ("a red ring", "is not valid JSON"),
    ],
)
def test_prompts(folder, step, text, message):
    (folder / "prompts.json").write_text(text)
    refuse(step, folder, str(folder / "prompts.json"), message)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"sampler": {**SAMPLER, "steps": 0}}, "step count 0 is less than 1"),
        ({"sampler": {**SAMPLER, "clock": 0}}, "clock 0 is less than 1"),
        (
            {"sampler": {**SAMPLER, "scheduler": "x"}},
            "'x' is not one of dpmpp, dpm, pndm, ddim, heun",
        ),
        ({"cut": "stage9"}, "cut 'stage9' is not one of stage1, stage2"),
        ({"cut": "stage2"}, "trained for cut 'stage1', and asked for cut 'stage2'"),
        ({"sampler": {**SAMPLER, "steps": 4}}, "trained for steps 2, and asked for"),
        (
            {"sampler": {**SAMPLER, "scheduler": "ddim"}},
            "trained for scheduler 'dpmpp', and asked for scheduler 'ddim'",
        ),
        ({"sead": 0}, "unknown key 'sead' in spec; known are sampler, seed"),
        ({"seed": "0"}, "spec.seed must be of type int, not '0'"),
    ],
)
def test_settings_of_a_run(folder, change, expected):
    refuse(sample_images, folder, expected, spec=json.dumps({**RUN, **change}))


def test_adaptor_of_another_model(folder):
    shutil.copytree(folder / "model", folder / "other")
    unet = folder / "other" / "unet"
    changed = UNet2DConditionModel.from_pretrained(unet)
    torch.nn.init.zeros_(changed.conv_in.bias)
    changed.half().save_pretrained(unet)
    storage.write_checksums(folder / "other")
    refuse(sample_images, folder, "was trained for model", model=folder / "other")


def test_clock_without_an_adaptor(folder):
    refuse(sample_images, folder, "clock 2 needs an adaptor", adaptor=None)


def test_shard_that_does_not_exist(folder):
    refuse(sample_images, folder, "shard 2 of 2 of 2 rows", shard=2, shards=2)


@pytest.mark.parametrize("step", [sample_images, sample_trajectories])
def test_missing_model(folder, step):
    shutil.rmtree(folder / "model")
    refuse(step, folder, str(folder / "model" / "model_index.json"), "does not exist")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink])
def test_damaged_weights_of_the_model(folder, part, damage):
    (path,) = (folder / "model" / part).glob("*.safetensors")
    damage(path)
    refuse(sample_images, folder, str(path))


def test_model_of_another_topology(folder):
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(8,),
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        cross_attention_dim=64,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    unet.save_pretrained(folder / "model" / "unet")
    storage.write_checksums(folder / "model")
    expected = "cut 'stage1' needs a UNet of at least 2 levels, and this one has 1"
    refuse(sample_trajectories, folder, expected)


@pytest.mark.parametrize("damage", [flip, truncate])
def test_damaged_adaptor(folder, damage):
    path = folder / "adaptor" / "diffusion_pytorch_model.safetensors"
    damage(path)
    refuse(sample_images, folder, str(path), "corrupt or truncated")


def test_adaptor_of_another_kind(folder):
    config = folder / "adaptor" / "config.json"
    config.write_text(config.read_text().replace("ResNetAdaptor", "MagicAdaptor"))
    refuse(sample_images, folder, "'MagicAdaptor'", "IdentityAdaptor, ResNetAdaptor")


@pytest.mark.parametrize("damage", [flip, truncate])
def test_damaged_trajectories(folder, damage):
    path = folder / "trajectories.safetensors"
    damage(path)
    refuse(train_adaptor, folder, str(path), "corrupt or truncated")


def test_trajectories_of_another_teacher(folder):
    path = folder / "trajectories.safetensors"
    tensors, _ = storage.read_tensors(path)
    storage.write_tensors(path, tensors, {"teacher": "0" * 64})
    refuse(train_adaptor, folder, str(path), "another teacher")


def test_state_of_other_data_is_not_continued(folder):
    args = arguments(train_adaptor, folder)
    run(train_adaptor, args)
    state = folder / "state" / "adaptor.pt"
    assert not state.exists()
    training.fit(
        torch.nn.Linear(1, 1),
        lambda step: torch.zeros((), requires_grad=True),
        training.Optimisation(**ADAPTOR["optimisation"]),
        state,
        name="x",
        work="other",
    )
    shutil.rmtree(folder / "out")
    refuse(train_adaptor, folder, str(state), "delete it")


@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink])
def test_damaged_images(folder, damage):
    path = folder / "images.safetensors"
    damage(path)
    refuse(extract_features, folder, str(path))


def test_features_of_too_few_images(folder):
    features = folder / "sd" / "000.safetensors"
    tensors = {
        name: torch.randn(1, 8) for name in ("frechet", "clip_image", "clip_text")
    }
    notes = {"encoders": "{}", "captions": "{}", "images": '{"sd": {}}'}
    storage.write_tensors(features, tensors, notes)
    args = {
        "spec": json.dumps({"sd": {"seed": 0}}),
        "features": [features],
        "reference": [features],
        "captions": [features],
        "images": [folder / "images.safetensors"],
        "output": [folder / "out" / "sd.json"],
    }
    with pytest.raises(ValueError, match="needs 3 images or more, not 1"):
        run(score_images, args)
    assert not files(folder / "out")


# --- as processes --------------------------------------------------------------------


def fail(step, folder: Path, kind: Kind = Kind.PERMANENT, **changes: object) -> str:
    """Run a step as the workflow does, and return the line that it ends with."""
    given = words(arguments(step, folder, **changes))
    command = [sys.executable, "-m", step.__name__, *given]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(ROOT), capture_output=True, text=True
    )
    assert done.returncode == kind, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    return last


def test_process_names_an_unknown_key(folder):
    spec = json.dumps({"source": "scenes", "count": 2, "spllit": "test"})
    line = fail(prepare_prompts, folder, spec=spec)
    assert line == (
        "error: unknown key 'spllit' in spec; "
        "known are source, count, split, offset, path, size, seeds, redrawn"
    )
    assert not files(folder / "out")


def test_process_names_a_corrupt_weight_file(folder):
    path = folder / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    flip(path)
    assert str(path) in fail(sample_images, folder)
    assert not files(folder / "out")


def test_process_names_a_corrupt_shard(folder):
    path = folder / "trajectories.safetensors"
    flip(path)
    assert str(path) in fail(train_adaptor, folder)
    assert not files(folder / "out")


# --- a full disk ---------------------------------------------------------------------


SMALL_DISK = 64
"""KiB of the file system that `small_disk` mounts."""


NOISE = torch.randn(100_000)


def save_safetensors(path: Path) -> None:
    storage.write_tensors(path, {"x": NOISE})


def save_json(path: Path) -> None:
    storage.write_json(path, NOISE.tolist())


def save_model(path: Path) -> None:
    with storage.atomic_path(path) as partial:
        adaptors.ResNetAdaptor(8, 8, 8, 8, width=32).save_pretrained(partial)


def save_training_state(path: Path) -> None:
    module = torch.nn.Linear(300, 300)
    training.fit(
        module,
        lambda step: module.weight.square().sum(),
        training.Optimisation(steps=1, batch_size=1, lr=0.1),
        path,
        name="x",
    )


@pytest.mark.parametrize(
    "save", [save_safetensors, save_json, save_model, save_training_state]
)
def test_full_disk_is_named_whatever_writes(small_disk, save):
    path = small_disk / "file"
    with pytest.raises(OSError) as caught:
        save(path)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(path)
    assert not files(small_disk)


def test_process_says_that_the_disk_is_full(folder, small_disk):
    output = small_disk / "prompts.json"
    spec = json.dumps({"source": "scenes", "count": 4000})
    line = fail(prepare_prompts, folder, Kind.INTERRUPTED, spec=spec, output=output)
    assert line == f"error: No space left on device while writing: {output}"
    assert not files(small_disk)


def test_log_on_the_full_disk_hides_nothing(folder, small_disk):
    (small_disk / "ballast").write_bytes(bytes(60 * 1024))
    log = small_disk / "prepare_prompts.log"
    spec = json.dumps({"source": "scenes", "count": 4000})
    output = small_disk / "prompts.json"
    given = {"spec": spec, "output": output, "log": log}
    line = fail(prepare_prompts, folder, Kind.INTERRUPTED, **given)
    assert line == f"error: No space left on device while writing: {output}"
