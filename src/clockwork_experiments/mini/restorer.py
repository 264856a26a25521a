"""Train the small restoration net, whose output high-frequency synthesis starts from.

It learns by squared error, as the deblurring nets of the paper's Section S5 do, so that
what blur took away for good is missing in its output.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional

from clockwork_experiments.models.mini import Restorer
from clockwork_experiments.score.metrics import psnr
from clockwork_experiments.train.training import (
    Optimisation,
    Trained,
    fit,
    generator_for,
)
from clockwork_experiments.world.data import to_unit
from clockwork_experiments.world.pairs import blurred_scenes


@dataclass(frozen=True)
class RestorerSpec:
    """Data, size and recipe of the restoration net.

    Attributes:
        images: Number of training scenes.
        offset: First training scene, counted within its split.
        width: Channels.
        layers: Convolutions between the first and the last.
        optimisation: The recipe.
    """

    images: int
    offset: int
    width: int
    layers: int
    optimisation: Optimisation


def build(spec: RestorerSpec) -> Restorer:
    """Return an untrained network."""
    torch.manual_seed(spec.optimisation.seed)
    return Restorer(spec.width, spec.layers)


def train(spec: RestorerSpec, state: Path, device: torch.device) -> Trained:
    """Train on blurred renderings."""
    soft, sharp = blurred_scenes("train", spec.images, spec.offset)
    model = build(spec).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss_of_step(step: int) -> torch.Tensor:
        generator = generator_for(spec.optimisation.seed, step)
        chosen = torch.randint(
            spec.images, (spec.optimisation.batch_size,), generator=generator
        )
        restored = model(to_unit(soft[chosen]).to(device))
        return functional.mse_loss(restored, to_unit(sharp[chosen]).to(device))

    return fit(model, loss_of_step, spec.optimisation, state, name="restorer")


@torch.inference_mode()
def restore(network: Restorer, images: torch.Tensor) -> torch.Tensor:
    """Restore uint8 images ``(N, 3, H, W)``."""
    device = next(network.parameters()).device
    parts = [network(to_unit(batch).to(device)).cpu() for batch in images.split(256)]
    return ((torch.cat(parts) + 1) * 127.5).round().clamp(0, 255).byte()


def measure(network: Restorer, count: int = 1000) -> dict[str, float]:
    """Return the mean PSNR in dB of blurred and of restored validation scenes."""
    soft, sharp = blurred_scenes("validation", count)
    return {
        "PSNR of blurred validation scenes, dB": float(psnr(soft, sharp).mean()),
        "PSNR of restored ones, dB": float(psnr(restore(network, soft), sharp).mean()),
    }
