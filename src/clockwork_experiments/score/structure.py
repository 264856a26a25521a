"""Measure how far an edit moves an image's layout: the structure distance of Splice.

The keys of a ViT's last layer say where things are and little of how they look. Their
cosines, between all pairs of an image's tokens, describe its layout whatever its
appearance; the distance is the mean squared difference of two images' cosines. The
paper takes DINO's ViT-B/8 and calls it DINO distance. Lower is closer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.nn import functional
from torchvision.transforms.functional import pil_to_tensor, to_pil_image
from transformers import ViTModel
from transformers.utils import logging as transformers_logging

from clockwork_experiments.base import storage
from clockwork_experiments.models.encoders import check_images, numbers
from clockwork_experiments.models.loading import load_network

BATCH = 16
"""Images per forward; a ViT-B/8 keeps some 35 MB of each, a mini ViT next to nothing.
"""

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Weight files of a ViT's folder, in order of preference; DINO was published as .bin.
"""


@dataclass(frozen=True)
class StructureEncoder:
    """A ViT whose keys describe structure, ready to run.

    Attributes:
        model: The ViT, in evaluation mode, float32.
        size: Side in pixels that images are resized to.
        resample: Pillow's filter for that.
        mean: Subtracted from each channel of ``[0, 1]``.
        std: What each channel is divided by then.
        preprocessing: What is done to an image, and what is read off, in words.
        sha256: Checksum of the weights.
    """

    model: ViTModel
    size: int
    resample: Image.Resampling
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    preprocessing: str
    sha256: str

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return next(self.model.parameters()).device


# --- loading -------------------------------------------------------------------------


