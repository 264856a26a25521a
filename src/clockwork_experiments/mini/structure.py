"""Train the mini structure network: a small ViT whose patches know shape and place.

It stands for the DINO ViT whose keys measure whether an edit keeps an image's layout.
DINO's self-distillation encodes every image several times per step and needs many
steps; for the minutes of one CPU thread that this model may take, a stronger teacher
is at hand: the generator's masks. Each patch token predicts, pixel by pixel, where
objects and their outlines are, and which kind of object it is part of. Colours are
exchanged and rendering disturbed, so that appearance says as little as possible.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import ViTConfig, ViTModel

from clockwork_experiments.score.structure import keys, self_similarity
from clockwork_experiments.train.training import (
    Optimisation,
    Trained,
    fit,
    generator_for,
)
from clockwork_experiments.world import augment, edits, scenes, shapes
from clockwork_experiments.world.data import (
    Pixels,
    eight_bit,
    images_of,
    scene_images,
    stacked,
    to_unit,
)


@dataclass(frozen=True)
class StructureSpec:
    """Data, size and recipe of the mini structure network.

    Attributes:
        images: Number of training scenes.
        offset: First training scene, counted within its split.
        patch: Side of the patches in pixels.
        width: Width of the network.
        layers: Number of layers.
        heads: Attention heads.
        optimisation: The recipe.
    """

    images: int
    offset: int
    patch: int
    width: int
    layers: int
    heads: int
    optimisation: Optimisation


class _Parsing(nn.Module):
    """The ViT with the heads that only training needs."""

    def __init__(self, vit: ViTModel) -> None:
        super().__init__()
        self.vit = vit
        width, patch = vit.config.hidden_size, vit.config.patch_size
        self.pixels = nn.Linear(width, 2 * patch**2)
        self.kind = nn.Linear(width, len(shapes.KINDS))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits of mask and outline ``(N, P, 2p²)``, of kind ``(N, P, 12)``."""
        tokens = self.vit(images).last_hidden_state[:, 1:]
        return self.pixels(tokens), self.kind(tokens)


def build(spec: StructureSpec) -> ViTModel:
    """Return an untrained ViT."""
    torch.manual_seed(spec.optimisation.seed)
    return ViTModel(
        ViTConfig(
            image_size=scenes.SIZE,
            patch_size=spec.patch,
            hidden_size=spec.width,
            intermediate_size=4 * spec.width,
            num_hidden_layers=spec.layers,
            num_attention_heads=spec.heads,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            # The default, 0.02, fits a width of 768; this narrow network learns
            # nothing for hundreds of steps from there.
            initializer_range=spec.width**-0.5,
        ),
        add_pooling_layer=False,
    )


def train(spec: StructureSpec, state: Path, device: torch.device) -> Trained:
    """Train on scenes and their masks; the result's module is the bare `ViTModel`."""
    seeds = scenes.split_seeds("train", spec.images, spec.offset)

    @cache
    def images() -> torch.Tensor:
        return scene_images("train", spec.images, spec.offset)

    @cache
    def maps() -> torch.Tensor:
        return images_of(_maps, seeds)

    model = _Parsing(build(spec)).to(device)

    def patches(of: torch.Tensor) -> torch.Tensor:
        # (N, C, 64, 64) → (N, patches, C·p²), rows of patches first, as the ViT's.
        return functional.unfold(of, spec.patch, stride=spec.patch).transpose(1, 2)

    def loss_of_step(step: int) -> torch.Tensor:
        generator = generator_for(spec.optimisation.seed, step)
        count = spec.optimisation.batch_size
        chosen = torch.randint(spec.images, (count,), generator=generator)
        pixels = augment.disturb_mildly(
            _shuffle_colours(to_unit(images()[chosen]), generator), generator
        )
        drawn, named = model(pixels.to(device))
        target = patches(maps()[chosen, :2].float() / 255).to(device)
        shown = patches(maps()[chosen, 2:].float()).long().to(device)
        filled = functional.one_hot(shown, 1 + len(shapes.KINDS)).float().mean(2)
        share, kind = filled[..., 1:].max(-1)
        # A patch that objects fill by less than a twentieth has no kind to name.
        asked = share > 0.05
        return functional.binary_cross_entropy_with_logits(
            drawn, target
        ) + 0.2 * functional.cross_entropy(named[asked], kind[asked])

    trained = fit(model, loss_of_step, spec.optimisation, state, name="structure")
    assert isinstance(trained.module, _Parsing)
    return Trained(trained.module.vit, trained.history, trained.seconds)


def _maps(seed: int) -> Pixels:
    """Return a scene's mask, outlines and kinds, uint8, ``(64, 64, 3)``."""
    scene = scenes.sample_scene(seed)
    both = [eight_bit(draw(scene)) for draw in (scenes.object_mask, scenes.edge_map)]
    return np.stack([*both, scenes.kind_map(scene)], -1)


def _shuffle_colours(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Exchange the colour channels of each image at random, and mix them somewhat.

    The rows of the mixing sum to 1, so grey stays grey and contrast is kept.
    """
    count = len(images)
    order = torch.rand(count, 3, generator=generator).argsort(dim=1)
    share = 0.5 * torch.rand(count, 1, 1, generator=generator)
    mixing = (1 - share) * torch.eye(3)[order] + share / 3
    return torch.einsum("nij,njhw->nihw", mixing, images)


def measure(vit: ViTModel, count: int = 500) -> dict[str, float]:
    """Return the mean structure distance that each kind of edit makes.

    The distance is the mean squared difference of the self-similarities. Recolouring,
    retexturing, a new ground, hour or light keep the layout; a new kind, size or place
    does not. ``same scene, disturbed`` blurs and relights only. The last figure is how
    often a layout-changing edit is farther from its scene than a layout-keeping one.
    """
    seeds = scenes.split_seeds("validation", count)
    drawn = [scenes.sample_scene(seed) for seed in seeds]
    device = vit.device

    def described(pixels: torch.Tensor) -> torch.Tensor:
        parts = pixels.split(128)
        return torch.cat(
            [self_similarity(keys(vit, part.to(device))) for part in parts]
        )

    def rendered(those: list[scenes.Scene]) -> torch.Tensor:
        return to_unit(stacked([eight_bit(scenes.render(scene)) for scene in those]))

    pixels = rendered(drawn)
    original = described(pixels)

    def distance(changed: torch.Tensor, rows: list[int]) -> torch.Tensor:
        difference = described(changed) - original[rows]
        return difference.square().mean(dim=(1, 2)).cpu()

    distances = {}
    for kind in edits.EDITS:
        rows = [row for row, scene in enumerate(drawn) if edits.choices(scene, kind)]
        changed = [edits.sample_edit(drawn[row], seeds[row], kind) for row in rows]
        distances[kind] = distance(rendered([edit.scene for edit in changed]), rows)
    quality = {
        f"structure distance, {kind}": float(values.mean())
        for kind, values in distances.items()
    }
    disturbed = augment.disturb_mildly(pixels, generator_for(0))
    quality["structure distance, same scene, disturbed"] = float(
        distance(disturbed, list(range(count))).mean()
    )
    kept = torch.cat([distances[kind] for kind in edits.KEEP_LAYOUT])
    lost = torch.cat([distances[kind] for kind in ("reshape", "move")])
    quality["layout-changing edit ranks above layout-keeping (AUC)"] = float(
        (lost[:, None] > kept[None, :]).float().mean()
    )
    return quality
