"""Reuse deep features across steps at any skip connection: DeepCache, for comparison.

DeepCache (Ma et al. 2024) computes on most steps only what lies above one skip
connection, and takes what comes up from below from the last full step. Its *branch* k
is the k-th skip connection from the input: 0 is the first convolution's output, 1 and 2
are the two layers of DOWN-0, 3 is its downsampler, 4 is the first layer of DOWN-1, and
so on. The cached feature is what enters the layer of the up path that takes skip k::

    branch 0: the last layer of UP-3 runs, on the first convolution's output
    branch 2: all of DOWN-0 and UP-3 runs; the same images as Clockwork's identity
              adaptor at stage 1, and cheaper by DOWN-0's downsampler
    branch 3: DOWN-0, the last layer of UP-2 and its upsampler, and UP-3 run

Written on the same pieces as `clockwork_diffusion.unet`: no hooks, no state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from clockwork_diffusion.clock import Clock
from clockwork_diffusion.hook import Observer, Settings, put, take
from clockwork_diffusion.passes import Past
from clockwork_diffusion.scoped import scoped
from clockwork_diffusion.summary import Summary
from clockwork_diffusion.unet import (
    Conditions,
    SplitUNet,
    add_residuals,
    kept_level,
    level_count,
    run_down,
    run_middle,
    run_output,
    run_up,
    run_up_path,
    run_upsampler,
    take_residuals,
)


class Cached(NamedTuple):
    """What one pass yields.

    Attributes:
        eps: The UNet's output, ``(N, C, H, W)``.
        feature: What comes up from below the branch, and is reused.
    """

    eps: torch.Tensor
    feature: torch.Tensor


@dataclass(frozen=True)
class BranchUNet:
    """A UNet seen as what lies above and below one skip connection.

    Attributes:
        unet: The UNet; its modules are shared, never copied.
        branch: Which skip connection, from 0 at the input.
        block: Index of the up block that takes it.
        layer: Index of the layer within that block.

    Raises:
        ValueError: If the UNet has no such branch, or not Stable Diffusion's topology.
    """

    unet: UNet2DConditionModel
    branch: int
    block: int = field(init=False)
    layer: int = field(init=False)

    def __post_init__(self) -> None:
        """Find the branch in the up path."""
        SplitUNet(self.unet)  # checks the topology
        if kept_level(self.unet) < level_count(self.unet):
            raise ValueError(
                "branches are those of a whole UNet, and depth-skip has kept this one "
                f"to level {kept_level(self.unet)}"
            )
        places = [
            (block, layer)
            for block, module in enumerate(self.unet.up_blocks)
            for layer in range(len(module.resnets))
        ][::-1]
        if not 0 <= self.branch < len(places):
            raise ValueError(
                f"branch {self.branch} is not one of 0 to {len(places) - 1}"
            )
        block, layer = places[self.branch]
        object.__setattr__(self, "block", block)
        object.__setattr__(self, "layer", layer)

    def full(
        self,
        x: torch.Tensor,
        t: torch.Tensor | float,
        c: torch.Tensor,
        **kwargs: Any,
    ) -> Cached:
        """Run the whole UNet.

        Args:
            x: Noisy latents, ``(N, C, H, W)``.
            t: Timestep, a scalar or ``(N,)``.
            c: Text features, ``(N, L, D)``.
            **kwargs: The further arguments of diffusers' UNet.
        """
        unet = self.unet
        residuals, middle = take_residuals(kwargs)
        conditions = SplitUNet(unet).condition(x, t, c, **kwargs)
        hidden, skips = self._first(x)
        for block in unet.down_blocks:
            hidden, more = run_down(block, hidden, conditions)
            skips += more
        skips = add_residuals(skips, residuals)
        feature = run_middle(unet, hidden, conditions, middle)
        *below, block = list(unet.up_blocks)[: self.block + 1]
        if below:
            feature = run_up_path(below, feature, skips, conditions, through=True)
            skips = skips[: -sum(len(each.resnets) for each in below)]
        if self.layer:
            taken = skips[-len(block.resnets) :]
            feature = run_up(block, feature, taken, conditions, range(self.layer))
        eps = self._last(feature, skips[: self.branch + 1], conditions)
        return Cached(eps, feature)

    def reuse(
        self,
        x: torch.Tensor,
        t: torch.Tensor | float,
        c: torch.Tensor,
        feature: torch.Tensor,
        **kwargs: Any,
    ) -> Cached:
        """Run what lies above the branch, on what came up from below at another step.

        Args:
            x: Noisy latents, ``(N, C, H, W)``.
            t: Timestep, a scalar or ``(N,)``.
            c: Text features, ``(N, L, D)``.
            feature: ``feature`` of the last full pass.
            **kwargs: The further arguments of diffusers' UNet.
        """
        residuals, _ = take_residuals(kwargs)
        conditions = SplitUNet(self.unet).condition(x, t, c, **kwargs)
        hidden, skips = self._first(x)
        for block in self.unet.down_blocks:
            missing = self.branch + 1 - len(skips)
            if missing <= 0:
                break
            layers: Any = block.resnets
            if missing > len(layers):
                hidden, more = run_down(block, hidden, conditions)
            else:
                hidden, more = _run_layers(block, hidden, conditions, missing)
            skips += more
        skips = add_residuals(skips, residuals)
        return Cached(self._last(feature, skips, conditions), feature)

    def _first(self, x: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Run the first convolution."""
        if self.unet.config.center_input_sample:
            x = 2 * x - 1.0
        hidden: torch.Tensor = self.unet.conv_in(x)
        return hidden, (hidden,)

    def _last(
        self,
        feature: torch.Tensor,
        skips: tuple[torch.Tensor, ...],
        conditions: Conditions,
    ) -> torch.Tensor:
        """Run the up path from the branch on, and the output layers."""
        hidden, blocks = feature, list(self.unet.up_blocks)[self.block :]
        if self.layer:
            block, *blocks = blocks
            layers = range(self.layer, len(block.resnets))
            skips, taken = skips[: -len(layers)], skips[-len(layers) :]
            hidden = run_up(block, hidden, taken, conditions, layers)
            if blocks:
                hidden = run_upsampler(block, hidden, skips[-1])
        if blocks:
            hidden = run_up_path(blocks, hidden, skips, conditions)
        return run_output(self.unet, hidden)


