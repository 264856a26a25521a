"""Schedulers with a model's own noise schedule, also at time steps that one chooses.

`at_timesteps` is for pipelines of one's own::

    with at_timesteps(pipe, gamma_timesteps(10, 1 / 1.8)):
        image = pipe("make it autumn", image=photo, num_inference_steps=10).images[0]

The last step always yields the clean image predicted at the last timestep, whatever
that is; no further step leads to timestep 0 (Kim et al. 2024, official code).
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from typing import Any

import diffusers
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    SchedulerMixin,
)

from clockwork_diffusion.scoped import scoped
from clockwork_diffusion.timesteps import check_timesteps

SCHEDULERS: dict[str, type[SchedulerMixin]] = {
    "dpmpp": DPMSolverMultistepScheduler,
    "dpm": DPMSolverMultistepScheduler,
    "pndm": PNDMScheduler,
    "ddim": DDIMScheduler,
    "heun": HeunDiscreteScheduler,
}
"""Samplers: those of Table S1, and Heun's method, which calls the UNet twice a step.

"DPM" is DPM-Solver (Lu et al. 2022), which integrates the predicted noise, where
DPM-Solver++ integrates the predicted image. Table S1 does not say which of its solvers.
We take the multistep one of second order: like all samplers of Table S1 it costs one
UNet call per step, and it differs from our DPM++ in what it integrates and in nothing
else, so that the two come out alike, as printed (24.32 and 24.22). The single-step
solver spends every second call on a midpoint; 8 calls are 4 steps of it, at three times
the error on the mini model.
"""


_ALWAYS: dict[str, dict[str, Any]] = {
    "dpmpp": {"algorithm_type": "dpmsolver++"},
    # Its noise prediction has no limit at σ = 0.
    "dpm": {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"},
    # As SD v1.5 ships; with Runge-Kutta steps it has nine more calls.
    "pndm": {"skip_prk_steps": True},
}


_OF_ANOTHER: dict[str, dict[str, Any]] = {
    "pndm": {"timestep_spacing": "leading", "set_alpha_to_one": False},
    # Latents are not bounded by 1, and SD's schedule has no α = 1.
    "ddim": {
        "timestep_spacing": "leading",
        "set_alpha_to_one": False,
        "clip_sample": False,
    },
}
"""Options that a model's own scheduler lacks if it is of another kind; as SD v1.5's."""


_OF_THE_MODEL = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "steps_offset",
)
"""What the model was trained with, whatever samples from it."""


def scheduler_class(kind: str) -> type[SchedulerMixin]:
    """Return a scheduler's class.

    Args:
        kind: A key of `SCHEDULERS`, or a class of diffusers by its name.

    Raises:
        ValueError: If it is neither.
    """
    found: Any = SCHEDULERS.get(kind) or getattr(diffusers, kind, None)
    if not (isinstance(found, type) and issubclass(found, SchedulerMixin)):
        raise ValueError(
            f"scheduler {kind!r} is not one of {', '.join(SCHEDULERS)}, nor the class "
            "of a scheduler of diffusers"
        )
    return found


def new_scheduler(kind: str, config: object, steps: int) -> SchedulerMixin:
    """Return a scheduler with a model's noise schedule, set to a number of steps.

    What the model was trained with stays: betas, prediction type, steps offset. Its
    timestep spacing stays if its own scheduler is of the same kind, or spaces
    ``trailing``, which a model trained to zero signal needs. Else it is ``leading`` for
    DDIM and PNDM, whose update goes down by 1000 div steps whatever the next timestep
    is, and ``linspace`` for the others, which step between any two.

    Args:
        kind: A key of `SCHEDULERS`, or a class of diffusers by its name.
        config: Configuration of the model's own scheduler.
        steps: Number of sampling steps.

    Raises:
        ValueError: If the kind is unknown, or lacks the model's noise schedule.
    """
    made, own = scheduler_class(kind), dict(config)  # type: ignore[call-overload]
    # A class that has a name here is made as that.
    named = (key for key, each in SCHEDULERS.items() if each.__name__ == kind)
    kind = next(named, kind)
    taken = inspect.signature(made).parameters
    predicted = own.get("prediction_type", "epsilon")
    if "beta_start" not in taken or (
        predicted != "epsilon" and "prediction_type" not in taken
    ):
        raise ValueError(
            f"scheduler {kind!r} does not take the model's noise schedule, or not what "
            f"the model predicts, {predicted}"
        )
    if own.get("rescale_betas_zero_snr") and "rescale_betas_zero_snr" not in taken:
        raise ValueError(
            f"scheduler {kind!r} has no zero terminal SNR, which the model was trained "
            "with; use dpmpp, dpm or ddim"
        )
    # By value: what a configuration leaves to defaults differs between schedulers.
    options = {key: own[key] for key in _OF_THE_MODEL if key in own}
    given = set(own) - set(own.get("_use_default_values", ()))
    if own.get("_class_name", "") not in ("", made.__name__):
        given -= {"timestep_spacing"}
    if own.get("timestep_spacing") == "trailing":
        given |= {"timestep_spacing"}
    missing = {"timestep_spacing": "linspace", **_OF_ANOTHER.get(kind, {})}
    options |= {key: missing[key] for key in missing.keys() - given}
    options = {key: value for key, value in options.items() if key in taken}
    options |= _ALWAYS.get(kind, {})
    with warnings.catch_warnings():
        # diffusers means to drop DPM-Solver; Table S1 needs it.
        warnings.filterwarnings("ignore", "(?s).*dpmsolver.*is deprecated")
        scheduler = made.from_config(config, **options)
    scheduler.set_timesteps(steps)
    return scheduler


def name_of(scheduler: Any) -> str:
    """Return a scheduler's key in `SCHEDULERS`, or its class if it has none there."""
    for key, kind in SCHEDULERS.items():
        always = _ALWAYS.get(key, {}).items()
        # How it ends is no other method.
        wanted = {name: value for name, value in always if not name.startswith("final")}
        if type(scheduler) is kind and all(
            scheduler.config[name] == value for name, value in wanted.items()
        ):
            return key
    return type(scheduler).__name__


