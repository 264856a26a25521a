"""Put Clockwork into any diffusers pipeline in one line, and take it out again.

    with clockwork(pipe, clock=2, adaptor=adaptor):
        image = pipe("a red ring on the sea").images[0]

The pipeline's UNet gets another ``forward`` as an instance attribute; removing the
attribute restores the class's own. No module is replaced and no weight is touched.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from diffusers.utils.peft_utils import apply_lora_scale

from clockwork_diffusion.adaptors import IdentityAdaptor
from clockwork_diffusion.clock import Clock
from clockwork_diffusion.sampling import Passes
from clockwork_diffusion.split import SplitUNet, Step


@dataclass
class _Run:
    """One run of sampling, as seen from the UNet's calls.

    Attributes:
        position: Index of the current sampling step, from 0.
        mark: The scheduler's count of steps, or None if it does not say.
        grid: The scheduler's timesteps; each run of a pipeline makes new ones.
        timestep: Timestep of the current step.
        call: Index of the current call within its step; sequential guidance makes two.
        kept: What the calls of the previous step yielded.
        fresh: What the calls of this step have yielded so far.
    """

    position: int = -1
    mark: int | None = None
    grid: Any = None
    timestep: float = float("inf")
    call: int = 0
    kept: list[Step] = field(default_factory=list)
    fresh: list[Step] = field(default_factory=list)


class ClockworkForward:
    """The UNet's ``forward`` while Clockwork is applied.

    The phase follows the scheduler's own step counter where there is one, so that
    second-order samplers and skipped starts (image to image) keep the right phase. A
    run begins when the counter or the timestep goes back; its first step is full, as is
    the first after any change of shape. Each thread has its own run.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        clock: Clock,
        adaptor: Any,
        scheduler: Any = None,
        pooled: torch.Tensor | None = None,
    ) -> None:
        """Bind; see `apply_clockwork`."""
        self.passes = Passes(SplitUNet(unet, adaptor.config.cut), adaptor)
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
            self.passes.split.unet,
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
    ) -> Step:
        run = self._advance(timestep)
        previous = run.kept[run.call] if run.call < len(run.kept) else None
        if (
            previous is None
            or not _fits(previous, sample)
            or self.clock.is_full(run.position)
        ):
            step = self.passes.split.full(sample, timestep, text, **kwargs)
        else:
            pooled = self._pooled_for(sample)
            step = self.passes.light(sample, timestep, text, previous, pooled, **kwargs)
        run.fresh.append(step)
        run.call += 1
        return step

    def _advance(self, timestep: torch.Tensor | float) -> _Run:
        """Find out which step of which run this call belongs to."""
        run = self.runs.setdefault(threading.get_ident(), _Run())
        now = float(torch.as_tensor(timestep).flatten()[0])
        mark = _step_count(self.scheduler)
        grid = getattr(self.scheduler, "timesteps", None)
        back = now > run.timestep or (mark or 0) < (run.mark or 0)
        if run.position < 0 or back or grid is not run.grid:
            run = _Run(position=0, mark=mark, grid=grid)
            self.runs[threading.get_ident()] = run
        elif mark != run.mark or now < run.timestep:
            run.position += 1
            run.kept, run.fresh, run.call = run.fresh, [], 0
            run.mark = mark
        run.timestep = now
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
    clock: int | Clock = 2,
    adaptor: Any = None,
    cut: str = "stage1",
    pooled: torch.Tensor | None = None,
) -> None:
    """Make a pipeline's UNet skip its low-resolution part on some steps.

    Args:
        pipe: A diffusers pipeline with a ``unet`` and a ``scheduler``, or such a UNet.
        clock: Run the whole UNet once in so many steps, or a `Clock`.
        adaptor: φ; the identity if left out.
        cut: Where to split the UNet if there is no adaptor that says.
        pooled: Pooled text embeddings for a learned adaptor, in the order of the UNet's
            batch: ``(2, P)``, empty prompt first, with guidance; ``(1, P)`` without.

    Raises:
        ValueError: If Clockwork is applied already, the clock is less than 1, the UNet
            lacks the cut, or a learned adaptor gets no text embeddings.
    """
    unet = getattr(pipe, "unet", pipe)
    if "forward" in vars(unet):
        raise ValueError("the UNet's forward is replaced already; remove that first")
    adaptor = IdentityAdaptor(cut=cut) if adaptor is None else adaptor
    if pooled is None and not isinstance(adaptor, IdentityAdaptor):
        raise ValueError("a learned adaptor needs pooled text embeddings")
    unet.forward = ClockworkForward(
        unet,
        clock if isinstance(clock, Clock) else Clock(clock),
        adaptor,
        getattr(pipe, "scheduler", None),
        pooled,
    )


def remove_clockwork(pipe: Any) -> None:
    """Give a pipeline's UNet its own forward back; without Clockwork, do nothing."""
    unet = getattr(pipe, "unet", pipe)
    if isinstance(vars(unet).get("forward"), ClockworkForward):
        del unet.forward


@contextmanager
def clockwork(pipe: Any, clock: int | Clock = 2, **kwargs: Any) -> Iterator[None]:
    """Apply Clockwork within a block; see `apply_clockwork` for the arguments."""
    apply_clockwork(pipe, clock, **kwargs)
    try:
        yield
    finally:
        remove_clockwork(pipe)


@apply_lora_scale("cross_attention_kwargs")
def _with_lora_scale(
    unet: UNet2DConditionModel, call: Any, *args: Any, **kwargs: Any
) -> Step:
    """Call with the LoRA scale of the arguments in force, as diffusers' forward."""
    step: Step = call(*args, **kwargs)
    return step


def _fits(step: Step, sample: torch.Tensor) -> bool:
    return (
        step.eps.shape[0] == sample.shape[0]
        and step.eps.shape[2:] == sample.shape[2:]
        and step.eps.device == sample.device
    )


def _step_count(scheduler: Any) -> int | None:
    """Return how many steps a scheduler has taken in this run, if it says."""
    for name in ("step_index", "counter"):
        value = getattr(scheduler, name, None)
        if value is not None:
            return int(value)
    # Before the first step of a run, the index is unknown: that is the start.
    return 0 if hasattr(scheduler, "step_index") else None
