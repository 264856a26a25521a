"""Put Clockwork into any diffusers pipeline in one line, and take it out again.

    with clockwork(pipe, clock=2, adaptor=adaptor):
        image = pipe("a red ring on the sea").images[0]

The pipeline's UNet gets another ``forward`` as an instance attribute; removing the
attribute restores the class's own. No module is replaced and no weight is touched.
"""

from __future__ import annotations

import copy
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import PNDMScheduler, UNet2DConditionModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from diffusers.utils.peft_utils import apply_lora_scale

from clockwork_diffusion.adaptors import IdentityAdaptor, inputs_of
from clockwork_diffusion.clock import Clock
from clockwork_diffusion.passes import Memory, Passes, UNetPasses
from clockwork_diffusion.unet import SplitUNet


@dataclass
class _Run:
    """One run of sampling, as seen from the UNet's calls.

    Attributes:
        position: Index of the current sampling step, from 0.
        mark: The scheduler's count of calls, or None if it does not say.
        grid: The scheduler's timesteps; each run of a pipeline makes new ones.
        timestep: Timestep of the latest call.
        call: Index of the current call among those that the scheduler takes for one;
            sequential guidance makes two.
        memories: What the passes have yielded, for each such call.
    """

    position: int = -1
    mark: int | None = None
    grid: Any = None
    timestep: float = float("inf")
    call: int = -1
    memories: dict[int, Memory] = field(default_factory=lambda: defaultdict(Memory))


class ClockworkForward:
    """The UNet's ``forward`` while Clockwork is applied.

    The phase follows the scheduler's own counter where there is one, so that skipped
    starts (image to image) keep the right phase, and all calls of one step of a
    second-order sampler share it. A run begins when the counter or the timestep goes
    back; its first step is full, as is the first after any change of shape, unless the
    adaptor runs at every step. Each thread has its own run.
    """

    def __init__(
        self,
        passes: UNetPasses,
        clock: Clock,
        scheduler: Any = None,
        pooled: torch.Tensor | None = None,
    ) -> None:
        """Bind; see `apply_clockwork`."""
        self.passes = passes
        self.clock = clock
        self.scheduler = scheduler
        self.pooled = pooled
        self.runs: dict[int, _Run] = {}

    def reset(self) -> None:
        """Forget every run; the next call is a full pass."""
        self.runs.clear()

    def __deepcopy__(self, memo: dict[int, Any]) -> ClockworkForward:
        """Copy along with the UNet, without the features of runs under way."""
        new = object.__new__(type(self))
        memo[id(self)] = new
        vars(new).update(copy.deepcopy({**vars(self), "runs": {}}, memo))
        return new

    def __call__(
        self,
        sample: torch.Tensor,
        timestep: Any,
        encoder_hidden_states: torch.Tensor,
        *args: Any,
        return_dict: bool = True,
        **kwargs: Any,
    ) -> Any:
        """Run a full pass or an adaptor pass, in diffusers' calling convention."""
        if args:
            raise ValueError("give the UNet's further arguments by name")
        step = _with_lora_scale(
            self.passes.unet,
            self._step,
            sample,
            timestep,
            encoder_hidden_states,
            **kwargs,
        )
        if return_dict:
            return UNet2DConditionOutput(sample=step.eps)
        return (step.eps,)

    def _step(
        self,
        sample: torch.Tensor,
        timestep: Any,
        text: torch.Tensor,
        **kwargs: Any,
    ) -> Any:
        run = self._advance(timestep)
        if not _fits(run.memories[run.call].latest, sample):
            run.memories[run.call] = Memory()
        return run.memories[run.call].run(
            self.passes,
            self.clock,
            run.position,
            sample,
            timestep,
            text,
            self._pooled_for(sample),
            **kwargs,
        )

    def _advance(self, timestep: torch.Tensor | float) -> _Run:
        """Find out which step of which run this call belongs to."""
        run = self.runs.setdefault(threading.get_ident(), _Run())
        now = float(torch.as_tensor(timestep).flatten()[0])
        mark = _call_count(self.scheduler)
        grid = getattr(self.scheduler, "timesteps", None)
        back = now > run.timestep or (mark or 0) < (run.mark or 0)
        if run.position < 0 or back or grid is not run.grid:
            run = _Run(position=0, mark=mark, grid=grid)
            self.runs[threading.get_ident()] = run
        elif mark != run.mark or now < run.timestep:
            run.position += _begins_step(self.scheduler)
            run.mark, run.call = mark, -1
        run.timestep = now
        run.call += 1
        return run

    def _pooled_for(self, sample: torch.Tensor) -> torch.Tensor | None:
        if self.pooled is None:
            return None
        rows = len(sample) // len(self.pooled)
        if rows * len(self.pooled) != len(sample):
            raise ValueError(
                f"{len(self.pooled)} pooled text embeddings do not fit "
                f"a batch of {len(sample)}"
            )
        return self.pooled.repeat_interleave(rows, dim=0).to(sample)