class BranchPasses:
    """The two kinds of pass of a run that reuses a branch's features.

    Attributes:
        split: The UNet and its branch.
    """

    history = 1

    def __init__(self, split: BranchUNet) -> None:
        """Bind the passes."""
        self.split = split

    @property
    def unet(self) -> UNet2DConditionModel:
        """The UNet."""
        return self.split.unet

    def check(self, clock: Clock) -> None:
        """Refuse a clock without a full step.

        Raises:
            ValueError: If there would be nothing to reuse.
        """
        if clock.every_step:
            raise ValueError("every step needs an adaptor; a branch only reuses")

    def full(
        self, x: torch.Tensor, t: torch.Tensor, c: torch.Tensor, **kwargs: Any
    ) -> Cached:
        """Run the whole UNet."""
        return self.split.full(x, t, c, **kwargs)

    def light(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        c: torch.Tensor,
        past: Past,
        pooled: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Cached:
        """Run what lies above the branch."""
        return self.split.reuse(x, t, c, past.previous, **kwargs)

    def keep(self, step: Cached) -> torch.Tensor:
        """Return what the light pass reads of a pass."""
        return step.feature


def _run_layers(
    block: nn.Module, hidden: torch.Tensor, conditions: Conditions, count: int
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Run the first layers of a down block, without its downsampler."""
    resnets: Any = block.resnets
    attentions: Any = getattr(block, "attentions", None)
    skips: tuple[torch.Tensor, ...] = ()
    for index in range(count):
        hidden = resnets[index](hidden, conditions.temb)
        if attentions:
            hidden = attentions[index](
                hidden, return_dict=False, **conditions.attention_arguments()
            )[0]
        skips += (hidden,)
    return hidden, skips


# --- the door for pipelines -----------------------------------------------------------


@dataclass(frozen=True)
class _DeepCache:
    """Reuse what comes up from below a branch."""

    branch: int
    name: str = "DeepCache"

    def passes(self, unet: UNet2DConditionModel) -> BranchPasses:
        """Return the passes of a UNet."""
        return BranchPasses(BranchUNet(unet, self.branch))


def apply_deepcache(
    pipe: Any,
    clock: int | Clock = 2,
    *,
    branch: int = 0,
    timed: bool = False,
    observe: Observer | None = None,
) -> Summary:
    """Make a pipeline's UNet reuse what comes up from below a skip connection.

    Args:
        pipe: A diffusers pipeline with a ``unet``, or such a UNet.
        clock: Run the whole UNet once in so many steps, or a `Clock`.
        branch: The skip connection, from 0 at the input, which saves most.
        timed: Time the passes, for the summary.
        observe: Called after each pass with the sampling step's index from 0, the time
            step, and what the pass yielded: `Cached`.

    Returns:
        What the latest run has done, in a table where it is printed.

    Raises:
        ValueError: If a method is applied already, depth-skip is, or the clock or the
            branch is none.

    >>> import torch
    >>> from diffusers import StableDiffusionPipeline
    >>> mini = "resources/mini/stable-diffusion"
    >>> pipe = StableDiffusionPipeline.from_pretrained(mini, dtype=torch.float32)
    >>> summary = apply_deepcache(pipe, clock=4, branch=0)
    >>> image = pipe("a red ring on the sea", num_inference_steps=4).images[0]
    >>> summary.full_steps
    (1,)
    >>> remove_deepcache(pipe)
    """
    clock = clock if isinstance(clock, Clock) else Clock(clock)
    settings = Settings(
        _DeepCache(branch),
        clock,
        observe=observe,
        always=observe is not None,
        summary=Summary(f"DeepCache at branch {branch}, {clock}", timed=timed),
    )
    return put(pipe, settings)


def remove_deepcache(pipe: Any) -> None:
    """Take DeepCache off a pipeline's UNet; if it is not on, do nothing.

    >>> import torch
    >>> from diffusers import StableDiffusionPipeline
    >>> mini = "resources/mini/stable-diffusion"
    >>> pipe = StableDiffusionPipeline.from_pretrained(mini, dtype=torch.float32)
    >>> summary = apply_deepcache(pipe)
    >>> remove_deepcache(pipe)
    """
    take(pipe, _DeepCache)


deepcache = scoped(
    "deepcache",
    apply_deepcache,
    remove_deepcache,
    """Apply DeepCache within a block; see `apply_deepcache` for the arguments.

    >>> import torch
    >>> from diffusers import StableDiffusionPipeline
    >>> mini = "resources/mini/stable-diffusion"
    >>> pipe = StableDiffusionPipeline.from_pretrained(mini, dtype=torch.float32)
    >>> with deepcache(pipe, 2, branch=3) as summary:
    ...     image = pipe("a red ring on the sea", num_inference_steps=4).images[0]
    >>> summary.light_steps
    (2, 4)
    """,
)
