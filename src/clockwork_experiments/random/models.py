"""Make models with random weights in the formats and sizes of the published ones.

They stand in for what a machine without a network cannot have, where sizes, formats,
memory and time are the question: everything runs as with the real weights, and every
score is meaningless. Each folder carries a card that says so (`random_weights`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice, product
from pathlib import Path
from typing import Any

import open_clip
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    ViTConfig,
    ViTModel,
)

from clockwork_diffusion.stablesr.cfw import CFWAutoencoder
from clockwork_diffusion.stablesr.checkpoint import Architecture
from clockwork_diffusion.stablesr.pipeline import StableSRPipeline
from clockwork_diffusion.stablesr.spade import SpadeUNet
from clockwork_diffusion.stablesr.structure_encoder import StructureEncoder
from clockwork_experiments.base import storage
from clockwork_experiments.cost import architectures
from clockwork_experiments.random import marks

LETTERS = "abcdefghijklmnopqrstuvwxyz"
END = "</w>"
VOCABULARY = 49408
"""Entries of CLIP's vocabulary: 256 bytes, twice; 48,894 merges; start and end."""

CONTEXT = 77
"""Tokens of a prompt."""

TEXT: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
"""SD v1.5's text encoder, CLIP ViT-L/14's, where it differs from the defaults."""

SCHEDULE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}
"""SD v1.5's noise schedule."""

DINO: dict[str, Any] = {"patch_size": 8, "image_size": 224}
"""DINO's ViT-B/8, where it differs from transformers' defaults."""

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
"""Mean and deviation of ImageNet's channels."""


@dataclass(frozen=True)
class RandomModelSpec:
    """A model with random weights.

    Attributes:
        kind: A key of `KINDS`.
        seed: Decides the weights.
        backbone: UNet of a pipeline, a key of
            `clockwork_experiments.cost.architectures.BACKBONES`.
        clip: open_clip's name of a CLIP.
        file: Name of the weight file, for kinds that are one file.
        changes: What differs from the published configuration, by part: ``unet``,
            ``vae``, ``text_encoder``, ``structure_encoder``, ``vit``, ``controlnet``,
            ``clip``. For tests, which need small models.
    """

    kind: str
    seed: int = 0
    backbone: str = "sd"
    clip: str = "ViT-g-14"
    file: str = ""
    changes: dict[str, dict[str, object]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Reject unknown kinds, and a file name that is missing or not called for."""
        if self.kind not in KINDS:
            raise ValueError(f"kind {self.kind!r} is not one of {', '.join(KINDS)}")
        if (self.kind in FILES) != bool(self.file):
            raise ValueError(
                f"file {self.file!r}: kinds {', '.join(FILES)} name a file, others none"
            )


def make_random_model(spec: RandomModelSpec, folder: Path) -> int:
    """Write a model of random fp16 weights, its checksums and its card.

    Args:
        spec: What to make.
        folder: Where to; it is there and empty.

    Returns:
        The number of parameters.

    Raises:
        ValueError: If the backbone or the CLIP is unknown.
    """
    torch.manual_seed(spec.seed)
    parameters = KINDS[spec.kind](spec, folder)
    weights = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in (".safetensors", ".pth", ".bin")
    )
    lines = [
        f"{storage.sha256(w)}  {w.relative_to(folder).as_posix()}\n" for w in weights
    ]
    storage.write_text(folder / storage.CHECKSUMS, "".join(lines))
    storage.write_json(
        folder / marks.CARD,
        {
            marks.KEY: True,
            "what": "random weights in a published format; no score means anything",
            "kind": spec.kind,
            "seed": spec.seed,
            "parameters": parameters,
            "bytes": sum(path.stat().st_size for path in weights),
        },
    )
    return parameters


# --- a tokenizer ----------------------------------------------------------------------


def byte_symbols() -> list[str]:
    """Return the printable stand-ins of CLIP's byte-level BPE, one for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [
        chr(256 + place) for place in range(len(others))
    ]


