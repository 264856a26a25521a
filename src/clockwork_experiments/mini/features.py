"""Train the feature network of the mini Fréchet distance.

Inception's features come from naming what photographs show. Those of this network come
from measuring what a scene shows (where objects are, which kinds, colours, textures,
which ground, hour and light, and the palette in numbers) *and* how it is rendered
(blur, noise, contrast, blocks): a distance of distributions must notice lost detail as
well as wrong contents. Neither the network nor its task is the judge's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from clockwork_experiments.models.mini import FeatureNetwork
from clockwork_experiments.score.metrics import frechet_distance, statistics
from clockwork_experiments.train.training import (
    Optimisation,
    Trained,
    fit,
    generator_for,
)
from clockwork_experiments.world import augment, scenes
from clockwork_experiments.world.data import made_of, scene_images, to_unit

_THERE = {k: scenes.THING_VALUES[k] for k in ("kind", "colour", "texture")}
"""What an object of the scene may have."""
_WHOLE = scenes.SCENE_VALUES
_CELLS, _PALETTE = 8, 4
"""Sides of the grids on which cover and palette are measured."""
_RENDERING = 4  # blur, noise, contrast, share of blocks


@dataclass(frozen=True)
class FeaturesSpec:
    """Data, size and recipe of the mini feature network.

    Attributes:
        images: Number of training scenes.
        offset: First training scene, counted within its split.
        width: Channels of the first level.
        dim: Number of features.
        optimisation: The recipe.
    """

    images: int
    offset: int
    width: int
    dim: int
    optimisation: Optimisation


class _Measuring(nn.Module):
    """The feature network with the heads that only training needs."""

    def __init__(self, network: FeatureNetwork) -> None:
        super().__init__()
        self.network = network
        dim = network.last.out_features
        numbers = _CELLS**2 + 3 * _PALETTE**2 + _RENDERING
        self.numbers = nn.Linear(dim, numbers)
        self.there = nn.Linear(dim, sum(len(values) for values in _THERE.values()))
        self.whole = nn.ModuleList(
            nn.Linear(dim, len(values)) for values in _WHOLE.values()
        )

    def loss(
        self, pixels: torch.Tensor, rendering: torch.Tensor, true: _Targets
    ) -> torch.Tensor:
        """Return the loss of a batch of disturbed pixels, and how much they were."""
        x = functional.silu(self.network.describe(pixels))
        cover, palette, made = self.numbers(x).split(
            [_CELLS**2, 3 * _PALETTE**2, _RENDERING], 1
        )
        losses = [
            functional.mse_loss(cover, true.cover),
            functional.mse_loss(palette, true.palette),
            functional.mse_loss(made, rendering),
            functional.binary_cross_entropy_with_logits(self.there(x), true.there),
        ] + [
            0.1 * functional.cross_entropy(head(x), true.whole[:, index])
            for index, head in enumerate(self.whole)
        ]
        return torch.stack(losses).sum()


class _Targets(NamedTuple):
    """What scenes show.

    Attributes:
        cover: How much objects cover of each cell, of about unit spread, ``(N, 64)``.
        palette: Mean colours of 4×4 parts, likewise, ``(N, 48)``.
        there: 1 for each kind, colour and texture that is there, ``(N, 23)``.
        whole: Class numbers of ground, hour and light, ``(N, 3)``.
    """

    cover: torch.Tensor
    palette: torch.Tensor
    there: torch.Tensor
    whole: torch.Tensor


def build(spec: FeaturesSpec) -> FeatureNetwork:
    """Return an untrained feature network."""
    torch.manual_seed(spec.optimisation.seed)
    return FeatureNetwork(spec.width, spec.dim)


def train(spec: FeaturesSpec, state: Path, device: torch.device) -> Trained:
    """Train on scenes that are disturbed in known ways.

    Returns:
        The network without its heads; each feature has mean 0 and variance 1 over
        training scenes, which sets the scale of the distance.
    """
    seeds = scenes.split_seeds("train", spec.images, spec.offset)

    @cache
    def images() -> torch.Tensor:
        return scene_images("train", spec.images, spec.offset)

    @cache
    def targets() -> _Targets:
        return _targets(seeds, images())

    model = _Measuring(build(spec)).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss_of_step(step: int) -> torch.Tensor:
        generator = generator_for(spec.optimisation.seed, step)
        count = spec.optimisation.batch_size
        chosen = torch.randint(spec.images, (count,), generator=generator)
        pixels, rendering = _disturb(to_unit(images()[chosen]), generator)
        true = _Targets(*(part[chosen].to(device) for part in targets()))
        loss: torch.Tensor = model.loss(pixels.to(device), rendering.to(device), true)
        return loss

    trained = fit(model, loss_of_step, spec.optimisation, state, name="features")
    assert isinstance(trained.module, _Measuring)
    network = trained.module.network
    _standardise(network, images()[:4096])
    return Trained(network, trained.history, trained.seconds)


def _shown(seed: int) -> tuple[np.ndarray, list[float], list[int]]:
    scene = scenes.sample_scene(seed)
    side = scenes.SIZE // _CELLS
    mask = scenes.object_mask(scene).reshape(_CELLS, side, _CELLS, side)
    there = [
        float(any(getattr(thing, name) == value for thing in scene.things))
        for name, values in _THERE.items()
        for value in values
    ]
    whole = [values.index(getattr(scene, name)) for name, values in _WHOLE.items()]
    return mask.mean((1, 3)).flatten(), there, whole


def _targets(seeds: list[int], images: torch.Tensor) -> _Targets:
    cover, there, whole = zip(*made_of(_shown, seeds), strict=True)
    parts = [
        functional.avg_pool2d(to_unit(batch), scenes.SIZE // _PALETTE).flatten(1)
        for batch in images.split(1024)
    ]
    return _Targets(
        (torch.tensor(np.stack(cover)) - 0.2) / 0.3,
        torch.cat(parts) / 0.5,
        torch.tensor(there),
        torch.tensor(whole),
    )


def _disturb(
    pixels: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return disturbed images, and by how much, ``(N, 4)`` of about unit spread."""
    count = len(pixels)

    def amount() -> torch.Tensor:
        # A quarter of the images keeps its quality; small amounts are common.
        drawn = torch.rand(count, generator=generator)
        return (drawn - 0.25).clamp(min=0).square() / 0.5625

    blurred, noise, blocks = amount(), amount(), amount()
    flat = augment.uniform(count, -1, 1, generator)
    coarse = functional.interpolate(functional.avg_pool2d(pixels, 4), scale_factor=4)
    share = blocks.view(-1, 1, 1, 1)
    pixels = pixels * (1 - share) + coarse * share
    pixels = augment.blur(pixels, 3 * blurred)
    pixels = augment.relight(pixels, 1 + 0.3 * flat, torch.zeros(count))
    pixels = augment.add_noise(pixels, 0.5 * noise, generator)
    return pixels, torch.stack([3 * blurred, 3 * noise, flat, 3 * blocks], dim=1)


