"""T-GATE: from one step on, cross-attention is not computed again.

Zhang, Liu, Xie, Faccio, Shou and Schmidhuber, "Cross-Attention Makes Inference
Cumbersome in Text-to-Image Diffusion Models", arXiv 2404.02747, 2024. Up to the gate
step all is as ever. From then on each cross-attention layer yields what it yielded at
that step, the mean of the text's and of the empty text's, and there is one branch
without guidance in place of two. This is the method as first published; later versions
of its code also reuse self-attention, at intervals.

A gate is a clock: full steps, then light ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from diffusers import UNet2DConditionModel

from clockwork_diffusion.clock import Clock
from clockwork_diffusion.hook import Settings, put, take
from clockwork_diffusion.passes import Past
from clockwork_diffusion.scoped import scoped
from clockwork_diffusion.summary import Summary
from clockwork_experiments.rivals.attention import (
    Attend,
    attending,
    transformer_blocks,
    whole,
)


class Gated(NamedTuple):
    """What a pass yields: the UNet's output, and its cross-attention's in a row."""

    eps: torch.Tensor
    crossed: torch.Tensor


class GatePasses:
    """Passes that compute cross-attention, and passes that repeat it.

    Attributes:
        unet: The UNet.
    """

    history = 1

    def __init__(self, unet: UNet2DConditionModel, guided: bool) -> None:
        """Find the cross-attention layers.

        Args:
            unet: The UNet.
            guided: Whether the two halves of a batch are the two branches of guidance.
        """
        self.unet, self._guided = unet, guided
        self._layers = [block.attn2 for block in transformer_blocks(unet)]

    def check(self, clock: Clock) -> None:
        """Refuse a clock without a full step."""
        if clock.every_step:
            raise ValueError("a gate needs a step before it")

    def full(
        self, x: torch.Tensor, t: torch.Tensor, c: torch.Tensor, **kwargs: Any
    ) -> Gated:
        """Run the whole UNet, and note what its cross-attention yields."""
        crossed: list[torch.Tensor] = []

        def noting(own: Attend) -> Attend:
            def attend(*args: Any, **given: Any) -> torch.Tensor:
                found = own(*args, **given)
                crossed.append(found)
                return found

            return attend

        given = [(layer, noting(layer.processor)) for layer in self._layers]
        with attending(given):
            eps = whole(self.unet, x, t, c, kwargs)
        return Gated(eps, torch.cat([each.flatten(1) for each in crossed], dim=1))

    def light(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        c: torch.Tensor,
        past: Past,
        pooled: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Gated:
        """Run the UNet on what its cross-attention yielded at the gate."""
        kept: torch.Tensor = past.previous
        if self._guided:
            # Both branches would be the same; half of them is run.
            half = len(x) // 2
            kept = (kept[:half] + kept[half:]) / 2
            x, c = x[half:], c[half:]
            kwargs = {name: _half(each, half) for name, each in kwargs.items()}
        place = 0

        def repeating(_: Any, hidden: torch.Tensor, *args: Any, **given: Any) -> Any:
            nonlocal place
            size = hidden[0].numel()
            found = kept[:, place : place + size].reshape(hidden.shape)
            place += size
            return found

        with attending([(layer, repeating) for layer in self._layers]):
            eps = whole(self.unet, x, t, c, kwargs)
        if self._guided:
            eps = torch.cat([eps, eps])
        return Gated(eps, past.previous)

    def keep(self, step: Gated) -> torch.Tensor:
        """Return what the light pass reads of a pass."""
        return step.crossed


def _half(given: Any, half: int) -> Any:
    """Return the second branch's rows of a further argument."""
    if isinstance(given, dict):
        return {name: _half(each, half) for name, each in given.items()}
    if isinstance(given, list | tuple):
        return type(given)(_half(each, half) for each in given)
    if isinstance(given, torch.Tensor) and given.ndim and len(given) == 2 * half:
        return given[half:]
    return given


@dataclass(frozen=True)
class _TGate:
    """Freeze cross-attention at a step."""

    guided: bool
    name: str = "T-GATE"

    def passes(self, unet: UNet2DConditionModel) -> GatePasses:
        """Return the passes of a UNet."""
        return GatePasses(unet, self.guided)


def apply_tgate(
    pipe: Any, *, steps: int, gate: int, guided: bool = True, timed: bool = False
) -> Summary:
    """Freeze a pipeline's cross-attention after so many steps.

    Args:
        pipe: A diffusers pipeline with a ``unet``, or such a UNet.
        steps: Number of sampling steps.
        gate: m: how many of them, the first, compute cross-attention.
        guided: Whether the pipeline runs both branches of guidance in one batch, as it
            does with a guidance scale above 1.
        timed: Time the passes, for the summary.

    Returns:
        What the latest run has done.

    Raises:
        ValueError: If a method is applied already, or the gate is not among the steps.
    """
    if not 1 <= gate <= steps:
        raise ValueError(f"gate {gate} is not between 1 and the {steps} steps")
    clock = Clock(mask="1" * gate + "0" * (steps - gate))
    summary = Summary(f"T-GATE after step {gate}", timed=timed)
    return put(pipe, Settings(_TGate(guided), clock, summary=summary))


def remove_tgate(pipe: Any) -> None:
    """Take T-GATE off a pipeline's UNet; if it is not on, do nothing."""
    take(pipe, _TGate)


tgate = scoped(
    "tgate",
    apply_tgate,
    remove_tgate,
    """Apply T-GATE within a block; see `apply_tgate` for the arguments.""",
)
