"""Score images as people see them: LPIPS, directions in CLIP's space, aesthetics.

LPIPS compares activations of a network, each position's scaled to unit length: squared
differences, averaged over the image and summed over the layers. At paper scale it is
torchmetrics', AlexNet with learned weights per channel. At mini scale it is the same
formula on our feature network, every channel counting alike: another scale, not to be
compared with LPIPS as published, and named as such in the scores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional
from torchmetrics.functional.image.lpips import _NoTrainLpips

from clockwork_experiments.base import storage
from clockwork_experiments.models import inspection, mini
from clockwork_experiments.score import metrics

BATCH = 16
"""Pairs per forward."""

_EPS = 1e-8


@dataclass(frozen=True)
class PerceptualEncoder:
    """A perceptual distance, ready to run.

    Attributes:
        distance: Distances ``(N,)`` of two sets of images, float32 in ``[-1, 1]``.
        preprocessing: What is compared, in words.
        sha256: Checksum of the weights.
        device: Where it runs.
    """

    distance: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    preprocessing: str
    sha256: str
    device: torch.device


def _load_mini(path: Path, device: torch.device) -> PerceptualEncoder:
    network = mini.load(mini.FeatureNetwork, path).to(device)

    def distance(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        ours, theirs = activations(network, images), activations(network, targets)
        apart = [_apart(a, b) for a, b in zip(ours, theirs, strict=True)]
        return torch.stack(apart).sum(dim=0)

    return PerceptualEncoder(
        distance,
        "LPIPS's formula on the mini feature network, 4 layers, every channel alike",
        storage.sha256(path / mini.WEIGHTS),
        device,
    )


def _load_alex(path: Path, device: torch.device) -> PerceptualEncoder:
    storage.existing(path)
    # torchmetrics would download the trunk; its file is given instead.
    network = _NoTrainLpips(net="alex", pnet_rand=True)
    # torch raises many kinds for a damaged file.
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        trunk = {
            f"{part}.{layer}.{name}": state[f"features.{layer}.{name}"]
            for part, layer, name in (
                key.split(".") for key in network.net.state_dict()
            )
        }
        network.net.load_state_dict(trunk)
    except Exception as error:
        raise ValueError(
            f"{path} is corrupt, truncated or not torchvision's AlexNet: "
            f"{inspection.one_line(error)}"
        ) from error
    inspection.check_finite(network.net, path)
    network = network.to(device)

    def distance(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        distances: torch.Tensor = network(images, targets).flatten()
        return distances

    return PerceptualEncoder(
        distance,
        "LPIPS (torchmetrics): AlexNet, linear weights of version 0.1",
        storage.sha256(path),
        device,
    )


LOADERS: dict[str, Callable[[Path, torch.device], PerceptualEncoder]] = {
    "mini": _load_mini,
    "alex": _load_alex,
}
"""Loader by kind of network."""


def load_perceptual(
    kind: str, path: Path, device: torch.device | str = "cpu"
) -> PerceptualEncoder:
    """Load a perceptual distance, without a network.

    Args:
        kind: A key of `LOADERS`.
        path: ``mini``: the feature network's folder. ``alex``: torchvision's weight
            file, ``alexnet-owt-7be5be79.pth``.
        device: Where to run.

    Raises:
        ValueError: If the kind is unknown, or the weights are missing or damaged,
            naming the file.
    """
    if kind not in LOADERS:
        raise ValueError(f"perceptual {kind!r} is not one of {', '.join(LOADERS)}")
    return LOADERS[kind](path, torch.device(device))


@torch.inference_mode()
def perceptual_distances(
    encoder: PerceptualEncoder, images: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Return each pair's distance, ``(N,)`` float64, 0 for equal images.

    Args:
        encoder: From `load_perceptual`.
        images: uint8, ``(N, 3, H, W)``.
        targets: The same shape.

    Raises:
        ValueError: If type or shape differ.
    """
    for each in (images, targets):
        if each.dtype != torch.uint8 or each.ndim != 4 or each.shape != images.shape:
            raise ValueError(
                f"images {images.dtype} {tuple(images.shape)} and {targets.dtype} "
                f"{tuple(targets.shape)} make no pairs of uint8 (N, 3, H, W)"
            )
    parts = [
        encoder.distance(_pixels(a, encoder.device), _pixels(b, encoder.device)).cpu()
        for a, b in zip(images.split(BATCH), targets.split(BATCH), strict=True)
    ]
    return torch.cat(parts).double()


