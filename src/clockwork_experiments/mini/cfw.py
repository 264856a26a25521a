"""Train the mini StableSR's fuse blocks on what the rest of it restores.

As in the published recipe, the decoder's other layers stay as they are, and learn from
the model's own latents: those of the right answer would leave nothing to mend.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch.nn import functional
from tqdm import tqdm

from clockwork_diffusion.stablesr.cfw import CFWAutoencoder
from clockwork_diffusion.stablesr.pipeline import StableSRPipeline
from clockwork_experiments.generate.text import image_seed
from clockwork_experiments.generate.translate import TranslationSpec, Translator
from clockwork_experiments.train.training import (
    Optimisation,
    Trained,
    fit,
    generator_for,
)
from clockwork_experiments.world.data import to_unit
from clockwork_experiments.world.pairs import Pairs


@dataclass(frozen=True)
class FuseSpec:
    """Sizes, data and recipe of the fuse blocks.

    Attributes:
        blocks: Dense blocks in each.
        growth: Channels that their convolutions add.
        pairs: Number of training pairs, the first of the translator's own.
        steps: Sampling steps by which their latents are restored.
        optimisation: The recipe.
    """

    blocks: int
    growth: int
    pairs: int
    steps: int
    optimisation: Optimisation


def train(
    spec: FuseSpec,
    pipe: StableSRPipeline,
    pairs: Pairs,
    state: Path,
    work: str = "",
) -> Trained:
    """Train fuse blocks at fidelity weight 1.

    Args:
        spec: Sizes, data and recipe.
        pipe: The model; its autoencoder is left alone.
        pairs: Low-quality and right images, at least as many as are asked for.
        state: Where the resumable state lies.
        work: Says what else decides the outcome.

    Returns:
        The autoencoder with trained fuse blocks.
    """
    torch.manual_seed(spec.optimisation.seed)
    model = CFWAutoencoder.from_autoencoder(
        pipe.vae, fuse_blocks=spec.blocks, fuse_growth=spec.growth
    ).requires_grad_(False)
    model.fuse.requires_grad_(True)
    low, right = pairs.inputs[: spec.pairs], pairs.targets[: spec.pairs]

    @cache
    def latents() -> torch.Tensor:
        return restored(pipe, low, spec.steps) / pipe.vae.config.scaling_factor

    def loss(step: int) -> torch.Tensor:
        generator = generator_for(spec.optimisation.seed, step)
        count = (spec.optimisation.batch_size,)
        chosen = torch.randint(spec.pairs, count, generator=generator)
        with torch.no_grad():
            given = to_unit(low[chosen]).to(pipe.device)
            _, features = model.encode_with_features(given)
        decoded = model.decode_with_features(
            latents()[chosen].to(pipe.device), features, 1.0
        )
        target = to_unit(right[chosen]).to(pipe.device)
        return functional.l1_loss(decoded, target)

    return fit(model, loss, spec.optimisation, state, name="fuse blocks", work=work)


def restored(pipe: StableSRPipeline, low: torch.Tensor, steps: int) -> torch.Tensor:
    """Return the latents that a model restores from uint8 images, on the CPU."""
    translator = Translator("restoration", pipe)
    spec, parts = TranslationSpec("restoration", steps), []
    for start in tqdm(range(0, len(low), 64), desc="restoring", disable=None):
        rows = low[start : start + 64]
        seeds = [image_seed(9, start + row) for row in range(len(rows))]
        made = translator.translate(rows, [""] * len(rows), seeds, spec)
        parts.append(made.float().cpu())
    return torch.cat(parts)
