"""LPIPS at both scales, directions in CLIP's space, and aesthetics."""

from pathlib import Path

import pytest
import torch
import torchvision
from torchmetrics.functional.image.lpips import _NoTrainLpips

from clockwork_experiments.base import storage
from clockwork_experiments.models import perceptual
from clockwork_experiments.models.mini import WEIGHTS, FeatureNetwork, load
from clockwork_experiments.world.data import scene_images
from clockwork_experiments.world.scenes import degrade

FEATURES = Path(__file__).parents[2] / "resources" / "mini" / "features"


@pytest.fixture(scope="module")
def mini() -> perceptual.PerceptualEncoder:
    return perceptual.load_perceptual("mini", FEATURES)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return scene_images("test", 20)


def degraded(images: torch.Tensor, factor: int) -> torch.Tensor:
    made = [
        torch.from_numpy(
            degrade(image.permute(1, 2, 0).numpy() / 255, seed, factor, 0.0) * 255
        )
        for seed, image in enumerate(images)
    ]
    return torch.stack(made).round().byte().permute(0, 3, 1, 2)


def test_mini_distance_is_the_formula(mini, images):
    network = load(FeatureNetwork, FEATURES)
    seen: list[torch.Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda *args: seen.append(args[-1]))
        for layer in (network.stem, *(level["down"] for level in network.levels))
    ]
    one, other = images[:1], images[1:2]
    network(one)
    network(other)
    for hook in hooks:
        hook.remove()
    total = 0.0
    for a, b in zip(seen[:4], seen[4:], strict=True):
        a, b = torch.nn.functional.silu(a)[0], torch.nn.functional.silu(b)[0]
        cosines = torch.nn.functional.cosine_similarity(a, b, dim=0)
        # Of unit vectors the squared distance is 2 - 2 cos.
        total += float((2 - 2 * cosines).mean())
    found = perceptual.perceptual_distances(mini, one, other)
    assert found.dtype == torch.float64 and found.shape == (1,)
    assert found.item() == pytest.approx(total, rel=1e-4)


def test_distance_is_zero_for_equal_images_and_symmetric(mini, images):
    assert perceptual.perceptual_distances(mini, images, images).abs().max() < 1e-6
    turned = images.flip(0)
    there = perceptual.perceptual_distances(mini, images, turned)
    back = perceptual.perceptual_distances(mini, turned, images)
    assert torch.allclose(there, back)
    assert there.min() > 0


def test_distance_grows_with_the_damage(mini, images):
    by_factor = [
        perceptual.perceptual_distances(mini, degraded(images, factor), images).mean()
        for factor in (1, 2, 4, 8)
    ]
    assert by_factor == sorted(by_factor)
    assert by_factor[-1] > 2 * by_factor[1]


def test_paper_distance_is_that_of_torchmetrics(tmp_path, images):
    torch.manual_seed(0)
    alexnet = torchvision.models.alexnet(weights=None).eval()
    path = tmp_path / "alexnet-owt-7be5be79.pth"
    torch.save(alexnet.state_dict(), path)
    encoder = perceptual.load_perceptual("alex", path)
    assert encoder.sha256 == storage.sha256(path)
    found = perceptual.perceptual_distances(encoder, images, images.flip(0))

    network = _NoTrainLpips(net="alex", pnet_rand=True)
    for name, value in network.net.state_dict().items():
        value.copy_(alexnet.state_dict()[f"features.{name.partition('.')[2]}"])
    with torch.inference_mode():
        wanted = network(
            images.float() / 255, images.flip(0).float() / 255, normalize=True
        )
    assert torch.allclose(found, wanted.flatten().double(), atol=1e-6)
    assert found.min() > 0


@pytest.mark.parametrize(
    ("kind", "path", "message"),
    [
        ("vgg", FEATURES, "perceptual 'vgg' is not one of mini, alex"),
        ("alex", Path("none.pth"), "none.pth does not exist"),
        ("alex", FEATURES / WEIGHTS, "is corrupt, truncated or not torchv"),
        ("mini", FEATURES.parent / "restorer", "holds a 'Restorer'"),
    ],
)
def test_wrong_weights_are_named(kind, path, message):
    with pytest.raises(ValueError, match=message) as caught:
        perceptual.load_perceptual(kind, path)
    assert "\n" not in str(caught.value)


def test_images_that_make_no_pairs_are_refused(mini, images):
    with pytest.raises(ValueError, match="make no pairs"):
        perceptual.perceptual_distances(mini, images, images[:2])
    with pytest.raises(ValueError, match="make no pairs"):
        perceptual.perceptual_distances(mini, images, images.float())


def test_direction_is_one_when_images_change_as_captions_do():
    torch.manual_seed(0)
    before, caption = torch.randn(2, 5, 8)
    change = torch.randn(5, 8)
    change[3:] *= -1
    towards = perceptual.direction_cosines(
        before, before + 0.3 * change, caption, caption + 2 * change
    )
    assert torch.allclose(towards, torch.ones(5, dtype=torch.float64), atol=1e-5)
    away = perceptual.direction_cosines(
        before, before - change, caption, caption + change
    )
    assert torch.allclose(away, -torch.ones(5, dtype=torch.float64), atol=1e-5)
    still = perceptual.direction_cosines(before, before, caption, caption + change)
    assert torch.equal(still, torch.zeros(5, dtype=torch.float64))
    caption_after = caption + change
    caption_after[2] = caption[2]
    with pytest.raises(ValueError, match="captions of pair 2 do not differ"):
        perceptual.direction_cosines(before, before, caption, caption_after)


def test_aesthetic_is_a_linear_layer(tmp_path):
    path = tmp_path / "aesthetic.safetensors"
    weight, bias = torch.tensor([[1.0, -2.0]]), torch.tensor([5.0])
    storage.write_tensors(path, {"weight": weight, "bias": bias})
    predict = perceptual.load_aesthetic(path, 2)
    features = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    assert predict(features).tolist() == pytest.approx([6.0, 4.0])
    with pytest.raises(ValueError, match=r"weight is \(1, 2\), not \(1, 3\)"):
        perceptual.load_aesthetic(path, 3)
    storage.write_tensors(path, {"weight": weight})
    with pytest.raises(ValueError, match="lacks the tensor 'bias'"):
        perceptual.load_aesthetic(path, 2)
