"""Sample images with or without a clock; all state lives in one call.

The starting noise of an image depends on its own seed alone, so that image *i* is the
same in any batch or shard, and two runs with the same seeds are paired.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    SchedulerMixin,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)

from clockwork_diffusion.clock import Calls, Clock, steps_of_calls
from clockwork_diffusion.split import SplitUNet, Step

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


@dataclass(frozen=True)
class SamplerSpec:
    """How to sample.

    Attributes:
        scheduler: A key of `SCHEDULERS`.
        steps: Number of sampling steps.
        guidance: Scale of classifier-free guidance; 1 turns it off, and with it the
            second half of the batch.
        clock: Runs the whole UNet once in so many steps; 1 at every step.
        adaptor_steps: Steps that use the adaptor, counted from 1 (Table 3), instead of
            a clock.
        every_step: Use the adaptor at all steps, the first included (Table S2's model
            distillation), instead of a clock.
    """

    scheduler: str
    steps: int
    guidance: float
    clock: int = 1
    adaptor_steps: tuple[int, ...] = ()
    every_step: bool = False

    def __post_init__(self) -> None:
        """Reject values that make no sampler."""
        if self.scheduler not in SCHEDULERS:
            raise ValueError(
                f"scheduler {self.scheduler!r} is not one of {', '.join(SCHEDULERS)}"
            )
        if self.guidance < 1:
            raise ValueError(f"guidance {self.guidance} is less than 1")
        self.phases.full_steps(self.steps)

    @property
    def phases(self) -> Clock:
        """The clock C(t), given by its period or by its steps."""
        return Clock(self.clock, self.adaptor_steps, self.every_step)

    @property
    def branches(self) -> int:
        """UNet samples per image and step: 2 with guidance, else 1."""
        return 2 if self.guidance > 1 else 1

    @property
    def calls(self) -> Calls:
        """UNet calls of a run by kind, each at a batch of `branches` per image."""
        return self.phases.calls(self.scheduler, self.steps)


@dataclass(frozen=True)
class Prompts:
    """Encoded prompts, one row each.

    Attributes:
        text: Features for cross attention, ``(N, L, D)``.
        pooled: Pooled embedding for the adaptor, ``(N, P)``, or None.
        empty: The empty prompt's features, ``(1, L, D)``.
        empty_pooled: The empty prompt's pooled embedding, ``(1, P)``, or None.
    """

    text: torch.Tensor
    empty: torch.Tensor
    pooled: torch.Tensor | None = None
    empty_pooled: torch.Tensor | None = None

    def __getitem__(self, index: slice) -> Prompts:
        """Return some of the prompts."""
        pooled = None if self.pooled is None else self.pooled[index]
        return Prompts(self.text[index], self.empty, pooled, self.empty_pooled)

    def __len__(self) -> int:
        """Return the number of prompts."""
        return len(self.text)


class Past(NamedTuple):
    """What an adaptor pass may look back on.

    Attributes:
        previous: What the last call of the previous sampling step yielded, be it full
            or an estimate; None at the first step.
        fulls: Each full step's r_out, newest first, as many as the adaptor looks at.
        ages: How many steps ago each of them was.
    """

    previous: Any = None
    fulls: tuple[torch.Tensor, ...] = ()
    ages: tuple[int, ...] = ()


class UNetPasses(Protocol):
    """The two kinds of UNet pass of a run, whatever the light one leaves out.

    A pass yields an object with ``eps``, the UNet's output; it is handed back as
    ``past.previous`` at the next step.
    """

    @property
    def unet(self) -> UNet2DConditionModel:
        """The UNet."""

    @property
    def history(self) -> int:
        """How many full steps the light pass looks back on."""

    def check(self, clock: Clock) -> None:
        """Raise ValueError if a clock asks for passes that there are not."""

    def full(
        self, x: torch.Tensor, t: torch.Tensor, c: torch.Tensor, **kwargs: Any
    ) -> Any:
        """Run the whole UNet."""

    def light(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        c: torch.Tensor,
        past: Past,
        pooled: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run a part of it, given what earlier steps yielded."""


