"""Schedulers of diffusers that visit given time steps, such as those of γ.

`at_timesteps` is for pipelines of one's own::

    pipe.scheduler = at_timesteps(pipe.scheduler, gamma_timesteps(10, 1 / 1.8))
    image = pipe("make it autumn", image=photo, num_inference_steps=10).images[0]

The last step always yields the clean image predicted at the last timestep, whatever
that is; no further step leads to timestep 0 (Kim et al. 2024, official code).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
)
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from clockwork_diffusion.translation import check_timesteps


class _AtTimesteps:
    """What the schedulers below share: they know no timesteps but the chosen ones."""

    chosen: tuple[int, ...]

    def check_count(self, number: int | None) -> None:
        """Refuse another number of steps than was chosen.

        Raises:
            ValueError: In one line.
        """
        if number not in (None, len(self.chosen)):
            raise ValueError(
                f"num_inference_steps is {number}, and {len(self.chosen)} time steps "
                "are chosen"
            )

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        """Take up the chosen time steps anew."""
        self.check_count(num_inference_steps)
        super().set_timesteps(  # type: ignore[misc]
            timesteps=list(self.chosen), device=device
        )


class DPMSolverAtTimesteps(_AtTimesteps, DPMSolverMultistepScheduler):  # type: ignore[misc]
    """DPM-Solver++ at chosen time steps; of first order it is DDIM with η = 0."""


class EulerAtTimesteps(_AtTimesteps, EulerDiscreteScheduler):  # type: ignore[misc]
    """Euler's method at chosen time steps."""


class PNDMAtTimesteps(_AtTimesteps, PNDMScheduler):  # type: ignore[misc]
    """PLMS at chosen time steps; as always, it visits the second of them twice.

    Its multistep weights are those of even steps: a poor choice for others.
    """

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        """Take up the chosen time steps anew."""
        self.check_count(num_inference_steps)
        # The scheduler's own, which takes a number of steps alone.
        super(_AtTimesteps, self).set_timesteps(len(self.chosen), device=device)
        first, *others = self.chosen
        self.plms_timesteps = [first, *others[:1], *others]
        self.timesteps = torch.tensor(self.plms_timesteps, device=device)

    def _get_prev_sample(
        self,
        sample: torch.Tensor,
        timestep: int,
        prev_timestep: int,
        model_output: torch.Tensor,
    ) -> torch.Tensor:
        """Step to the next chosen timestep; the base would go an even step on."""
        # The second call is the first step again, with a better slope.
        index = max(0, self.counter - 1) if len(self.chosen) > 1 else 0
        ends = (*self.chosen, -1)
        found: torch.Tensor = super()._get_prev_sample(
            sample, ends[index], ends[index + 1], model_output
        )
        return found


_OWN_TIMESTEPS = {
    f"use_{name}_sigmas": False for name in ("karras", "exponential", "beta", "lu")
}
"""Options by which schedulers choose timesteps themselves."""

_LAST_IS_CLEAN: dict[str, Any] = {"final_sigmas_type": "zero", **_OWN_TIMESTEPS}


def at_timesteps(scheduler: SchedulerMixin, timesteps: Sequence[int]) -> SchedulerMixin:
    """Return a scheduler of the same kind and noise schedule that visits given steps.

    DDIM becomes DPM-Solver++ of first order, which is the same for η = 0. The scheduler
    is for use, not for `save_pretrained`, which keeps no time steps.

    Args:
        scheduler: Of diffusers: DDIM, DPM-Solver++ multistep, PNDM (PLMS, as Stable
            Diffusion has it) or Euler; not changed.
        timesteps: The time steps, descending, within what the model was trained with.

    Raises:
        ValueError: If it is another scheduler, or the timesteps do not descend or are
            not the model's.
    """
    kinds: dict[type, tuple[type, dict[str, Any]]] = {
        DDIMScheduler: (DPMSolverAtTimesteps, {"solver_order": 1, **_LAST_IS_CLEAN}),
        DPMSolverMultistepScheduler: (DPMSolverAtTimesteps, _LAST_IS_CLEAN),
        EulerDiscreteScheduler: (EulerAtTimesteps, _LAST_IS_CLEAN),
        PNDMScheduler: (
            PNDMAtTimesteps,
            {"skip_prk_steps": True, "set_alpha_to_one": True},
        ),
    }
    known = [kind for kind in kinds if isinstance(scheduler, kind)]
    if not known:
        raise ValueError(
            f"{type(scheduler).__name__} takes no time steps of one's own; those that "
            f"do are {', '.join(kind.__name__ for kind in kinds)}"
        )
    if not timesteps:
        raise ValueError("there are no timesteps")
    check_timesteps(timesteps, scheduler.config.num_train_timesteps)
    made, options = kinds[known[0]]
    found: Any = made.from_config(scheduler.config, **options)  # type: ignore[attr-defined]
    found.chosen = tuple(int(each) for each in timesteps)
    found.set_timesteps()
    return found
