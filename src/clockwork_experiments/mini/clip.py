"""Train the mini CLIP: open_clip's model and loss on scenes and their captions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import nn
from torch.nn import functional
from transformers import CLIPTokenizer

from clockwork_experiments.base import storage
from clockwork_experiments.mini import scenes
from clockwork_experiments.mini.augment import disturb_mildly
from clockwork_experiments.mini.data import scene_images, to_unit
from clockwork_experiments.mini.teacher import build_tokenizer_of_world, tokenize
from clockwork_experiments.train.training import (
    Optimisation,
    Trained,
    fit,
    generator_for,
)

PHRASINGS = 4
"""Captions kept of each training scene; a step draws one."""


@dataclass(frozen=True)
class ClipSpec:
    """Data, sizes and recipe of the mini CLIP.

    Attributes:
        images: Number of training scenes.
        offset: First training scene, counted within its split.
        patch: Side of the image patches in pixels.
        width: Width of the image tower.
        layers: Layers of the image tower.
        text_width: Width of the text tower.
        text_layers: Layers of the text tower.
        embed_dim: Dimension of the common space.
        optimisation: The recipe.
    """

    images: int
    offset: int
    patch: int
    width: int
    layers: int
    text_width: int
    text_layers: int
    embed_dim: int
    optimisation: Optimisation


def model_config(spec: ClipSpec, tokenizer: CLIPTokenizer) -> dict[str, Any]:
    """Return the model configuration as open_clip writes it."""
    return {
        "embed_dim": spec.embed_dim,
        "vision_cfg": {
            "image_size": scenes.SIZE,
            "patch_size": spec.patch,
            "width": spec.width,
            "layers": spec.layers,
            "head_width": spec.width // 2,
        },
        "text_cfg": {
            # For a local folder open_clip reads the name only as "a Hugging Face
            # tokenizer", and takes the folder's own.
            "hf_tokenizer_name": "mini",
            "context_length": tokenizer.model_max_length,
            "vocab_size": len(tokenizer),
            "width": spec.text_width,
            "layers": spec.text_layers,
            "heads": 2,
        },
    }


def build(spec: ClipSpec, tokenizer: CLIPTokenizer) -> open_clip.CLIP:
    """Return an untrained CLIP."""
    torch.manual_seed(spec.optimisation.seed)
    return open_clip.CLIP(**model_config(spec, tokenizer))


def meaning(scene: scenes.Scene) -> tuple[str, ...]:
    """Return what every caption of a scene says; equal ones need the same image."""
    words = [scene.background]
    for item in scene.objects:
        words += [item.shape, item.colour, item.texture, item.size, item.position]
    return tuple(words)


def train(
    spec: ClipSpec, state: Path, device: torch.device
) -> tuple[Trained, CLIPTokenizer]:
    """Train on pairs of a scene and one of its captions.

    No two scenes of a batch mean the same: the loss would push apart a pair that
    belongs together.
    """
    tokenizer = build_tokenizer_of_world()
    images = scene_images("train", spec.images, spec.offset)
    drawn = [
        (seed, scenes.sample_scene(seed))
        for seed in scenes.split_seeds("train", spec.images, spec.offset)
    ]
    tokens = torch.stack(
        [
            tokenize(
                tokenizer, [scenes.caption(scene, seed + k) for seed, scene in drawn]
            )
            for k in range(PHRASINGS)
        ],
        dim=1,
    )
    numbers: dict[tuple[str, ...], int] = {}
    meanings = torch.tensor(
        [numbers.setdefault(meaning(scene), len(numbers)) for _, scene in drawn]
    )
    model = build(spec, tokenizer).to(device)
    contrast = open_clip.ClipLoss()

    def loss_of_step(step: int) -> torch.Tensor:
        generator = generator_for(spec.optimisation.seed, step)
        chosen = _distinct(meanings, spec.optimisation.batch_size, generator)
        count = len(chosen)
        phrasing = torch.randint(PHRASINGS, (count,), generator=generator)
        pixels = disturb_mildly(to_unit(images[chosen]), generator)
        seen, said, scale = model(
            pixels.to(device), tokens[chosen, phrasing].to(device)
        )
        # As in CLIP's paper: a temperature below 1/100 makes the training unstable.
        return contrast(seen, said, scale.clamp(max=100.0))

    trained = fit(model, loss_of_step, spec.optimisation, state, name="clip")
    return trained, tokenizer


def _distinct(
    meanings: torch.Tensor, count: int, generator: torch.Generator
) -> torch.Tensor:
    """Draw ``count`` indices at random such that no two have the same meaning."""
    drawn = torch.randint(len(meanings), (2 * count,), generator=generator)
    _, inverse = torch.unique(meanings[drawn], return_inverse=True)
    first = torch.full((int(inverse.max()) + 1,), len(drawn))
    first.scatter_reduce_(0, inverse, torch.arange(len(drawn)), "amin")
    return drawn[first.sort().values[:count]]


def save(
    model: nn.Module, spec: ClipSpec, tokenizer: CLIPTokenizer, folder: Path
) -> None:
    """Write a folder that open_clip loads as ``local-dir:``."""
    storage.write_tensors(
        folder / "open_clip_model.safetensors",
        {name: value.half().cpu() for name, value in model.state_dict().items()},
    )
    tokenizer.save_pretrained(folder)
    storage.write_json(
        folder / "open_clip_config.json",
        {
            "model_cfg": model_config(spec, tokenizer),
            "preprocess_cfg": {
                "size": scenes.SIZE,
                "mean": [0.5, 0.5, 0.5],
                "std": [0.5, 0.5, 0.5],
                "interpolation": "bicubic",
                "resize_mode": "shortest",
            },
        },
    )


@torch.inference_mode()
def measure(
    model: nn.Module, tokenizer: CLIPTokenizer, sets: int = 10
) -> dict[str, float]:
    """Measure a CLIP on validation scenes.

    Returns:
        Top-1 retrieval among 100 captions (images) of distinct meaning, mean over the
        sets; mean cosine of matching and of other pairs; and for each kind of edit,
        how often an image prefers its caption to the edited scene's.
    """
    assert isinstance(model, open_clip.CLIP)
    device = next(model.parameters()).device
    seeds = scenes.split_seeds("validation", 100 * sets)
    drawn = [scenes.sample_scene(seed) for seed in seeds]

    def said(captions: list[str]) -> torch.Tensor:
        parts = tokenize(tokenizer, captions).split(500)
        return torch.cat(
            [model.encode_text(part.to(device), normalize=True) for part in parts]
        )

    pixels = to_unit(scene_images("validation", 100 * sets))
    seen = torch.cat(
        [
            model.encode_image(part.to(device), normalize=True)
            for part in pixels.split(500)
        ]
    )
    true = said([scenes.caption(*pair) for pair in zip(drawn, seeds, strict=True)])
    matched = functional.cosine_similarity(seen, true)
    to_text, to_image, other = [], [], []
    for start in range(0, len(seeds), 100):
        keys = [meaning(scene) for scene in drawn[start : start + 100]]
        kept = [start + i for i, key in enumerate(keys) if key not in keys[:i]]
        cosines = seen[kept] @ true[kept].T
        target = torch.arange(len(kept), device=device)
        to_text.append((cosines.argmax(1) == target).float().mean())
        to_image.append((cosines.argmax(0) == target).float().mean())
        other.append((cosines.sum() - cosines.trace()) / (len(kept) * (len(kept) - 1)))
    quality = {
        "top-1, image to 100 captions": float(torch.stack(to_text).mean()),
        "top-1, caption to 100 images": float(torch.stack(to_image).mean()),
        "mean cosine, matching pairs": float(matched.mean()),
        "mean cosine, other pairs": float(torch.stack(other).mean()),
    }
    for kind in scenes.EDITS:
        edited = [
            scenes.caption(scenes.sample_edit(scene, seed, kind).scene, seed)
            for seed, scene in zip(seeds, drawn, strict=True)
        ]
        wrong = functional.cosine_similarity(seen, said(edited))
        quality[f"prefers its caption to one after {kind}"] = float(
            (matched > wrong).float().mean()
        )
    return quality
