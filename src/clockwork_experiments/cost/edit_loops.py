"""The two loops of an edit on random inputs, to be timed and to be profiled.

One source image and one target prompt: inversion, and generation from what it keeps.
Text encoder and autoencoder stay out, as in the paper's latencies of editing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from clockwork_diffusion.clock import Clock
from clockwork_diffusion.encoding import Prompts
from clockwork_diffusion.passes import UNetPasses
from clockwork_diffusion.plug_and_play import loops
from clockwork_diffusion.plug_and_play.injection import FeatureStore, Injection
from clockwork_experiments.cost.latency import random_inputs

T = TypeVar("T")


@dataclass(frozen=True)
class InversionLoop(loops.InversionSpec):
    """An inversion, and what its light steps run.

    Attributes:
        adaptor: The adaptor; empty if there is none.
        cut: Where the UNet is split; empty: where the adaptor says.
    """

    adaptor: str = ""
    cut: str = ""


@dataclass(frozen=True)
class GenerationLoop(loops.GenerationSpec):
    """A generation, and what its light steps run.

    Attributes:
        adaptor: The adaptor; empty if there is none.
        cut: Where the UNet is split; empty: where the adaptor says.
        prompts: Target prompts that share kept activations; a time is always of one.
    """

    adaptor: str = ""
    cut: str = ""
    prompts: int = 1

    def __post_init__(self) -> None:
        """Reject values that make no generation."""
        super().__post_init__()
        if self.prompts < 1:
            raise ValueError(f"prompts {self.prompts} is less than 1")


class EditLoops:
    """Both loops of one edit of a random image towards a random prompt."""

    def __init__(
        self,
        inverting: UNetPasses,
        generating: UNetPasses,
        scheduler_config: object,
        inversion: loops.InversionSpec,
        generation: loops.GenerationSpec,
        tokens: int,
        text_channels: int,
    ) -> None:
        """Draw the inputs, and make sure that the loops can run.

        Args:
            inverting: The UNet's passes in the inversion.
            generating: Its passes in the generation.
            scheduler_config: Configuration of the model's own scheduler.
            inversion: How to invert.
            generation: How to generate.
            tokens: Length of a prompt.
            text_channels: Width of the pooled text embedding.

        Raises:
            ValueError: If a clock needs an adaptor, or inversion skips a timestep of
                generation.
        """
        inverting.check(Clock(inversion.clock))
        generating.check(Clock(generation.clock))
        loops.check_timesteps(
            loops.ddim_timesteps(scheduler_config, inversion.steps),
            loops.ddim_timesteps(scheduler_config, generation.steps),
        )
        self._inverting, self._generating = inverting, generating
        self._config = scheduler_config
        self._inversion, self._generation = inversion, generation
        given = random_inputs(generating.unet, 3, tokens, text_channels)
        self._x = given.x[:1]
        self._targets = Prompts(
            given.c[:1], given.c[1:2], given.pooled[:1], given.pooled[1:2]
        )
        self._prompts = loops.EditPrompts(self._targets, given.c[2:], given.pooled[2:])
        # Of a UNet without the layers, it says so.
        Injection(generating.unet, generation.conv_layer)

    def invert(self) -> loops.Inverted:
        """Run the inversion."""
        return loops.invert(
            self._inverting, self._config, self._x, self._targets, self._inversion
        )

    def extract(self, inverted: loops.Inverted) -> FeatureStore | None:
        """Compute the features that are kept for all target prompts, if any are."""
        if self._generation.features == "latents":
            return None
        return self._injected(loops.extract_features, inverted)

    def generate(
        self, inverted: loops.Inverted, features: FeatureStore | None
    ) -> torch.Tensor:
        """Run the generation, from what `invert` and `extract` returned."""
        return self._injected(loops.generate, inverted, features)

    def _injected(
        self, part: Callable[..., T], inverted: loops.Inverted, *more: object
    ) -> T:
        """Run a part of the generation, with its hooks on the UNet."""
        passes, spec = self._generating, self._generation
        with Injection(passes.unet, spec.conv_layer) as hooks:
            return part(
                passes, self._config, inverted, self._prompts, spec, hooks, *more
            )


def kept_bytes(inverted: loops.Inverted, features: FeatureStore | None) -> int:
    """Return the memory that an image's generations are given.

    Every latent of the inversion; or with kept features these, and the latent that
    generation starts from.
    """
    if features is None:
        return inverted.latents.nbytes
    return inverted.latents[:, -1].nbytes + features.nbytes