def load_structure(
    folder: Path, device: torch.device | str = "cpu"
) -> StructureEncoder:
    """Load a ViT from a folder as transformers saves it, without a network.

    Args:
        folder: Holds ``config.json``, ``preprocessor_config.json`` and one of
            `WEIGHTS`.
        device: Where to run.

    Raises:
        ValueError: If a file is missing, corrupt or truncated, or does not go with the
            others; the message names it.
    """
    described = storage.existing(folder / "config.json")
    kind = _mapping(described).get("model_type")
    if kind != "vit":
        raise ValueError(f"{described} describes a model of type {kind!r}, not 'vit'")
    size, resample, mean, std = _processor(folder / "preprocessor_config.json")
    found = [folder / name for name in WEIGHTS if (folder / name).is_file()]
    if not found:
        raise ValueError(f"{folder} holds none of {', '.join(WEIGHTS)}")
    weights = found[0]
    if weights.suffix == ".safetensors":
        storage.check_weights(folder)
    transformers_logging.disable_progress_bar()
    model = load_network(
        ViTModel,
        folder,
        options={"add_pooling_layer": False},
        surplus=("pooler.",),
        pickled=weights.suffix != ".safetensors",
    )
    if model.config.image_size != size:
        raise ValueError(
            f"{folder / 'preprocessor_config.json'} resizes to {size}, and the ViT "
            f"takes {model.config.image_size}"
        )
    tokens = (size // model.config.patch_size) ** 2 + 1
    return StructureEncoder(
        model.to(device).requires_grad_(False),
        size,
        resample,
        mean,
        std,
        f"PIL {resample.name.lower()} to {size}×{size}, mean {numbers(mean)}, "
        f"std {numbers(std)}; keys of layer {model.config.num_hidden_layers} of "
        f"{model.config.num_hidden_layers}, all heads, {tokens} tokens with CLS",
        storage.sha256(weights),
    )


def _processor(
    path: Path,
) -> tuple[
    int, Image.Resampling, tuple[float, float, float], tuple[float, float, float]
]:
    """Read what a ``preprocessor_config.json`` does to an image."""
    settings = _mapping(storage.existing(path))
    for name in ("do_resize", "do_normalize"):
        if not settings.get(name, True):
            raise ValueError(f"{path}: {name} must be true")
    if abs(settings.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
        raise ValueError(f"{path}: rescale_factor must be 1 / 255")
    size = settings.get("size")
    # Older files hold a number; newer ones height and width.
    sides = set(size.values()) if isinstance(size, dict) else {size}
    side = sides.pop() if len(sides) == 1 else None
    if not isinstance(side, int) or side < 1:
        raise ValueError(f"{path}: size {size!r} is not the side of a square")
    filters = {item.value: item for item in Image.Resampling}
    # transformers' default for a ViT.
    resample = settings.get("resample", Image.Resampling.BILINEAR.value)
    if resample not in filters:
        raise ValueError(
            f"{path}: resample {resample!r} is not one of "
            f"{', '.join(map(str, sorted(filters)))}"
        )
    return (
        side,
        filters[resample],
        _channels(path, settings, "image_mean"),
        _channels(path, settings, "image_std"),
    )


def _channels(
    path: Path, settings: dict[str, Any], name: str
) -> tuple[float, float, float]:
    values = settings.get(name)
    if (
        not isinstance(values, list)
        or len(values) != 3
        or not all(isinstance(value, int | float) for value in values)
    ):
        raise ValueError(f"{path}: {name} {values!r} is not a list of 3 numbers")
    red, green, blue = map(float, values)
    return red, green, blue


def _mapping(path: Path) -> dict[str, Any]:
    data = storage.read_json(path)
    if not isinstance(data, dict):
        raise ValueError(f"{path} is not a mapping")
    return data


# --- the distance --------------------------------------------------------------------


@torch.inference_mode()
def keys(vit: ViTModel, pixels: torch.Tensor) -> torch.Tensor:
    """Return the last layer's keys of all tokens, heads concatenated, ``(N, T, D)``.

    Args:
        vit: Any `ViTModel`.
        pixels: Normalised as the model's processor does, ``(N, 3, H, W)``.
    """
    hidden = vit(pixels, output_hidden_states=True).hidden_states[-2]
    layer = vit.layers[-1]
    found: torch.Tensor = layer.attention.k_proj(layer.layernorm_before(hidden))
    return found


def self_similarity(tokens: torch.Tensor) -> torch.Tensor:
    """Return the cosines between all tokens of an image, ``(N, T, D)`` → ``(N, T, T)``.

    Equal for two images of the same layout, whatever their appearance (Splice).
    """
    unit = functional.normalize(tokens, dim=-1)
    return unit @ unit.transpose(-1, -2)


@torch.inference_mode()
def structure_distances(
    encoder: StructureEncoder, images: torch.Tensor, sources: torch.Tensor
) -> torch.Tensor:
    """Return each image's structure distance to its source, ``(N,)`` float64.

    Args:
        encoder: From `load_structure`.
        images: uint8, ``(N, 3, H, W)``, any size.
        sources: uint8, ``(N, 3, H, W)``, any size; row i is the source of image i.

    Raises:
        ValueError: If type or shape differ, or the numbers of images do.
    """
    check_images(images)
    check_images(sources)
    if len(images) != len(sources):
        raise ValueError(
            f"{len(images)} images and {len(sources)} sources make no pairs"
        )
    parts = []
    for batch, originals in zip(images.split(BATCH), sources.split(BATCH), strict=True):
        change = _described(encoder, batch) - _described(encoder, originals)
        parts.append(change.double().square().mean(dim=(1, 2)).cpu())
    return torch.cat(parts)


def _described(encoder: StructureEncoder, images: torch.Tensor) -> torch.Tensor:
    """Return the self-similarity of uint8 images, ``(N, T, T)``."""
    side = (encoder.size, encoder.size)
    resized = [
        pil_to_tensor(to_pil_image(image).resize(side, encoder.resample))
        for image in images.cpu()
    ]
    mean, std = (
        torch.tensor(values)[:, None, None] for values in (encoder.mean, encoder.std)
    )
    pixels = (torch.stack(resized).float() / 255 - mean) / std
    return self_similarity(keys(encoder.model, pixels.to(encoder.device)))