class Passes:
    """The two kinds of UNet pass of a Clockwork run, eager or compiled.

    An adaptor says what it takes: see `clockwork_diffusion.adaptors`. One with
    ``is_identity`` gets the upsampled features instead of r_out; one whose ``inputs``
    lack r_out may run at every step, with None at the first; one whose ``history`` is
    n > 1 gets r_out of the n latest full steps and their ages.

    Attributes:
        split: The UNet, split at the adaptor's cut.
        adaptor: φ, or None if every step is full.
    """

    def __init__(
        self,
        split: SplitUNet,
        adaptor: Any = None,
        *,
        compiled: bool = False,
    ) -> None:
        """Bind the passes.

        Args:
            split: The UNet, split at the adaptor's cut.
            adaptor: φ, or None if every step is full.
            compiled: Compile each kind of pass as one graph.

        Raises:
            ValueError: If the adaptor is for another cut.
        """
        self.split, self.adaptor = split, adaptor
        if adaptor is not None and adaptor.config.cut != split.cut:
            raise ValueError(
                f"the adaptor is for cut {adaptor.config.cut!r}, "
                f"and the UNet is split at {split.cut!r}"
            )
        self._full = _compile(split.full) if compiled else split.full
        self._adapt = _compile(split.adapt) if compiled else split.adapt
        self._reuse = _compile(split.reuse) if compiled else split.reuse

    @property
    def unet(self) -> UNet2DConditionModel:
        """The UNet."""
        return self.split.unet

    @property
    def history(self) -> int:
        """How many full steps the adaptor looks back on."""
        return int(getattr(self.adaptor, "history", 1))

    def check(self, clock: Clock) -> None:
        """Compare a clock with the adaptor.

        Raises:
            ValueError: If the clock needs an adaptor and there is none, or needs one
                that does without the previous step.
        """
        if clock.needs_adaptor and self.adaptor is None:
            asked = f"clock {clock.every}"
            if clock.adaptor_steps:
                asked = f"adaptor steps {', '.join(map(str, clock.adaptor_steps))}"
            raise ValueError(
                f"{'every step' if clock.every_step else asked} needs an adaptor"
            )
        inputs = inputs_of(self.adaptor)
        if clock.every_step and "r_out" in inputs:
            raise ValueError(
                "every step needs an adaptor without r_out among its inputs, and "
                f"{type(self.adaptor).__name__} takes {', '.join(inputs)}"
            )

    def full(
        self, x: torch.Tensor, t: torch.Tensor, c: torch.Tensor, **kwargs: Any
    ) -> Step:
        """Run the whole UNet."""
        return self._full(x, t, c, **kwargs)

    def light(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        c: torch.Tensor,
        past: Past,
        pooled: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Step:
        """Run ε_H and the adaptor, given what earlier steps yielded."""
        previous: Step | None = past.previous
        if getattr(self.adaptor, "is_identity", False):
            assert previous is not None
            return self._reuse(x, t, c, previous.up, previous.r_out, **kwargs)
        adaptor, r_out = self.adaptor, None if previous is None else previous.r_out
        if self.history > 1:
            # Until there are enough full steps, the oldest stands for the missing.
            missing = self.history - len(past.fulls)
            r_out = torch.stack([*past.fulls, *past.fulls[-1:] * missing])
            ages = torch.tensor([*past.ages, *past.ages[-1:] * missing])
            adaptor = functools.partial(adaptor, ages=ages.to(r_out.device))
        return self._adapt(x, t, c, r_out, adaptor, pooled, **kwargs)


def inputs_of(adaptor: Any) -> tuple[str, ...]:
    """Return which of r_in, r_out and text an adaptor looks at; all if it is silent."""
    return tuple(getattr(adaptor, "inputs", ("r_in", "r_out", "text")))


class Memory:
    """What one run remembers of its passes, and which pass comes next.

    Attributes:
        latest: What the latest pass yielded, or None at the beginning.
    """

    def __init__(self) -> None:
        """Remember nothing."""
        self.latest: Any = None
        self._previous: Any = None
        self._index: int | None = None
        self._fulls: tuple[tuple[int, torch.Tensor], ...] = ()

    def run(
        self,
        passes: UNetPasses,
        clock: Clock,
        index: int,
        x: torch.Tensor,
        t: torch.Tensor,
        c: torch.Tensor,
        pooled: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run the pass that the clock asks for, and remember what it yields.

        The first step is full, whatever the clock says, unless it wants no full step.
        All calls of one step look back on the same previous step.

        Args:
            passes: The UNet's passes.
            clock: Decides between them.
            index: The sampling step from 0.
            x: Noisy latents, ``(N, C, h, w)``.
            t: Timestep.
            c: Text features, ``(N, L, D)``.
            pooled: Pooled text embedding for the adaptor, ``(N, P)``.
            **kwargs: The further arguments of diffusers' UNet.
        """
        if index != self._index:
            self._previous, self._index = self.latest, index
        full = clock.is_full(index) or (self._previous is None and not clock.every_step)
        if full:
            self.latest = passes.full(x, t, c, **kwargs)
        else:
            fulls = tuple(r_out for _, r_out in self._fulls)
            ages = tuple(index - at for at, _ in self._fulls)
            past = Past(self._previous, fulls, ages)
            self.latest = passes.light(x, t, c, past, pooled, **kwargs)
        if full and passes.history > 1:
            kept = tuple(each for each in self._fulls if each[0] != index)
            self._fulls = ((index, self.latest.r_out), *kept)[: passes.history]
        return self.latest

    def keep_rows(self, rows: slice) -> None:
        """Forget the other rows of the batch, which ends with the next step."""
        if self.latest is not None:
            self.latest = type(self.latest)(*(value[rows] for value in self.latest))
        self._fulls = tuple((index, r_out[rows]) for index, r_out in self._fulls)


def _compile(function: Callable[..., Step]) -> Callable[..., Step]:
    return torch.compile(function, fullgraph=True)


def new_scheduler(kind: str, config: object, steps: int) -> SchedulerMixin:
    """Return a scheduler with a model's noise schedule, set to a number of steps.

    What the model was trained with stays: betas, prediction type, steps offset. Its
    timestep spacing stays if its own scheduler is of the same kind, or spaces
    ``trailing``, which a model trained to zero signal needs. Else it is ``leading`` for
    DDIM and PNDM, whose update goes down by 1000 div steps whatever the next timestep
    is, and ``linspace`` for the others, which step between any two.

    Args:
        kind: A key of `SCHEDULERS`.
        config: Configuration of the model's own scheduler.
        steps: Number of sampling steps.

    Raises:
        ValueError: If the kind is unknown, or lacks the model's noise schedule.
    """
    if kind not in SCHEDULERS:
        raise ValueError(f"scheduler {kind!r} is not one of {', '.join(SCHEDULERS)}")
    made, own = SCHEDULERS[kind], dict(config)  # type: ignore[call-overload]
    if own.get("rescale_betas_zero_snr") and kind in ("pndm", "heun"):
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
    options |= _ALWAYS.get(kind, {})
    with warnings.catch_warnings():
        # diffusers means to drop DPM-Solver; Table S1 needs it.
        warnings.filterwarnings("ignore", "(?s).*dpmsolver.*is deprecated")
        scheduler = made.from_config(config, **options)
    scheduler.set_timesteps(steps)
    return scheduler


@torch.inference_mode()
def encode_prompts(
    pipe: StableDiffusionPipeline,
    prompts: Sequence[str],
    pool: Callable[[Sequence[str]], torch.Tensor] | None = None,
) -> Prompts:
    """Encode prompts with the pipeline's text encoder, and pool them for an adaptor.

    Args:
        pipe: The pipeline.
        prompts: The prompts.
        pool: Maps texts to pooled embeddings, ``(N, P)``; the paper takes OpenCLIP's.
    """
    text, empty = pipe.encode_prompt(
        list(prompts),
        device=pipe.device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=True,
    )
    if pool is None:
        return Prompts(text, empty[:1])
    like = {"device": pipe.device, "dtype": text.dtype}
    return Prompts(text, empty[:1], pool(prompts).to(**like), pool([""]).to(**like))


def image_seed(seed: int, index: int) -> int:
    """Return the seed of image ``index`` of a run; runs of another seed share none."""
    return seed * 1_000_000 + index


def initial_noise(seeds: Sequence[int], shape: tuple[int, int, int]) -> torch.Tensor:
    """Draw each image's starting noise on the CPU from its own seed.

    Returns:
        float32, ``(len(seeds), *shape)``.
    """
    return draw_noise([torch.Generator().manual_seed(seed) for seed in seeds], shape)


def step_generators(
    seeds: Sequence[int], shape: tuple[int, int, int]
) -> list[torch.Generator]:
    """Return each image's generator as `initial_noise` leaves it.

    What it draws at sampling steps depends on the image's seed alone, and is
    independent of the starting noise, which stays that of deterministic runs.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    draw_noise(generators, shape)
    return generators


def draw_noise(
    generators: Sequence[torch.Generator], shape: tuple[int, int, int]
) -> torch.Tensor:
    """Draw noise on the CPU, of each image from its own generator.

    Returns:
        float32, ``(len(generators), *shape)``.
    """
    return torch.stack([torch.randn(shape, generator=each) for each in generators])


@torch.inference_mode()
def sample_latents(
    passes: UNetPasses,
    scheduler_config: object,
    prompts: Prompts,
    noise: torch.Tensor,
    spec: SamplerSpec,
    on_step: Callable[[int, torch.Tensor, Any], None] | None = None,
) -> torch.Tensor:
    """Denoise; full passes and adaptor passes alternate as the clock says.

    Args:
        passes: The UNet's passes.
        scheduler_config: Configuration of the model's own scheduler.
        prompts: Encoded prompts, N of them.
        noise: Starting noise, ``(N, C, h, w)``, unit variance.
        spec: How to sample.
        on_step: Called after each pass with the step's index from 0, its timestep, and
            what the pass yielded; with guidance its rows are N empty, then N prompted.
            A step of several calls is reported after each of them.

    Returns:
        Latents, ``(N, C, h, w)``, scaled as the UNet sees them.

    Raises:
        ValueError: If the clock needs an adaptor, or one of another kind.
    """
    clock, memory = spec.phases, Memory()
    passes.check(clock)
    scheduler = new_scheduler(spec.scheduler, scheduler_config, spec.steps)
    unet = passes.unet
    count, guided = len(prompts), spec.branches == 2
    text, pooled = prompts.text, prompts.pooled
    if guided:
        text = torch.cat([prompts.empty.expand(count, -1, -1), text])
        if pooled is not None and prompts.empty_pooled is not None:
            pooled = torch.cat([prompts.empty_pooled.expand(count, -1), pooled])
    latents = noise.to(unet.device, unet.dtype) * scheduler.init_noise_sigma
    owners = steps_of_calls(spec.scheduler, spec.steps)
    for index, timestep in zip(owners, scheduler.timesteps, strict=True):
        batch = torch.cat([latents, latents]) if guided else latents
        batch = scheduler.scale_model_input(batch, timestep)
        step = memory.run(passes, clock, index, batch, timestep, text, pooled)
        if on_step is not None:
            on_step(index, timestep, step)
        output = step.eps
        if guided:
            empty, prompted = output.chunk(2)
            output = empty + spec.guidance * (prompted - empty)
        latents = scheduler.step(output, timestep, latents, return_dict=False)[0]
    return latents


@torch.inference_mode()
def decode_latents(
    pipe: StableDiffusionPipeline, latents: torch.Tensor, batch_size: int = 64
) -> torch.Tensor:
    """Decode latents to uint8 images, ``(N, 3, H, W)``, on the CPU."""
    parts = []
    for batch in latents.split(batch_size):
        pixels = pipe.vae.decode(batch / pipe.vae.config.scaling_factor).sample
        parts.append(((pixels / 2 + 0.5).clamp(0, 1) * 255).round().byte().cpu())
    return torch.cat(parts)