LEAST_ALPHA = 2.0**-24
"""The least ᾱ of a log-SNR: diffusers' own bound for zero terminal SNR."""


def log_snr(scheduler: Any, timesteps: torch.Tensor) -> torch.Tensor:
    """Return the log-SNR of timesteps, log(ᾱ / (1 − ᾱ)), on the model's noise schedule.

    The abscissa along which r_out is extrapolated. Timesteps between two of the
    schedule, as Euler and Heun have them, are interpolated.

    Args:
        scheduler: A scheduler of diffusers.
        timesteps: Any shape.

    Returns:
        float32, of the same shape, on the CPU.

    Raises:
        ValueError: If the scheduler has no ``alphas_cumprod``.
    """
    alphas = getattr(scheduler, "alphas_cumprod", None)
    if alphas is None:
        raise ValueError(
            f"{type(scheduler).__name__} has no alphas_cumprod: an adaptor that looks "
            "back on two full steps needs to know how noisy each was"
        )
    alphas = torch.as_tensor(alphas).double().cpu()
    alphas = alphas.clamp(LEAST_ALPHA, 1 - LEAST_ALPHA)
    known = torch.log(alphas / (1 - alphas))
    at = timesteps.detach().double().cpu().clamp(0, len(known) - 1)
    below = at.floor().long()
    above = (below + 1).clamp(max=len(known) - 1)
    return torch.lerp(known[below], known[above], at - below).float()


# --- at given time steps ------------------------------------------------------------


class AtTimesteps:
    """What the schedulers below share: they know no timesteps but the chosen ones."""

    config: Any

    @property
    def chosen(self) -> tuple[int, ...]:
        """The time steps, descending."""
        return tuple(self.config.chosen)

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


class DPMSolverAtTimesteps(AtTimesteps, DPMSolverMultistepScheduler):  # type: ignore[misc]
    """DPM-Solver++ at chosen time steps; of first order it is DDIM with η = 0."""


class EulerAtTimesteps(AtTimesteps, EulerDiscreteScheduler):  # type: ignore[misc]
    """Euler's method at chosen time steps."""


