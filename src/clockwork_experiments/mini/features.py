"""Train the feature network of the mini Fréchet distance.

Inception's features come from naming what photographs show. Those of this network come
from measuring what a scene shows (where, how large, which colour in numbers, which
shape, texture and ground) *and* how it is rendered (blur, noise, contrast, blocks):
a distance of distributions must notice lost detail as well as wrong contents. Neither
the network nor its task is the classifier's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from clockwork_experiments.mini import augment, scenes
from clockwork_experiments.mini.data import scene_images, to_unit
from clockwork_experiments.models.mini import FeatureNetwork
from clockwork_experiments.score.metrics import frechet_distance, statistics
from clockwork_experiments.train.training import (
    Optimisation,
    Trained,
    fit,
    generator_for,
)

_KINDS = (tuple(scenes.SHAPES), scenes.TEXTURES, tuple(scenes.BACKGROUNDS))
_MEASURES = 6  # centre x and y, radius, red, green, blue
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
        self.measures = nn.Linear(dim, _MEASURES + _RENDERING)
        self.kinds = nn.ModuleList(nn.Linear(dim, len(values)) for values in _KINDS)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        x = functional.silu(self.network.describe(pixels))
        return self.measures(x), [kind(x) for kind in self.kinds]


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
    images = scene_images("train", spec.images, spec.offset)
    measures, kinds = _targets(scenes.split_seeds("train", spec.images, spec.offset))
    model = _Measuring(build(spec)).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss_of_step(step: int) -> torch.Tensor:
        generator = generator_for(spec.optimisation.seed, step)
        count = spec.optimisation.batch_size
        chosen = torch.randint(spec.images, (count,), generator=generator)
        pixels, rendering = _disturb(to_unit(images[chosen]), generator)
        target = torch.cat([measures[chosen], rendering], dim=1).to(device)
        numbers, logits = model(pixels.to(device))
        losses = [functional.mse_loss(numbers, target)] + [
            0.1 * functional.cross_entropy(scores, kinds[chosen, i].to(device))
            for i, scores in enumerate(logits)
        ]
        return torch.stack(losses).sum()

    trained = fit(model, loss_of_step, spec.optimisation, state, name="features")
    assert isinstance(trained.module, _Measuring)
    network = trained.module.network
    _standardise(network, images[:4096])
    return Trained(network, trained.history, trained.seconds)


def _targets(seeds: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return measures ``(N, 6)``, each of about unit spread, and kinds ``(N, 3)``."""
    numbers, names = [], []
    for seed in seeds:
        scene = scenes.sample_scene(seed)
        (item,) = scene.objects
        x, y = scenes.POSITIONS[item.position]
        place = [(x + item.jitter[0] - 32) / 12, (y + item.jitter[1] - 32) / 12]
        radius = (scenes.SIZES[item.size] - 11.75) / 2.25
        colour = [(level - 128) / 80 for level in scenes.COLOURS[item.colour]]
        numbers.append([*place, radius, *colour])
        said = (item.shape, item.texture, scene.background)
        names.append(
            [values.index(word) for values, word in zip(_KINDS, said, strict=True)]
        )
    return torch.tensor(numbers), torch.tensor(names)


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