def activations(
    network: mini.FeatureNetwork, pixels: torch.Tensor
) -> list[torch.Tensor]:
    """Return what each level of the feature network hands to the next, activated.

    Args:
        network: The network.
        pixels: float32 in ``[-1, 1]``, ``(N, 3, H, W)``; resized to 64×64 first.
    """
    if pixels.shape[-2:] != (64, 64):
        pixels = functional.interpolate(pixels, (64, 64), mode="bilinear")
    x = network.stem(pixels)
    found = [functional.silu(x)]
    for level in network.levels:
        assert isinstance(level, torch.nn.ModuleDict)
        x = x + level["inner"](functional.silu(x))
        x = level["down"](functional.silu(x))
        found.append(functional.silu(x))
    return found


def _apart(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return the mean squared distance of unit vectors, ``(N, C, h, w)`` → ``(N,)``."""
    gap = _unit(one) - _unit(other)
    return gap.square().sum(dim=1).mean(dim=(1, 2))


def _unit(x: torch.Tensor) -> torch.Tensor:
    return x / (x.square().sum(dim=1, keepdim=True) + _EPS).sqrt()


def _pixels(images: torch.Tensor, device: torch.device) -> torch.Tensor:
    return images.to(device).float() / 127.5 - 1


# --- on CLIP's features ---------------------------------------------------------------


def direction_cosines(
    before: torch.Tensor,
    after: torch.Tensor,
    caption_before: torch.Tensor,
    caption_after: torch.Tensor,
) -> torch.Tensor:
    """Return CLIP_D: whether images change as their captions do, ``(N,)`` float64.

    cos(E(out) − E(in), T(cap_out) − T(cap_in)); 0 where an image does not change.

    Args:
        before: Unit features of the input images, ``(N, D)``.
        after: Of the output images.
        caption_before: Of the input images' captions.
        caption_after: Of the target captions.

    Raises:
        ValueError: If the shapes differ, a feature is not finite, or a caption does not
            change, so that there is no direction.
    """
    asked = caption_after.double() - caption_before.double()
    same = (asked.norm(dim=-1) < 1e-6).nonzero().flatten().tolist()
    if same:
        raise ValueError(f"the captions of pair {same[0]} do not differ: no direction")
    return metrics.cosines(after.double() - before.double(), asked)


def load_aesthetic(path: Path, width: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Load an aesthetic predictor: a linear layer on CLIP's unit image features.

    Args:
        path: A safetensors file with ``weight``, ``(1, D)``, and ``bias``, ``(1,)``.
        width: D of the CLIP.

    Returns:
        Features ``(N, D)`` → scores ``(N,)`` float64.

    Raises:
        ValueError: If the file is missing or damaged, or holds something else.
    """
    tensors, _ = storage.read_tensors(path)
    for name, shape in (("weight", (1, width)), ("bias", (1,))):
        if name not in tensors:
            raise ValueError(f"{path} lacks the tensor {name!r}")
        if tuple(tensors[name].shape) != shape:
            raise ValueError(
                f"{path}: {name} is {tuple(tensors[name].shape)}, not {shape}, for "
                f"CLIP features of {width}"
            )
    inspection.check_finite(tensors, path)
    weight, bias = tensors["weight"].double(), tensors["bias"].double()
    return lambda features: (features.cpu().double() @ weight.T + bias).flatten()
