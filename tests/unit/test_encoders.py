import shutil
from pathlib import Path

import pytest
import torch

from clockwork_experiments.base import storage
from clockwork_experiments.models import encoders, mini
from clockwork_experiments.world import scenes
from clockwork_experiments.world.captions import captions as words
from clockwork_experiments.world.data import scene_images

SHIPPED = Path(__file__).parents[2] / "resources" / "mini"


@pytest.fixture(scope="module")
def clip() -> encoders.ClipEncoder:
    return encoders.load_clip(SHIPPED / "clip")


@pytest.fixture
def copy(tmp_path: Path):
    def copy(name: str) -> Path:
        return Path(shutil.copytree(SHIPPED / name, tmp_path / name))

    return copy


def image_of(scene: scenes.Scene) -> torch.Tensor:
    pixels = torch.from_numpy(scenes.render(scene)).permute(2, 0, 1)
    return (pixels * 255).round().to(torch.uint8)[None]


def test_a_caption_is_closer_to_its_scene_than_to_another(clip):
    said = ["a large red star on sand"]
    star = scenes.Thing("star", "red", "plain", "large", 32, 32, 16)
    ring = scenes.Thing("ring", "blue", "plain", "large", 32, 32, 16)
    images = torch.cat(
        [
            image_of(scenes.Scene((item,), "beach", "day", "left", 20))
            for item in (star, ring)
        ]
    )
    text = encoders.clip_text_features(clip, said)
    right, wrong = (encoders.clip_image_features(clip, images) @ text.T)[:, 0]
    assert right > wrong + 0.1


def test_clip_features_are_unit_float32_whatever_the_batch(clip, monkeypatch):
    images = scene_images("test", 5)
    captions = words("test", 5)
    image, text = (
        encoders.clip_image_features(clip, images),
        encoders.clip_text_features(clip, captions),
    )
    for features in (image, text):
        assert features.dtype == torch.float32
        torch.testing.assert_close(features.norm(dim=1), torch.ones(5))
    monkeypatch.setattr(encoders, "BATCH", 2)
    torch.testing.assert_close(encoders.clip_image_features(clip, images), image)
    torch.testing.assert_close(encoders.clip_text_features(clip, captions), text)


def test_clip_takes_images_of_any_size(clip):
    images = scene_images("test", 1)
    enlarged = images.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    one, other = (encoders.clip_image_features(clip, x) for x in (images, enlarged))
    assert float((one * other).sum()) > 0.95
    assert "64" in clip.preprocessing and "bicubic" in clip.preprocessing


def test_features_grow_apart_with_blur():
    encoder = encoders.load_frechet("mini", SHIPPED / "features")
    images = scene_images("test", 20)
    coarse = [
        torch.nn.functional.avg_pool2d(images.float(), k)
        .repeat_interleave(k, 2)
        .repeat_interleave(k, 3)
        .to(torch.uint8)
        for k in (1, 2, 4)
    ]
    features = [encoders.frechet_features(encoder, x) for x in coarse]
    near, far = ((f - features[0]).square().mean() for f in features[1:])
    assert 0 < near < far


def test_images_of_another_type_are_refused(clip):
    with pytest.raises(ValueError, match="torch.float32 .* not uint8"):
        encoders.clip_image_features(clip, torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match="there are no captions"):
        encoders.clip_text_features(clip, [])


def test_images_of_another_size_are_resized():
    encoder = encoders.load_frechet("mini", SHIPPED / "features")
    images = scene_images("test", 24)
    small = encoders.resized(images, 32)
    assert small.shape == (24, 3, 32, 32) and small.dtype == torch.uint8
    assert encoders.resized(small, 32) is small
    # Pillow's bicubic keeps the mean colour.
    assert (small.float().mean((2, 3)) - images.float().mean((2, 3))).abs().max() < 3
    whole, shrunk, other = (
        encoders.frechet_features(encoder, x) for x in (images, small, images.flip(0))
    )
    near, far = ((f - whole).square().mean() for f in (shrunk, other))
    assert 0 < near < far


def damage(path: Path, how: str) -> None:
    whole = path.read_bytes()
    half = len(whole) // 2
    path.write_bytes(
        {
            "truncated": whole[:-100],
            "empty": b"",
            "no header": b"\xff" * 64 + whole[64:],
            "one bit": whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :],
        }[how]
    )


@pytest.mark.parametrize("how", ["truncated", "empty", "no header", "one bit"])
@pytest.mark.parametrize("kind", ["clip", "features"])
def test_damaged_weights_are_named(copy, kind, how):
    folder = copy(kind)
    (path,) = folder.glob("*.safetensors")
    damage(path, how)
    with pytest.raises(ValueError, match=f"{path.name} is (?:corrupt|empty)") as caught:
        if kind == "clip":
            encoders.load_clip(folder)
        else:
            encoders.load_frechet("mini", folder)
    assert "\n" not in str(caught.value)


def test_missing_files_are_named(copy, tmp_path):
    with pytest.raises(ValueError, match="nowhere is not a folder"):
        encoders.load_clip(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"nowhere/model\.safetensors does not exist"):
        encoders.load_frechet("mini", tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"inception\.pth does not exist"):
        encoders.load_frechet("inception", tmp_path / "inception.pth")
    with pytest.raises(ValueError, match="'vgg' is not one of mini, inception"):
        encoders.load_frechet("vgg", tmp_path)
    folder = copy("clip")
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(ValueError, match="holds none of open_clip_model.safetensors"):
        encoders.load_clip(folder)


def test_damaged_configuration_and_tokenizer_are_named(copy):
    folder = copy("clip")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="the tokenizer in .*clip cannot be read"):
        encoders.load_clip(folder)
    (folder / "open_clip_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"open_clip_config\.json is not valid JSON"):
        encoders.load_clip(folder)


def test_weights_of_another_network_are_refused():
    with pytest.raises(ValueError, match="holds a 'Restorer', not a"):
        mini.load(mini.FeatureNetwork, SHIPPED / "restorer")


def test_a_folder_as_published_loads_with_clips_own_tokenizer(tmp_path):
    towers = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 28, "patch_size": 14, "width": 64, "layers": 1},
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 8,
            "heads": 2,
            "layers": 1,
        },
    }
    model = encoders.open_clip.CLIP(**towers)
    storage.write_json(
        tmp_path / "open_clip_config.json",
        {"model_cfg": towers, "preprocess_cfg": {"mean": [0.4, 0.5, 0.6]}},
    )
    torch.save(model.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    encoder = encoders.load_clip(tmp_path)
    assert encoders.clip_text_features(encoder, ["a photo", "a dog"]).shape == (2, 8)
    images = torch.zeros(1, 3, 50, 40, dtype=torch.uint8)
    assert encoders.clip_image_features(encoder, images).shape == (1, 8)
    assert "28" in encoder.preprocessing and "0.4/0.5/0.6" in encoder.preprocessing
    damage(tmp_path / "open_clip_pytorch_model.bin", "truncated")
    with pytest.raises(ValueError, match=r"open_clip_pytorch_model\.bin is corrupt"):
        encoders.load_clip(tmp_path)