def merges() -> Iterator[tuple[str, str]]:
    """Yield merges of letters: pairs, threes, fours, each within and at a word's end.

    Every merge joins what a byte or an earlier merge yields, as BPE needs.
    """
    for first, second in product(LETTERS, LETTERS):
        yield first, second
        yield first, second + END
    for pair, last in product(product(LETTERS, LETTERS), LETTERS):
        yield "".join(pair), last
        yield "".join(pair), last + END
    for one, other in product(product(LETTERS, LETTERS), product(LETTERS, LETTERS)):
        yield "".join(one), "".join(other)


def write_tokenizer(folder: Path) -> None:
    """Write a tokenizer in CLIP's format and size; its merges are no language's."""
    symbols = byte_symbols()
    joined = list(islice(merges(), VOCABULARY - 2 * len(symbols) - 2))
    tokens = [*symbols, *(symbol + END for symbol in symbols)]
    tokens += ["".join(pair) for pair in joined]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: number for number, token in enumerate(tokens)}
    storage.write_text(
        folder / "vocab.json", json.dumps(vocabulary, ensure_ascii=False)
    )
    lines = ["#version: 0.2", *(" ".join(pair) for pair in joined)]
    storage.write_text(folder / "merges.txt", "\n".join(lines) + "\n")
    special = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
    }
    storage.write_json(folder / "special_tokens_map.json", special)
    storage.write_json(
        folder / "tokenizer_config.json",
        {
            **special,
            "add_prefix_space": False,
            "do_lower_case": True,
            "model_max_length": CONTEXT,
            "tokenizer_class": "CLIPTokenizer",
        },
    )


# --- pipelines ------------------------------------------------------------------------


def _vae(changes: Mapping[str, Any], kind: type[Any] = AutoencoderKL) -> Any:
    return kind(**{**Architecture().autoencoder, **changes})


def _text_encoder(published: Mapping[str, Any], spec: RandomModelSpec) -> CLIPTextModel:
    changes = spec.changes.get("text_encoder", {})
    return CLIPTextModel(CLIPTextConfig(**{**published, **changes}))


def _unet(spec: RandomModelSpec, in_channels: int = 4) -> UNet2DConditionModel:
    base = {**architectures.SD_V15, **spec.changes.get("unet", {})}
    base["in_channels"] = in_channels
    return architectures.build_unet(spec.backbone, base, "cpu")


def _save(pipe: Any, folder: Path, *parts: nn.Module) -> int:
    """Save a pipeline in fp16, its tokenizer as published; return its parameters."""
    for part in parts:
        part.half()
    pipe.save_pretrained(folder)
    for file in (folder / "tokenizer").iterdir():
        file.unlink()
    write_tokenizer(folder / "tokenizer")
    return sum(p.numel() for part in parts for p in part.parameters())


def _tokenizer(folder: Path) -> CLIPTokenizer:
    write_tokenizer(folder / "tokenizer")
    return CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)


