"""Sample with a level for each step: the UNet is cut anew at every one of them.

All depths share the full UNet's modules, so that they take no more memory together than
the deepest one does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from clockwork_diffusion.clock import Clock
from clockwork_diffusion.contract import ages_of
from clockwork_diffusion.depth_skip import depth_skip
from clockwork_diffusion.passes import Passes, Past, UNetPasses, WholePasses
from clockwork_diffusion.unet import SplitUNet


class LevelPasses:
    """Passes of a UNet that ends at another level at each timestep.

    With an adaptor, a clock is composed with the levels: on a light step nothing below
    the adaptor's cut runs, whatever that step's level, so that a level counts on full
    steps alone. Every level must then reach below the cut, which takes level 4 or
    deeper at ``stage1``. Levels above that run without a clock only.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        schedule: Sequence[int],
        timesteps: Sequence[int],
        adaptor: Any = None,
    ) -> None:
        """Cut the UNet at all levels of a schedule.

        Args:
            unet: The full UNet; not changed.
            schedule: A level per sampling step, the first step first.
            timesteps: The steps' timesteps, by which a pass knows its level.
            adaptor: φ, or None if every step is full.

        Raises:
            ValueError: If there is no step, or not a level per timestep; or as
                `clockwork_diffusion.depth_skip.depth_skip` and
                `clockwork_diffusion.unet.SplitUNet`.
        """
        if not schedule:
            raise ValueError("there are no steps to give levels to")
        if len(schedule) != len(timesteps):
            raise ValueError(
                f"{len(schedule)} levels are not {len(timesteps)} timesteps"
            )
        self._passes: dict[int, UNetPasses] = {
            level: self._of(depth_skip(unet, level), adaptor)
            for level in sorted(set(schedule), reverse=True)
        }
        self._deepest = self._passes[max(schedule)]
        self._at = {
            int(timestep): self._passes[level]
            for timestep, level in zip(timesteps, schedule, strict=True)
        }
        if len(self._at) != len(timesteps):
            raise ValueError("a timestep comes twice, and a level cannot be told by it")

    @staticmethod
    def _of(unet: UNet2DConditionModel, adaptor: Any) -> UNetPasses:
        if adaptor is None:
            return WholePasses(unet)
        return Passes(SplitUNet(unet, adaptor.config.cut), adaptor)

    @property
    def unet(self) -> UNet2DConditionModel:
        """The UNet down to the deepest level used: what has to be in memory."""
        return self._deepest.unet

    @property
    def history(self) -> int:
        """How many full steps the light pass looks back on."""
        return self._deepest.history

    @property
    def ages_in(self) -> str | None:
        """In what it is told their ages, if it is."""
        return ages_of(self._deepest)

    def match(self, dtype: torch.dtype, device: torch.device) -> None:
        """Bring the adaptor to where the UNet is now, and to its precision."""
        for passes in self._passes.values():
            if isinstance(passes, Passes):
                passes.match(dtype, device)

    def check(self, clock: Clock) -> None:
        """Refuse clocks without an adaptor."""
        self._deepest.check(clock)

    def full(
        self, x: torch.Tensor, t: torch.Tensor, c: torch.Tensor, **kwargs: Any
    ) -> Any:
        """Run the UNet down to the step's level."""
        return self._now(t).full(x, t, c, **kwargs)

    def light(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        c: torch.Tensor,
        past: Past,
        pooled: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run ε_H and the adaptor; the same at every level."""
        return self._now(t).light(x, t, c, past, pooled, **kwargs)

    def keep(self, step: Any) -> torch.Tensor | None:
        """Return what the light pass reads of a pass."""
        return self._deepest.keep(step)

    def _now(self, t: torch.Tensor) -> UNetPasses:
        passes = self._at.get(int(t))
        if passes is None:
            raise ValueError(f"timestep {int(t)} has no level")
        return passes
