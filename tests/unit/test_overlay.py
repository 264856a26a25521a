"""Pipelines of which only what differs from another is stored."""

import copy
import shutil
import sys
from pathlib import Path

import pytest
import torch

from clockwork_experiments.base import storage
from clockwork_experiments.models import loading, overlay
from clockwork_experiments.steps.ship_models import ship_models

sys.path.insert(0, str(Path(__file__).parents[1]))
from pipelines import sd  # noqa: E402


def changed(pipe, part, name):
    """Return a copy of a pipeline with one tensor of one part changed."""
    network = copy.deepcopy(getattr(pipe, part))
    with torch.no_grad():
        network.get_parameter(name).add_(0.5)
    return type(pipe)(**{**pipe.components, part: network, **UNCHECKED})


def lighter(pipe):
    """Return a copy of a pipeline whose UNet has attention at one level alone."""
    unet = pipe.unet
    down, up = unet.config.down_block_types, unet.config.up_block_types
    fewer = (
        type(unet)
        .from_config(
            unet.config,
            down_block_types=("DownBlock2D", "DownBlock2D", *down[2:]),
            up_block_types=(*up[:-2], "UpBlock2D", "UpBlock2D"),
        )
        .half()
    )
    shared = fewer.state_dict().keys() & unet.state_dict().keys()
    assert len(shared) < len(unet.state_dict())
    fewer.load_state_dict({k: unet.state_dict()[k] for k in shared})
    return type(pipe)(**{**pipe.components, "unet": fewer, **UNCHECKED})


UNCHECKED = {"requires_safety_checker": False}
CHANGES = {
    "student": ("unet", "conv_in.weight"),
    "grandchild": ("text_encoder", "final_layer_norm.bias"),
}

NAMES = ["teacher", *CHANGES, "lighter"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return folders of a teacher, its student, and that one's, as training saves."""
    folder = tmp_path_factory.mktemp("trained")
    pipe = sd()
    for part in (pipe.vae, pipe.text_encoder, pipe.unet):
        part.half()
    pipe.save_pretrained(folder / "teacher")
    for name, change in CHANGES.items():
        pipe = changed(pipe, *change)
        pipe.save_pretrained(folder / name)
        (folder / name / "README.md").write_text(f"A {name}.\n", "utf-8")
    lighter(pipe).save_pretrained(folder / "lighter")
    for path in folder.iterdir():
        storage.write_checksums(path)
    return folder


@pytest.fixture
def shipped(trained, tmp_path):
    models = [trained / name for name in NAMES]
    teachers = dict(zip(NAMES[1:], NAMES, strict=False))
    ship_models(models, teachers, tmp_path / "shipped")
    return tmp_path / "shipped"


def tensors(pipe):
    return {
        f"{part}.{name}": value
        for part in ("vae", "text_encoder", "unet")
        for name, value in getattr(pipe, part).state_dict().items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_what_is_shipped_loads_as_what_was_trained(trained, shipped, name):
    torch.manual_seed(3)
    loaded = loading.load_pipeline(shipped / name)
    drawn = torch.rand(2)
    torch.manual_seed(3)
    whole = loading.load_pipeline(trained / name)
    assert torch.equal(torch.rand(2), drawn), "loading has drawn random numbers"
    found, wanted = tensors(loaded), tensors(whole)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], value) for key, value in wanted.items())
    assert not loaded.unet.training
    assert loaded.unet.dtype == torch.float32


def test_only_what_differs_is_stored(shipped):
    for name, (part, tensor) in CHANGES.items():
        assert overlay.is_over(shipped / name)
        (file,) = (shipped / name).rglob("*.safetensors")
        stored, notes = storage.read_tensors(file)
        assert list(stored) == [f"{part}.{tensor}"]
        assert stored[f"{part}.{tensor}"].dtype == torch.float16
        assert (shipped / name / "README.md").is_file()
        assert notes["base"] == {"student": "teacher", "grandchild": "student"}[name]
    assert not overlay.is_over(shipped / "teacher")


def test_another_base_is_refused(shipped):
    with pytest.raises(ValueError, match="does not lie beside"):
        overlay.pack(shipped / "teacher", shipped / "teacher", shipped.parent / "else")
    weights = shipped / "teacher/unet/diffusion_pytorch_model.safetensors"
    found, _ = storage.read_tensors(weights)
    storage.write_tensors(weights, {k: v + 1 for k, v in found.items()})
    storage.write_checksums(shipped / "teacher")
    with pytest.raises(
        ValueError, match=r"student does not lie over .*teacher: it was"
    ):
        loading.load_pipeline(shipped / "grandchild")
    shutil.rmtree(shipped / "teacher")
    with pytest.raises(ValueError, match=r"lies over .*teacher, which does not exist"):
        loading.load_pipeline(shipped / "student")


def test_a_damaged_overlay_is_refused(shipped):
    file = shipped / "student" / overlay.WEIGHTS
    whole = file.read_bytes()
    file.write_bytes(whole[:-10])
    with pytest.raises(ValueError, match="corrupt or truncated"):
        loading.load_pipeline(shipped / "student")
    file.write_bytes(whole)
    found, notes = storage.read_tensors(file)
    notes = {key: notes[key] for key in ("base", "base_sha256")}
    storage.write_tensors(file, {**found, "unet.more": torch.zeros(1)}, notes)
    storage.write_checksums(shipped / "student")
    with pytest.raises(ValueError, match=r"has too many, 1 \(more\)"):
        loading.load_pipeline(shipped / "student")
    storage.write_tensors(
        file, {"unet.conv_in.bias": torch.tensor([float("nan")] * 8)}, notes
    )
    storage.write_checksums(shipped / "student")
    with pytest.raises(ValueError, match="not finite|size mismatch"):
        loading.load_pipeline(shipped / "student")
