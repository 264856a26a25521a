"""Train the mini CLIP: open_clip's model and loss on scenes and their captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from torch import nn
from torch.nn import functional
from transformers import CLIPTokenizer

from clockwork_experiments.base import storage
from clockwork_experiments.mini.teacher import build_tokenizer_of_world, tokenize
from clockwork_experiments.train.training import (
    Optimisation,
    Trained,
    fit,
    generator_for,
)
from clockwork_experiments.world import captions, edits, judge, scenes
from clockwork_experiments.world.augment import disturb_mildly
from clockwork_experiments.world.data import scene_images, to_unit

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


def train(
    spec: ClipSpec, state: Path, device: torch.device
) -> tuple[Trained, CLIPTokenizer]:
    """Train on pairs of a scene and one of its captions.

    No two captions of a batch are the same words: the loss would push apart a pair
    that belongs together. Other captions may be true of other pictures too, as those
    of photographs are.
    """
    tokenizer = build_tokenizer_of_world()

    @cache
    def images() -> torch.Tensor:
        return scene_images("train", spec.images, spec.offset)

    @cache
    def said() -> tuple[torch.Tensor, torch.Tensor]:
        """Return tokens ``(N, PHRASINGS, L)`` and texts' numbers ``(N, PHRASINGS)``."""
        texts = [
            text
            for seed in scenes.split_seeds("train", spec.images, spec.offset)
            for text in captions.phrasings(seed, PHRASINGS)
        ]
        numbers: dict[str, int] = {}
        which = [numbers.setdefault(text, len(numbers)) for text in texts]
        tokens = tokenize(tokenizer, texts)
        return tokens.unflatten(0, (-1, PHRASINGS)), torch.tensor(which).unflatten(
            0, (-1, PHRASINGS)
        )

    model = build(spec, tokenizer).to(device)
    contrast = open_clip.ClipLoss()

    def loss_of_step(step: int) -> torch.Tensor:
        generator = generator_for(spec.optimisation.seed, step)
        tokens, texts = said()
        count = 2 * spec.optimisation.batch_size
        scene = torch.randint(spec.images, (count,), generator=generator)
        phrasing = torch.randint(PHRASINGS, (count,), generator=generator)
        kept = _distinct(texts[scene, phrasing])[: spec.optimisation.batch_size]
        scene, phrasing = scene[kept], phrasing[kept]
        pixels = disturb_mildly(to_unit(images()[scene]), generator)
        seen, read, scale = model(pixels.to(device), tokens[scene, phrasing].to(device))
        # As in CLIP's paper: a temperature below 1/100 makes the training unstable.
        return contrast(seen, read, scale.clamp(max=100.0))

    trained = fit(model, loss_of_step, spec.optimisation, state, name="clip")
    return trained, tokenizer


def _distinct(values: torch.Tensor) -> torch.Tensor:
    """Return where each value stands first, in order."""
    _, inverse = torch.unique(values, return_inverse=True)
    first = torch.full((int(inverse.max()) + 1,), len(values))
    first.scatter_reduce_(0, inverse, torch.arange(len(values)), "amin")
    return first.sort().values


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
        How often the nearest of 100 captions is true of an image, and the nearest of
        100 images shows what a caption says; mean cosine of matching and of other
        pairs; and for each kind of edit, how often an image prefers its prompt to the
        edited scene's.
    """
    assert isinstance(model, open_clip.CLIP)
    device = next(model.parameters()).device
    seeds = scenes.split_seeds("validation", 100 * sets)
    drawn = [scenes.sample_scene(seed) for seed in seeds]
    said = [captions.caption_of(s, seed) for s, seed in zip(drawn, seeds, strict=True)]
    shown = [judge.truth(scene) for scene in drawn]

    def read(texts: Sequence[str]) -> torch.Tensor:
        parts = tokenize(tokenizer, list(texts)).split(500)
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
    true = read([caption.text for caption in said])
    matched = functional.cosine_similarity(seen, true)
    to_text, to_image, other = [], [], []
    for start in range(0, len(seeds), 100):
        cosines = seen[start : start + 100] @ true[start : start + 100].T
        for row, best in enumerate(cosines.argmax(1).tolist()):
            to_text.append(_says(said[start + best], shown[start + row]))
        for row, best in enumerate(cosines.argmax(0).tolist()):
            to_image.append(_says(said[start + row], shown[start + best]))
        other.append((cosines.sum() - cosines.trace()) / (100 * 99))
    quality = {
        "nearest of 100 captions is true of the image": float(np.mean(to_text)),
        "nearest of 100 images shows the caption": float(np.mean(to_image)),
        "mean cosine, matching pairs": float(matched.mean()),
        "mean cosine, other pairs": float(torch.stack(other).mean()),
    }
    for kind in edits.EDITS:
        rows = [row for row, scene in enumerate(drawn) if edits.choices(scene, kind)]
        asked = [
            edits.prompts(
                drawn[row],
                [edits.sample_edit(drawn[row], seeds[row], kind)],
                seeds[row],
            )
            for row in rows
        ]
        right = functional.cosine_similarity(seen[rows], read([p for p, _ in asked]))
        wrong = functional.cosine_similarity(
            seen[rows], read([target for _, (target,) in asked])
        )
        quality[f"prefers its prompt to one after {kind}"] = float(
            (right > wrong).float().mean()
        )
    return quality


def _says(caption: captions.Caption, shown: judge.Seen) -> bool:
    return all(judge.as_captioned(caption, shown).values())
