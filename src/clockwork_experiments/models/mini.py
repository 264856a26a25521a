"""Define the mini scale's convolutional networks, and keep them in files.

They lie apart from their training, so that scoring with them depends on nothing else.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn
from torch.nn import functional

from clockwork_experiments.base import storage
from clockwork_experiments.models import inspection

WEIGHTS = "model.safetensors"
"""Name of the weight file in a network's folder; its metadata hold the sizes."""


class FeatureNetwork(nn.Module):
    """Describe an image by the features that the mini Fréchet distance compares."""

    def __init__(self, width: int, dim: int) -> None:
        """Build.

        Args:
            width: Channels of the first level; 1:2:3 over the levels.
            dim: Number of features.
        """
        super().__init__()
        self.settings = {"width": width, "dim": dim}
        self.stem = nn.Conv2d(3, width, 4, stride=2, padding=1)
        self.levels = nn.ModuleList(
            nn.ModuleDict(
                {
                    "inner": nn.Conv2d(level * width, level * width, 3, padding=1),
                    "down": nn.Conv2d(
                        level * width, after * width, 4, stride=2, padding=1
                    ),
                }
            )
            for level, after in ((1, 2), (2, 3), (3, 3))
        )
        self.last = nn.Linear(3 * width * 4 * 4, dim)

    def describe(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return features ``(N, dim)`` of float32 ``(N, 3, 64, 64)`` in [-1, 1]."""
        x = self.stem(pixels)
        for level in self.levels:
            assert isinstance(level, nn.ModuleDict)
            x = x + level["inner"](functional.silu(x))
            x = level["down"](functional.silu(x))
        features: torch.Tensor = self.last(functional.silu(x).flatten(1))
        return features

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return features ``(N, dim)`` of uint8 images ``(N, 3, H, W)``.

        Images of another size than 64×64 are resized first, as Inception's are.
        """
        pixels = images.float() / 127.5 - 1
        if pixels.shape[-2:] != (64, 64):
            pixels = functional.interpolate(pixels, (64, 64), mode="bilinear")
        return self.describe(pixels)


class Restorer(nn.Module):
    """Sharpen a blurred image as far as the mean of all that it may show."""

    def __init__(self, width: int, layers: int) -> None:
        """Build.

        Args:
            width: Channels, at half the image's resolution.
            layers: Convolutions between the first and the last.
        """
        super().__init__()
        self.settings = {"width": width, "layers": layers}
        self.first = nn.Conv2d(3 * 4, width, 3, padding=1)
        self.layers = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1) for _ in range(layers)
        )
        self.last = nn.Conv2d(width, 3 * 4, 3, padding=1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return sharper images; float32 in ``[-1, 1]``, ``(N, 3, H, W)``, even sides.

        A network trained by squared error leaves out what it cannot know: the detail
        that high-frequency synthesis adds.
        """
        x = self.first(functional.pixel_unshuffle(pixels, 2))
        for layer in self.layers:
            x = x + layer(functional.silu(x))
        correction = functional.pixel_shuffle(self.last(functional.silu(x)), 2)
        restored: torch.Tensor = (pixels + correction).clamp(-1, 1)
        return restored


Network = TypeVar("Network", FeatureNetwork, Restorer)


def save(network: FeatureNetwork | Restorer, folder: Path) -> None:
    """Write a network's weights as fp16 into a folder."""
    storage.write_tensors(
        folder / WEIGHTS,
        {name: value.half().cpu() for name, value in network.state_dict().items()},
        {"network": type(network).__name__, "settings": json.dumps(network.settings)},
    )


def load(kind: type[Network], folder: Path) -> Network:
    """Read a network, float32, in evaluation mode, without gradients.

    Raises:
        ValueError: If the weights are missing, corrupt, or of another network, naming
            the file.
    """
    path = folder / WEIGHTS
    tensors, metadata = storage.read_tensors(path)
    if metadata.get("network") != kind.__name__:
        raise ValueError(
            f"{path} holds a {metadata.get('network')!r}, not a {kind.__name__!r}"
        )
    try:
        network = kind(**json.loads(metadata["settings"]))
        network.load_state_dict({name: tensors[name].float() for name in tensors})
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path} does not fit its own description: {error}") from error
    inspection.check_finite(network, path)
    return network.eval().requires_grad_(False)
