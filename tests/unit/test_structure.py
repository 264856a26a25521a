import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from transformers import ViTConfig, ViTModel

from clockwork_experiments.score import structure
from clockwork_experiments.world import edits, scenes

SHIPPED = Path(__file__).parents[2] / "resources" / "mini" / "structure"
KINDS = ("recolour", "retexture", "background", "reshape", "move")


@pytest.fixture(scope="module")
def encoder() -> structure.StructureEncoder:
    return structure.load_structure(SHIPPED)


def drawn(those: list[scenes.Scene]) -> torch.Tensor:
    pixels = np.stack([scenes.render(scene) for scene in those])
    return torch.from_numpy(np.round(pixels * 255).astype(np.uint8)).permute(0, 3, 1, 2)


def noise(count: int, side: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(
        256, (count, 3, side, side), generator=generator, dtype=torch.uint8
    )


def make_folder(folder: Path, size: object = 64, **changes: object) -> ViTModel:
    """Write a small random ViT as DINO is published: old names, a pickle."""
    torch.manual_seed(0)
    settings = {
        "image_size": 64,
        "patch_size": 8,
        "hidden_size": 24,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        # Random weights of the usual size would make all tokens alike.
        "initializer_range": 0.3,
    }
    model = ViTModel(ViTConfig(**{**settings, **changes})).eval()
    folder.mkdir(exist_ok=True)
    model.config.save_pretrained(folder)
    published = {}
    for name, value in model.state_dict().items():
        for ours, theirs in (
            (r"attention\.q_proj", "attention.attention.query"),
            (r"attention\.k_proj", "attention.attention.key"),
            (r"attention\.v_proj", "attention.attention.value"),
            (r"attention\.o_proj", "attention.output.dense"),
            (r"mlp\.fc1", "intermediate.dense"),
            (r"mlp\.fc2", "output.dense"),
            (r"^layers", "encoder.layer"),
        ):
            name = re.sub(ours, theirs, name)
        published[name] = value
    assert "encoder.layer.1.attention.attention.key.weight" in published
    torch.save(published, folder / "pytorch_model.bin")
    processor = {
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "ViTFeatureExtractor",
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "resample": 2,
        "size": size,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return model


def reference(model: ViTModel, image: torch.Tensor) -> torch.Tensor:
    """Return the self-similarity of one image, written out from Splice's definition."""
    weights, config = model.state_dict(), model.config
    shrunk = Image.fromarray(image.permute(1, 2, 0).numpy()).resize(
        (config.image_size,) * 2, Image.Resampling.BILINEAR
    )
    pixels = torch.tensor(np.array(shrunk), dtype=torch.float32) / 255
    pixels = (pixels - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor(
        [0.229, 0.224, 0.225]
    )
    patches = functional.conv2d(
        pixels.permute(2, 0, 1)[None],
        weights["embeddings.patch_embeddings.projection.weight"],
        weights["embeddings.patch_embeddings.projection.bias"],
        stride=config.patch_size,
    )
    x = patches[0].flatten(1).T
    x = torch.cat([weights["embeddings.cls_token"][0], x])
    x = x + weights["embeddings.position_embeddings"][0]
    width, heads = config.hidden_size, config.num_attention_heads
    for index in range(config.num_hidden_layers):

        def linear(name: str, at: torch.Tensor, index: int = index) -> torch.Tensor:
            where = f"layers.{index}.{name}"
            return at @ weights[f"{where}.weight"].T + weights[f"{where}.bias"]

        def norm(name: str, at: torch.Tensor, index: int = index) -> torch.Tensor:
            where = f"layers.{index}.{name}"
            scaled = (at - at.mean(1, keepdim=True)) / (
                at.var(1, unbiased=False, keepdim=True) + config.layer_norm_eps
            ).sqrt()
            return scaled * weights[f"{where}.weight"] + weights[f"{where}.bias"]

        before = norm("layernorm_before", x)
        query, key, value = (
            linear(f"attention.{name}_proj", before) for name in ("q", "k", "v")
        )
        mixed = []
        for start in range(0, width, width // heads):
            part = slice(start, start + width // heads)
            attention = query[:, part] @ key[:, part].T / (width // heads) ** 0.5
            mixed.append(attention.softmax(1) @ value[:, part])
        x = x + linear("attention.o_proj", torch.cat(mixed, 1))
        hidden = functional.gelu(linear("mlp.fc1", norm("layernorm_after", x)))
        x = x + linear("mlp.fc2", hidden)
    # `key` is now the last layer's, before the heads are split.
    length = key.square().sum(1).sqrt()
    return (key @ key.T) / (length[:, None] * length[None, :])


def test_the_distance_is_that_of_a_plain_reference(tmp_path, monkeypatch):
    model = make_folder(tmp_path)
    encoder = structure.load_structure(tmp_path)
    images, sources = noise(5, 96), noise(5, 80, seed=1)
    wanted = [
        float((reference(model, a) - reference(model, b)).square().mean())
        for a, b in zip(images, sources, strict=True)
    ]
    assert min(wanted) > 1e-3
    found = structure.structure_distances(encoder, images, sources)
    assert found.dtype == torch.float64 and found.shape == (5,)
    torch.testing.assert_close(
        found, torch.tensor(wanted, dtype=torch.float64), rtol=1e-4, atol=0
    )
    # In batches, an incomplete one among them, as in one.
    monkeypatch.setattr(structure, "BATCH", 2)
    again = structure.structure_distances(encoder, images, sources)
    torch.testing.assert_close(again, found, rtol=1e-5, atol=0)


def test_dinos_layout_has_785_tokens_and_a_number_for_its_size(tmp_path):
    make_folder(tmp_path, size=224, image_size=224, num_attention_heads=12)
    encoder = structure.load_structure(tmp_path)
    assert encoder.size == 224
    assert encoder.preprocessing == (
        "PIL bilinear to 224×224, mean 0.485/0.456/0.406, std 0.229/0.224/0.225; "
        "keys of layer 2 of 2, all heads, 785 tokens with CLS"
    )
    pixels = torch.randn(1, 3, 224, 224)
    found = structure.self_similarity(structure.keys(encoder.model, pixels))
    assert found.shape == (1, 785, 785)
    distances = structure.structure_distances(encoder, noise(2, 32), noise(2, 32, 1))
    assert bool((distances > 0).all())


def test_a_change_of_looks_is_nearer_than_a_change_of_layout(encoder):
    known = {seed: scenes.sample_scene(seed) for seed in scenes.split_seeds("test", 64)}
    # Those in which each kind of edit can be done.
    seeds = [s for s in known if all(edits.choices(known[s], kind) for kind in KINDS)]
    seeds = seeds[:24]
    originals = [known[seed] for seed in seeds]
    distances = {
        kind: structure.structure_distances(
            encoder,
            drawn(
                [
                    edits.sample_edit(scene, seed, kind).scene
                    for seed, scene in zip(seeds, originals, strict=True)
                ]
            ),
            drawn(originals),
        )
        for kind in KINDS
    }
    for kept in ("recolour", "retexture", "background"):
        for lost in ("reshape", "move"):
            assert distances[kept].mean() < distances[lost].mean() / 2, (kept, lost)
    nearer = distances["recolour"] < distances["move"]
    assert int(nearer.sum()) >= 23


def test_an_image_is_at_distance_zero_from_itself(encoder):
    images = drawn([scenes.sample_scene(seed) for seed in range(3)])
    assert structure.structure_distances(encoder, images, images).tolist() == [0.0] * 3
    assert encoder.preprocessing.startswith("PIL bilinear to 64×64, mean 0.5/0.5/0.5")
    assert len(encoder.sha256) == 64


def test_images_that_make_no_pairs_are_rejected(encoder):
    images = noise(2, 64)
    for wrong in (images.float(), images[:, :1], images[0]):
        with pytest.raises(ValueError, match=r"not uint8 \(N, 3, H, W\)"):
            structure.structure_distances(encoder, wrong, images)
    with pytest.raises(ValueError, match="2 images and 1 sources make no pairs"):
        structure.structure_distances(encoder, images, images[:1])
    with pytest.raises(ValueError, match="there are no images"):
        structure.structure_distances(encoder, images[:0], images[:0])


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_a_missing_or_damaged_description_is_named(tmp_path, name):
    make_folder(tmp_path)
    path = tmp_path / name
    path.write_text("{")
    with pytest.raises(ValueError, match=f"{name} is not valid JSON"):
        structure.load_structure(tmp_path)
    path.write_text("[]")
    with pytest.raises(ValueError, match=f"{name} is not a mapping"):
        structure.load_structure(tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match=f"{name} does not exist"):
        structure.load_structure(tmp_path)


def test_missing_and_damaged_weights_are_named(tmp_path):
    make_folder(tmp_path)
    path = tmp_path / "pytorch_model.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"pytorch_model.bin is corrupt, truncated or"):
        structure.load_structure(tmp_path)
    path.unlink()
    with pytest.raises(
        ValueError, match="holds none of model.safetensors, pytorch_model.bin"
    ):
        structure.load_structure(tmp_path)
    shipped = Path(shutil.copytree(SHIPPED, tmp_path / "shipped"))
    path = shipped / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"model.safetensors is corrupt"):
        structure.load_structure(shipped)


class Intruder:
    def __reduce__(self):
        return (open, ("intruded", "w"))


def test_a_weight_file_cannot_run_code(tmp_path, monkeypatch):
    make_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    torch.save({"embeddings.cls_token": Intruder()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="pytorch_model.bin is corrupt") as failure:
        structure.load_structure(tmp_path)
    assert not (tmp_path / "intruded").exists()
    assert "\n" not in str(failure.value)


def test_weights_of_another_model_are_rejected(tmp_path):
    make_folder(tmp_path)
    path = tmp_path / "pytorch_model.bin"
    weights = torch.load(path)
    del weights["encoder.layer.1.attention.attention.key.weight"]
    torch.save(weights, path)
    with pytest.raises(ValueError, match=r"bin: of the tensors .* lacks 1 \(layers.1"):
        structure.load_structure(tmp_path)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("config.json", {"model_type": "resnet"}, "of type 'resnet', not 'vit'"),
        ("config.json", {"image_size": 72}, "pytorch_model.bin is corrupt"),
        ("preprocessor_config.json", {"size": 56}, "resizes to 56, and the ViT takes"),
        (
            "preprocessor_config.json",
            {"size": {"height": 64, "width": 48}},
            "is not the side of a square",
        ),
        ("preprocessor_config.json", {"resample": 9}, "resample 9 is not one of 0, 1,"),
        ("preprocessor_config.json", {"image_mean": [0.5]}, "image_mean .* 3 numbers"),
        ("preprocessor_config.json", {"do_normalize": False}, "do_normalize must be"),
        ("preprocessor_config.json", {"rescale_factor": 1}, "rescale_factor must be"),
    ],
)
def test_settings_that_cannot_be_followed_are_rejected(
    tmp_path, name, changes, message
):
    make_folder(tmp_path)
    path = tmp_path / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(ValueError, match=message):
        structure.load_structure(tmp_path)
