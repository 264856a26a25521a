"""Published pipeline folders load, whatever their files are named; and no others do.

What is refused stands in `bad_inputs.yaml`.
"""

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from clockwork_experiments.base import storage
from clockwork_experiments.models import loading

SHIPPED = Path(__file__).parents[2] / "resources" / "mini" / "stable-diffusion"


def test_an_index_may_name_an_extractor_that_transformers_dropped(tmp_path):
    folder = Path(shutil.copytree(SHIPPED, tmp_path / "model"))
    index = storage.read_json(folder / "model_index.json")
    index["feature_extractor"] = ["transformers", "CLIPFeatureExtractor"]
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    storage.write_json(folder / "model_index.json", index)
    pipe = loading.load_pipeline(folder)
    assert pipe.feature_extractor is None and pipe.safety_checker is None


def same(one, other) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(
        torch.equal(ours[name], theirs[name]) for name in ours
    )


def copied(folder: Path) -> Path:
    shutil.copytree(SHIPPED, folder)
    (folder / "SHA256SUMS").unlink()
    return folder


@pytest.mark.parametrize("parts", [("unet", "vae", "text_encoder"), ("unet",)])
def test_a_folder_of_the_fp16_variant_is_loaded(tmp_path, parts):
    folder = copied(tmp_path / "model")
    for part in parts:
        (path,) = (folder / part).glob("*.safetensors")
        path.rename(path.with_suffix(".fp16.safetensors"))
    pipe, plain = loading.load_pipeline(folder), loading.load_pipeline(SHIPPED)
    assert pipe.unet.dtype == torch.float32
    for part in ("unet", "vae", "text_encoder"):
        assert same(getattr(pipe, part), getattr(plain, part))
        assert not getattr(pipe, part).training


def test_a_plain_file_goes_before_its_variants(tmp_path):
    folder = copied(tmp_path / "model")
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = {name: value.half() + 1 for name, value in load_file(path).items()}
    save_file(tensors, path.with_suffix(".fp16.safetensors"), {"format": "pt"})
    vae = loading.load_pipeline(folder).vae
    assert same(vae, loading.load_pipeline(SHIPPED).vae)


def test_a_model_is_read_where_the_hubs_cache_has_it(tmp_path):
    blobs, commit = tmp_path / "blobs", tmp_path / "snapshots" / "0123"
    copied(commit)
    blobs.mkdir()
    for number, path in enumerate(sorted(commit.rglob("*"))):
        if path.is_file():
            path.rename(blobs / str(number))
            path.symlink_to(blobs / str(number))
    pipe = loading.load_pipeline(tmp_path)
    assert same(pipe.unet, loading.load_pipeline(SHIPPED).unet)
    (tmp_path / "snapshots" / "4567").mkdir()
    with pytest.raises(ValueError, match="holds 2 revisions, and no refs/main"):
        loading.load_pipeline(tmp_path)
    (tmp_path / "refs").mkdir()
    (tmp_path / "refs" / "main").write_text("0123")
    loading.load_pipeline(tmp_path)
    shutil.rmtree(blobs)
    with pytest.raises(ValueError, match="does not exist"):
        loading.load_pipeline(tmp_path)


def test_a_pair_of_equal_sides_is_one(tmp_path):
    folder = copied(tmp_path / "model")
    config = storage.read_json(folder / "unet" / "config.json")
    storage.write_json(
        folder / "unet" / "config.json", {**config, "sample_size": [16, 16]}
    )
    assert loading.load_pipeline(folder).unet.config.sample_size == 16


def test_old_names_of_the_autoencoders_attention_are_known(tmp_path):
    """As Stable Diffusion's own files have them, which diffusers translates."""
    folder = copied(tmp_path / "model") / "vae"
    path = folder / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(path)
    for name in [name for name in tensors if "attentions" in name]:
        renamed = name
        for new, before in old.items():
            renamed = renamed.replace(f".{new}.", f".{before}.")
        tensors[renamed] = tensors.pop(name)
    save_file(tensors, path, {"format": "pt"})
    vae = loading.load_network(AutoencoderKL, folder)
    assert same(vae, loading.load_pipeline(SHIPPED).vae)


def test_positions_that_old_text_encoders_store_are_no_weights(tmp_path):
    folder = copied(tmp_path / "model")
    path = folder / "text_encoder" / "model.safetensors"
    positions = {"text_model.embeddings.position_ids": torch.arange(32)[None]}
    save_file({**load_file(path), **positions}, path, {"format": "pt"})
    encoder = loading.load_pipeline(folder).text_encoder
    assert same(encoder, loading.load_pipeline(SHIPPED).text_encoder)