@torch.no_grad()
def _standardise(network: FeatureNetwork, images: torch.Tensor) -> None:
    device = network.last.weight.device
    parts = [network(batch.to(device)) for batch in images.split(256)]
    spread, mean = torch.std_mean(torch.cat(parts), dim=0)
    spread = spread.clamp(min=1e-4)
    network.last.weight.div_(spread[:, None])
    network.last.bias.sub_(mean).div_(spread)


@torch.inference_mode()
def measure(network: FeatureNetwork, count: int = 1000) -> dict[str, float]:
    """Return Fréchet distances between validation scenes and disturbed ones.

    The reference scenes and the disturbed ones are disjoint, so the first figure is
    the distance that sampling alone makes at this ``count``.
    """
    device = network.last.weight.device

    def stats(images: torch.Tensor) -> torch.Tensor:
        return torch.cat([network(part.to(device)) for part in images.split(256)])

    def to_bytes(pixels: torch.Tensor) -> torch.Tensor:
        return ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)

    reference = statistics(stats(scene_images("validation", count, count)))
    images = scene_images("validation", count)
    pixels = to_unit(images)

    def distance(disturbed: torch.Tensor) -> float:
        return frechet_distance(statistics(stats(disturbed)), reference)

    quality = {"undisturbed": distance(images)}
    for sigma in (0.5, 0.75, 1.0, 1.5, 2.0, 3.0):
        blurred = augment.blur(pixels, torch.full((count,), sigma))
        quality[f"blurred by {sigma} pixels"] = distance(to_bytes(blurred))
    for level in (4, 8, 16, 32, 64):
        noisy = augment.add_noise(
            pixels, torch.full((count,), level / 127.5), generator_for(0, level)
        )
        quality[f"noise of {level} levels"] = distance(to_bytes(noisy))
    return quality