class PNDMAtTimesteps(AtTimesteps, PNDMScheduler):  # type: ignore[misc]
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
        super(AtTimesteps, self).set_timesteps(len(self.chosen), device=device)
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


def visiting(scheduler: SchedulerMixin, timesteps: Sequence[int]) -> SchedulerMixin:
    """Return a scheduler of the same kind and noise schedule that visits given steps.

    DDIM becomes DPM-Solver++ of first order, which is the same for η = 0. The time
    steps are in its configuration, and saved with it.

    Args:
        scheduler: Of diffusers: DDIM, DPM-Solver++ multistep, PNDM (PLMS, as Stable
            Diffusion has it) or Euler; not changed.
        timesteps: The time steps, descending, within what the model was trained with.

    Raises:
        ValueError: If it is another scheduler or clips its samples, or the timesteps do
            not descend or are not the model's.
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
    if isinstance(scheduler, DDIMScheduler) and scheduler.config.clip_sample:
        raise ValueError(
            "this DDIMScheduler has clip_sample=True, which DPM-Solver++ in its place "
            "has not; set it to False, as for all latent diffusion"
        )
    if not timesteps:
        raise ValueError("there are no timesteps")
    check_timesteps(timesteps, scheduler.config.num_train_timesteps)
    made, options = kinds[known[0]]
    found: Any = made.from_config(scheduler.config, **options)  # type: ignore[attr-defined]
    found.register_to_config(chosen=[int(each) for each in timesteps])
    found.set_timesteps()
    return found


def apply_timesteps(pipe: Any, timesteps: Sequence[int]) -> None:
    """Let a pipeline's scheduler visit given time steps.

    Args:
        pipe: A diffusers pipeline.
        timesteps: The time steps, descending; as many as ``num_inference_steps`` must
            be then. See `clockwork_diffusion.timesteps.gamma_timesteps`.

    Raises:
        ValueError: If some are in force already, or as `visiting`.

    >>> import torch
    >>> from diffusers import StableDiffusionPipeline
    >>> mini = "resources/mini/stable-diffusion"
    >>> pipe = StableDiffusionPipeline.from_pretrained(mini, dtype=torch.float32)
    >>> apply_timesteps(pipe, (900, 600, 300, 0))
    >>> image = pipe("a red ring on the sea", num_inference_steps=4).images[0]
    >>> remove_timesteps(pipe)
    """
    if isinstance(pipe.scheduler, AtTimesteps):
        raise ValueError(
            "the pipeline's scheduler visits chosen time steps already: remove those "
            "first"
        )
    chosen = visiting(pipe.scheduler, timesteps)
    vars(chosen)[_BEFORE] = pipe.scheduler
    pipe.scheduler = chosen


def remove_timesteps(pipe: Any) -> None:
    """Give a pipeline its scheduler back; without chosen time steps, do nothing.

    A scheduler that was put in the pipeline meanwhile stays.

    >>> import torch
    >>> from diffusers import StableDiffusionPipeline
    >>> mini = "resources/mini/stable-diffusion"
    >>> pipe = StableDiffusionPipeline.from_pretrained(mini, dtype=torch.float32)
    >>> apply_timesteps(pipe, (900, 600, 300, 0))
    >>> remove_timesteps(pipe)
    """
    before = vars(pipe.scheduler).get(_BEFORE)
    if before is not None:
        pipe.scheduler = before


at_timesteps = scoped(
    "at_timesteps",
    apply_timesteps,
    remove_timesteps,
    """Visit given time steps within a block; see `apply_timesteps`.

    >>> import torch
    >>> from diffusers import StableDiffusionPipeline
    >>> mini = "resources/mini/stable-diffusion"
    >>> pipe = StableDiffusionPipeline.from_pretrained(mini, dtype=torch.float32)
    >>> from clockwork_diffusion.timesteps import gamma_timesteps
    >>> with at_timesteps(pipe, gamma_timesteps(4, 1 / 1.8)):
    ...     image = pipe("a red ring on the sea", num_inference_steps=4).images[0]
    """,
)


_BEFORE = "_scheduler_before"
"""Where a scheduler of chosen time steps keeps the one whose place it has taken."""