def _pipeline(spec: RandomModelSpec, folder: Path) -> int:
    edits = spec.kind == "instruct_pix2pix"
    kind = StableDiffusionInstructPix2PixPipeline if edits else StableDiffusionPipeline
    schedule: Any = (
        EulerAncestralDiscreteScheduler(**SCHEDULE)
        if edits
        else PNDMScheduler(**SCHEDULE, skip_prk_steps=True, set_alpha_to_one=False)
    )
    parts = (
        _vae(spec.changes.get("vae", {})),
        _text_encoder(TEXT, spec),
        _unet(spec, 8 if edits else 4),
    )
    pipe = kind(
        vae=parts[0],
        text_encoder=parts[1],
        tokenizer=_tokenizer(folder),
        unet=parts[2],
        scheduler=schedule,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return _save(pipe, folder, *parts)


def _stablesr(spec: RandomModelSpec, folder: Path) -> int:
    published = Architecture()
    parts = (
        SpadeUNet(**{**published.unet, **spec.changes.get("unet", {})}),
        StructureEncoder(
            **{
                **published.structure_encoder,
                **spec.changes.get("structure_encoder", {}),
            }
        ),
        _vae({**published.cfw, **spec.changes.get("vae", {})}, CFWAutoencoder),
        _text_encoder(published.text_encoder, spec),
    )
    pipe = StableSRPipeline(
        vae=parts[2],
        text_encoder=parts[3],
        tokenizer=_tokenizer(folder),
        unet=parts[0],
        structure_encoder=parts[1],
        scheduler=DDIMScheduler(**published.scheduler),
    )
    return _save(pipe, folder, *parts)


def _controlnet(spec: RandomModelSpec, folder: Path) -> int:
    # Its own connections start at zero, as the published training does.
    with torch.device("meta"):
        unet = _unet(spec)
        branch = ControlNetModel.from_unet(unet, load_weights_from_unet=False)
        config = {**branch.config, **spec.changes.get("controlnet", {})}
    branch = ControlNetModel.from_config(
        {key: value for key, value in config.items() if not key.startswith("_")}
    )
    branch.half().save_pretrained(folder)
    return sum(p.numel() for p in branch.parameters())


# --- networks that score --------------------------------------------------------------


def _clip(spec: RandomModelSpec, folder: Path) -> int:
    from safetensors.torch import save_file

    config = open_clip.get_model_config(spec.clip)
    if config is None:
        raise ValueError(f"clip {spec.clip!r} is no model of open_clip's")
    for part, change in spec.changes.get("clip", {}).items():
        known = config[part]
        config[part] = {**known, **change} if isinstance(change, dict) else change
    model = open_clip.CLIP(**config).half()
    size = config["vision_cfg"]["image_size"]
    described = {
        "model_cfg": config,
        "preprocess_cfg": {
            "size": size,
            "mean": list(open_clip.OPENAI_DATASET_MEAN),
            "std": list(open_clip.OPENAI_DATASET_STD),
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }
    storage.write_json(folder / "open_clip_config.json", described)
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, str(folder / "open_clip_model.safetensors"))
    return sum(p.numel() for p in model.parameters())


def _structure(spec: RandomModelSpec, folder: Path) -> int:
    config = ViTConfig(**{**DINO, **spec.changes.get("vit", {})})
    model = ViTModel(config, add_pooling_layer=False).half()
    model.save_pretrained(folder)
    mean, deviation = IMAGENET
    storage.write_json(
        folder / "preprocessor_config.json",
        {
            "do_normalize": True,
            "do_resize": True,
            "image_mean": mean,
            "image_std": deviation,
            "resample": 2,
            "size": config.image_size,
        },
    )
    return sum(p.numel() for p in model.parameters())


def _inception(spec: RandomModelSpec, folder: Path) -> int:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Untrained(FeatureExtractorInceptionV3):  # type: ignore[misc]
        """Keeps the weights that it is built with; the class always reads a file."""

        def load_state_dict(self, *_: Any, **__: Any) -> None:
            """Load nothing."""

    path = folder / spec.file
    torch.save({}, path)
    network = Untrained(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path)
    )
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            # PyTorch's own start loses an image's signal within so many layers.
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    torch.save(network.state_dict(), path)
    return sum(p.numel() for p in network.parameters())


def _alexnet(spec: RandomModelSpec, folder: Path) -> int:
    from torchvision.models import alexnet

    network = alexnet(weights=None)
    torch.save(network.state_dict(), folder / spec.file)
    return sum(p.numel() for p in network.parameters())


KINDS: dict[str, Callable[[RandomModelSpec, Path], int]] = {
    "pipeline": _pipeline,
    "instruct_pix2pix": _pipeline,
    "controlnet": _controlnet,
    "stablesr": _stablesr,
    "clip": _clip,
    "structure": _structure,
    "inception": _inception,
    "alexnet": _alexnet,
}
"""What makes a model, by kind. The first four are folders as diffusers saves them."""

FILES = ("inception", "alexnet")
"""Kinds whose weights are one file, in fp32 as published."""
