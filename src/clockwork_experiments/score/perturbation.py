"""Perturb one layer's features from a sampling step on, and see what becomes of it.

The paper's perturbation analysis (Eq. 1; Figures 2 and S3–S7), from which it concludes
that the low-resolution features matter the less the later they are wrong::

    f ← μ_f + √α · (f − μ_f) + √(1 − α) · z,    z ~ N(0, σ_f²)

What the paper does not say, and what we chose:

- μ_f and σ_f² are of each sample and channel, over space: the noise spares a channel's
  mean and its spread. The alternative is one μ_f and σ_f² per sample, over everything;
  it would give quiet channels the noise of loud ones.
- f is replaced wherever it goes. A down block's output is also the last of its skips,
  and ``conv_in``'s output is the first skip of all; both users see the perturbed one.
  A block's inner skips stay as they are. The alternative leaves all skips clean.
- z is fresh at each step, and of an image's seed, the layer and the step alone. So it
  does not depend on the batch, and is the same for every α and start step.
- With guidance both branches of an image, empty and prompted, get the same z.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from torch import nn
from tqdm import tqdm

from clockwork_diffusion.encoding import Prompts, decode_pixels, to_bytes
from clockwork_experiments.generate.text import (
    SamplerSpec,
    generators,
    image_seed,
    sample,
)
from clockwork_experiments.score import metrics

ALIASES: dict[str, str] = {"bottleneck": "mid_block"}
"""The paper's names of layers that the UNet calls otherwise."""

MEASURES: dict[str, str] = {
    "image_distance": "L2 distance to the unperturbed image, values in [0, 1]",
    "latent_distance": "L2 distance to the unperturbed latents",
    "image_high_frequency": "share of the error image's spectral energy above half "
    "of Nyquist",
    "latent_high_frequency": "share of the latents' error's spectral energy above "
    "half of Nyquist",
}
"""What is measured of each image, and its meaning."""


@dataclass(frozen=True)
class PerturbationSpec:
    """Which perturbations to sample: every layer with every α from every start.

    Attributes:
        sampler: How to sample; always at clock 1.
        layers: Layers, one perturbed at a time; see `find_layer` for their names.
        alphas: Shares α of the features' variance that survive, from 0 to 1.
        starts: Indices from 0 of the steps at which the perturbation starts; it stays
            on to the end.
        seed: Seed of the run; decides the starting noise, and z.
        batch_size: Prompts per batch; has no influence on the images.
        kept: Images of so many first prompts are kept; the measures are of all.
    """

    sampler: SamplerSpec
    layers: tuple[str, ...]
    alphas: tuple[float, ...]
    starts: tuple[int, ...]
    seed: int
    batch_size: int
    kept: int

    def __post_init__(self) -> None:
        """Reject grids that cannot be sampled."""
        if self.sampler.clock != 1:
            raise ValueError(
                f"clock {self.sampler.clock}: the UNet runs in full at every step"
            )
        for name in ("layers", "alphas", "starts"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} {values} are none, or not all different")
        for alpha in self.alphas:
            _check_alpha(alpha)
        for start in self.starts:
            if not 0 <= start < self.sampler.steps:
                raise ValueError(
                    f"start {start} is not one of the {self.sampler.steps} steps, "
                    f"0 to {self.sampler.steps - 1}"
                )
        if self.batch_size < 1:
            raise ValueError(f"batch size {self.batch_size} is less than 1")
        if self.kept < 0:
            raise ValueError(f"kept {self.kept} is less than 0")


# --- one layer -----------------------------------------------------------------------


def perturb(features: torch.Tensor, alpha: float, z: torch.Tensor) -> torch.Tensor:
    """Mix features with noise of their own mean and variance (Eq. 1).

    Args:
        features: f, ``(N, C, H, W)``.
        alpha: Share α of the variance that survives; 1 returns f itself.
        z: Noise of unit variance, of f's shape; gets f's σ per sample and channel.

    Raises:
        ValueError: If α is not from 0 to 1.
    """
    _check_alpha(alpha)
    if alpha == 1:
        return features
    wide = features.float()
    variance, mean = torch.var_mean(wide, dim=(2, 3), correction=0, keepdim=True)
    kept = math.sqrt(alpha) * (wide - mean)
    return (mean + kept + math.sqrt(1 - alpha) * variance.sqrt() * z).to(features)