def apply_clockwork(
    pipe: Any,
    clock: int | Clock | None = None,
    adaptor: Any = None,
    cut: str = "stage1",
    pooled: torch.Tensor | None = None,
    *,
    adaptor_steps: tuple[int, ...] = (),
    every_step: bool = False,
) -> None:
    """Make a pipeline's UNet skip its low-resolution part on some steps.

    Args:
        pipe: A diffusers pipeline with a ``unet`` and a ``scheduler``, or such a UNet.
        clock: Run the whole UNet once in so many steps, or a `Clock`; 2 if neither this
            nor another choice of steps is given.
        adaptor: φ; the identity if left out.
        cut: Where to split the UNet if there is no adaptor that says.
        pooled: Pooled text embeddings for a learned adaptor, in the order of the UNet's
            batch: ``(2, P)``, empty prompt first, with guidance; ``(1, P)`` without.
        adaptor_steps: Steps that use the adaptor, counted from 1, instead of a clock.
        every_step: Use the adaptor at every step, instead of a clock.

    Raises:
        ValueError: If Clockwork is applied already, the clock cannot run, the UNet
            lacks the cut, the adaptor needs text embeddings and gets none, or the
            scheduler does not say which of its calls begin a step.
    """
    unet = getattr(pipe, "unet", pipe)
    if "forward" in vars(unet):
        raise ValueError("the UNet's forward is replaced already; remove that first")
    if not isinstance(clock, Clock):
        if clock is None:
            clock = 1 if adaptor_steps or every_step else 2
        clock = Clock(clock, tuple(adaptor_steps), every_step)
    elif adaptor_steps or every_step:
        raise ValueError("give either a Clock or its parts, not both")
    scheduler = getattr(pipe, "scheduler", None)
    _check_scheduler(scheduler)
    adaptor = IdentityAdaptor(cut=cut) if adaptor is None else adaptor
    takes_text = "text" in inputs_of(adaptor)
    if pooled is None and takes_text and not isinstance(adaptor, IdentityAdaptor):
        raise ValueError("a learned adaptor needs pooled text embeddings")
    passes = Passes(SplitUNet(unet, adaptor.config.cut), adaptor)
    passes.check(clock)
    unet.forward = ClockworkForward(passes, clock, scheduler, pooled)


def remove_clockwork(pipe: Any) -> None:
    """Give a pipeline's UNet its own forward back; without Clockwork, do nothing."""
    unet = getattr(pipe, "unet", pipe)
    if isinstance(vars(unet).get("forward"), ClockworkForward):
        del unet.forward


@contextmanager
def clockwork(
    pipe: Any, clock: int | Clock | None = None, **kwargs: Any
) -> Iterator[None]:
    """Apply Clockwork within a block; see `apply_clockwork` for the arguments."""
    apply_clockwork(pipe, clock, **kwargs)
    try:
        yield
    finally:
        remove_clockwork(pipe)


@apply_lora_scale("cross_attention_kwargs")
def _with_lora_scale(
    unet: UNet2DConditionModel, call: Any, *args: Any, **kwargs: Any
) -> Any:
    """Call with the LoRA scale of the arguments in force, as diffusers' forward."""
    return call(*args, **kwargs)


def _fits(step: Any, sample: torch.Tensor) -> bool:
    return step is None or (
        step.eps.shape[0] == sample.shape[0]
        and step.eps.shape[2:] == sample.shape[2:]
        and step.eps.device == sample.device
    )


def _call_count(scheduler: Any) -> int | None:
    """Return how many calls a scheduler has taken in this run, if it says."""
    for name in ("step_index", "counter"):
        value = getattr(scheduler, name, None)
        if value is not None:
            return int(value)
    # Before the first call of a run, the index is unknown: that is the start.
    return 0 if hasattr(scheduler, "step_index") else None


def _begins_step(scheduler: Any) -> bool:
    """Tell whether a scheduler's next call begins a step, or is one more of the same.

    PNDM corrects its first step by a second call, or with Runge-Kutta steps, spends
    four calls on each of those. Heun's kind of schedulers corrects every step.
    """
    if isinstance(scheduler, PNDMScheduler):
        if scheduler.config.skip_prk_steps:
            return bool(scheduler.counter != 1)
        of_runge_kutta = scheduler.counter < len(scheduler.prk_timesteps)
        return not (of_runge_kutta and scheduler.counter % 4)
    return bool(getattr(scheduler, "state_in_first_order", True))


def _check_scheduler(scheduler: Any) -> None:
    order = getattr(scheduler, "order", 1)
    if order != 1 and not hasattr(scheduler, "state_in_first_order"):
        raise ValueError(
            f"{type(scheduler).__name__} makes {order} calls per step and does not say "
            "which: the clock serves schedulers with one call per step, PNDM, and "
            "those with state_in_first_order (Heun, KDPM2, DPM-SDE)"
        )