def feature_noise(
    seeds: Sequence[int], layer: str, step: int, shape: Sequence[int]
) -> torch.Tensor:
    """Draw each image's z on the CPU from its seed, the layer and the step.

    Args:
        seeds: The images' seeds, as `text.image_seed` makes them.
        layer: Path of the layer within the UNet.
        step: Index of the sampling step.
        shape: Of one image's features, ``(C, H, W)``.

    Returns:
        float32, unit variance, ``(len(seeds), *shape)``.
    """
    rows = []
    for seed in seeds:
        digest = hashlib.sha256(f"{seed}/{layer}/{step}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))
        rows.append(torch.randn(tuple(shape), generator=generator))
    return torch.stack(rows)


def layer_names(unet: UNet2DConditionModel) -> tuple[str, ...]:
    """Return the layers that the paper perturbs, in the order of their computation."""
    return (
        "conv_in",
        *(f"down_blocks.{index}" for index in range(len(unet.down_blocks))),
        "bottleneck",
        *(f"up_blocks.{index}" for index in range(len(unet.up_blocks))),
    )


def find_layer(unet: UNet2DConditionModel, layer: str) -> tuple[str, nn.Module]:
    """Return a layer's path within the UNet, and its module.

    Args:
        unet: The UNet.
        layer: One of `layer_names`, or the dotted path of any other module. The output
            of an up or down block is that of its sampler where it has one.

    Raises:
        ValueError: If there is no such layer.
    """
    path = ALIASES.get(layer, layer)
    try:
        module = unet.get_submodule(path)
    except AttributeError:
        module = unet
    # A list of modules is no layer: the UNet calls its items.
    if module is unet or isinstance(module, nn.ModuleList):
        raise ValueError(
            f"layer {layer!r} is not one of {', '.join(layer_names(unet))}, nor the "
            "dotted path of another layer of the UNet"
        )
    return path, module


@contextmanager
def perturbed(
    unet: UNet2DConditionModel,
    layer: str,
    alpha: float,
    seeds: Sequence[int],
    start: int = 0,
) -> Iterator[Callable[..., dict[str, Any]]]:
    """Perturb a layer's output in the UNet's passes within a block, from a step on.

    Leaves nothing behind: afterwards the UNet computes what it did before.

    Args:
        unet: The UNet, called as a whole. (`SplitUNet` calls the layers of an up block
            one by one, and so passes by the block's own output.)
        layer: See `find_layer`.
        alpha: α of Eq. 1.
        seeds: The images' seeds. A pass may have several rows per image, as guidance
            does: all images empty, then all prompted.
        start: Index of the first perturbed step.

    Yields:
        A pipeline's ``callback_on_step_end``, which tells that a step is over; the step
        decides z.

    Raises:
        ValueError: If there is no such layer, α is not from 0 to 1, or within the block
            no pass reached the layer, or its output is no ``(N, C, H, W)``.
    """
    path, module = find_layer(unet, layer)
    _check_alpha(alpha)
    reached, step = False, 0

    def replace(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        nonlocal reached
        reached = True
        features = output[0] if isinstance(output, tuple) else output
        if not isinstance(features, torch.Tensor) or features.ndim != 4:
            shape = tuple(getattr(features, "shape", ())) or type(features).__name__
            raise ValueError(f"layer {layer!r} yields {shape}, not (N, C, H, W)")
        copies, rest = divmod(len(features), len(seeds))
        if rest:
            raise ValueError(
                f"{len(seeds)} seeds do not fit a batch of {len(features)}"
            )
        if step < start:
            return output
        z = feature_noise(seeds, path, step, features.shape[1:]).to(features.device)
        new = perturb(features, alpha, z.repeat(copies, 1, 1, 1))
        return _replace(output, features, new)

    def on_step_end(
        _pipe: Any, index: int, _timestep: Any, given: dict[str, Any]
    ) -> dict[str, Any]:
        nonlocal step
        step = index + 1
        return given

    handle = module.register_forward_hook(replace)
    try:
        yield on_step_end
    finally:
        handle.remove()
    if not reached:
        raise ValueError(f"layer {layer!r} took no part in the UNet's pass")


def _replace(output: Any, old: torch.Tensor, new: torch.Tensor) -> Any:
    """Put a tensor in another's place wherever it occurs in a layer's output."""
    if isinstance(output, tuple):
        return tuple(_replace(item, old, new) for item in output)
    return new if output is old else output


def _check_alpha(alpha: float) -> None:
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha {alpha} is not from 0 to 1")


# --- the grid ------------------------------------------------------------------------


@torch.inference_mode()
def sample_grid(
    pipe: StableDiffusionPipeline, prompts: Prompts, spec: PerturbationSpec, first: int
) -> dict[str, torch.Tensor]:
    """Sample every perturbation of some prompts, and measure its distance to none.

    Args:
        pipe: The pipeline.
        prompts: Encoded prompts, N of them.
        spec: The grid of L layers, A alphas and S starts.
        first: Index of the first prompt within its set; decides seeds and kept images.

    Returns:
        Each of `MEASURES`, float64 ``(N, L, A, S)``, NaN where a share is undefined;
        and of the K prompts among these that are to be kept ``images``, uint8
        ``(K, L, A, S, 3, H, W)``, and ``unperturbed``, uint8 ``(K, 3, H, W)``; all on
        the CPU.

    Raises:
        ValueError: If there is no such layer.
    """
    unet, sampler = pipe.unet, spec.sampler
    for layer in spec.layers:
        find_layer(unet, layer)
    seeds = [image_seed(spec.seed, first + index) for index in range(len(prompts))]
    latents = sample(pipe, prompts, generators(seeds), sampler)
    # Not rounded: that is white noise, and would outweigh a small error at high
    # frequencies.
    pixels = decode_pixels(pipe, latents)
    kept = max(0, min(len(prompts), spec.kept - first))
    values: dict[str, list[torch.Tensor]] = {name: [] for name in MEASURES}
    shown = []
    cells = [
        (layer, alpha, start)
        for layer in spec.layers
        for alpha in spec.alphas
        for start in spec.starts
    ]
    for layer, alpha, start in tqdm(cells, desc="cells", leave=False, disable=None):
        with perturbed(unet, layer, alpha, seeds, start) as on_step_end:
            other = sample(pipe, prompts, generators(seeds), sampler, on_step_end)
        decoded = decode_pixels(pipe, other)
        for name, value in measure(decoded, pixels, other, latents).items():
            values[name].append(value)
        shown.append(to_bytes(decoded[:kept]))
    grid = (len(spec.layers), len(spec.alphas), len(spec.starts))
    return {
        **{
            name: torch.stack(parts, dim=1).view(-1, *grid)
            for name, parts in values.items()
        },
        "images": torch.stack(shown, dim=1).view(kept, *grid, *pixels.shape[1:]),
        "unperturbed": to_bytes(pixels[:kept]),
    }


def measure(
    images: torch.Tensor,
    unperturbed: torch.Tensor,
    latents: torch.Tensor,
    unperturbed_latents: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """Return each of `MEASURES`, one value per image, float64 ``(N,)`` on the CPU.

    Args:
        images: ``(N, 3, H, W)``, from 0 to 1.
        unperturbed: The same images without the perturbation.
        latents: ``(N, C, h, w)``.
        unperturbed_latents: The same latents without the perturbation.
    """
    error = (images.double() - unperturbed.double()).cpu()
    latent_error = (latents.double() - unperturbed_latents.double()).cpu()
    return {
        "image_distance": error.flatten(1).norm(dim=1),
        "latent_distance": latent_error.flatten(1).norm(dim=1),
        "image_high_frequency": high_frequency_share(error),
        "latent_high_frequency": high_frequency_share(latent_error),
    }


def high_frequency_share(error: torch.Tensor) -> torch.Tensor:
    """Return the share of spectral energy above half of Nyquist, ``(N,)``.

    That is, beyond 1/4 cycle per pixel in any direction, over all channels, the mean
    included in the whole. White noise has 1 − π/16 ≈ 0.80. An error of zero has no
    share: NaN.

    Args:
        error: ``(N, C, H, W)``.
    """
    energy = torch.fft.fft2(error.double()).abs().square().sum(dim=1)
    rows = torch.fft.fftfreq(error.shape[2], dtype=torch.float64)[:, None]
    columns = torch.fft.fftfreq(error.shape[3], dtype=torch.float64)[None, :]
    high = (rows.square() + columns.square() > 0.25**2).to(energy)
    return (energy * high).sum(dim=(1, 2)) / energy.sum(dim=(1, 2))


def summarise(
    tensors: dict[str, torch.Tensor], spec: PerturbationSpec
) -> dict[str, Any]:
    """Return a grid's measures as plain data: means over prompts and every value.

    Args:
        tensors: Of `sample_grid`, for any number of prompts.
        spec: The grid.
    """
    cells = [
        {
            "layer": layer,
            "alpha": alpha,
            "start": start,
            "scores": {name: _score(tensors[name][:, i, j, k]) for name in MEASURES},
            "values": {
                name: [None if math.isnan(v) else v for v in column.tolist()]
                for name in MEASURES
                for column in (tensors[name][:, i, j, k],)
            },
        }
        for i, layer in enumerate(spec.layers)
        for j, alpha in enumerate(spec.alphas)
        for k, start in enumerate(spec.starts)
    ]
    return {
        "n": len(tensors["image_distance"]),
        "layers": list(spec.layers),
        "alphas": list(spec.alphas),
        "starts": list(spec.starts),
        "measures": MEASURES,
        "cells": cells,
    }


def _score(values: torch.Tensor) -> dict[str, Any]:
    """Return the mean of what is defined; an interval needs two values."""
    defined = values[~values.isnan()]
    if len(defined) >= 2:
        return dataclasses.asdict(metrics.mean_score(defined))
    value = float(defined[0]) if len(defined) else None
    return {
        "value": value,
        "low": None,
        "high": None,
        "n": len(defined),
        "interval": "none, of fewer than 2 images",
        "note": "",
    }
