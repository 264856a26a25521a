"""The two kinds of pass of a UNet, and what a run remembers between them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from diffusers import UNet2DConditionModel

from clockwork_diffusion.clock import Clock
from clockwork_diffusion.contract import (
    ages_of,
    cut_of,
    history_of,
    inputs_of,
    matched,
)
from clockwork_diffusion.unet import SplitUNet, Step


class Past(NamedTuple):
    """What an adaptor pass may look back on.

    Attributes:
        previous: What `UNetPasses.keep` has kept of the last call of the previous
            sampling step, be it full or an estimate; None at the first step.
        fulls: Each full step's r_out, newest first, as many as the adaptor looks at.
        ages: How far each of them lies back, in log-SNR.
    """

    previous: Any = None
    fulls: tuple[torch.Tensor, ...] = ()
    ages: tuple[float, ...] = ()


class UNetPasses(Protocol):
    """The two kinds of UNet pass of a run, whatever the light one leaves out.

    A pass yields an object with ``eps``, the UNet's output.
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

    def keep(self, step: Any) -> torch.Tensor | None:
        """Return what the next light pass reads of a pass; None if it reads nothing."""


class Passes:
    """The two kinds of UNet pass of a Clockwork run, eager or compiled.

    An adaptor says what it takes: see `clockwork_diffusion.contract`. One with
    ``is_identity`` gets the upsampled features instead of r_out; one whose ``inputs``
    lack r_out may run at every step, with None at the first; one whose ``history`` is
    n > 1, or that says what ages it wants, gets r_out of the n latest full steps and
    their ages.

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
        features: bool = True,
    ) -> None:
        """Bind the passes.

        Args:
            split: The UNet, split at the adaptor's cut.
            adaptor: φ, or None if every step is full.
            compiled: Compile each kind of pass as one graph.
            features: Whether r_out is asked of full passes though the adaptor does
                without; else the block that yields it runs by its own forward.

        Raises:
            ValueError: If the adaptor is for another cut.
        """
        self.split, self.adaptor, self._given = split, adaptor, adaptor
        if adaptor is not None and cut_of(adaptor) not in (None, split.cut):
            raise ValueError(
                f"the adaptor is for cut {cut_of(adaptor)!r}, "
                f"and the UNet is split at {split.cut!r}"
            )
        self._identity = bool(getattr(adaptor, "is_identity", False))
        self._through = self._identity and not features
        self._features = features
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
        return history_of(self.adaptor)

    @property
    def ages_in(self) -> str | None:
        """In what the adaptor is told their ages, if it is."""
        return ages_of(self.adaptor)

    def match(self, dtype: torch.dtype, device: torch.device) -> None:
        """Bring the adaptor to where the UNet is now, and to its precision."""
        self.adaptor = matched(self._given, dtype, device)

    @property
    def eager(self) -> Passes:
        """The same passes, not compiled."""
        return Passes(self.split, self.adaptor, features=self._features)

    def check(self, clock: Clock) -> None:
        """Compare a clock with the adaptor.

        Raises:
            ValueError: If the clock needs an adaptor and there is none, or needs one
                that does without the previous step.
        """
        if clock.needs_adaptor and self.adaptor is None:
            asked = str(clock)
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
        return self._full(x, t, c, through=self._through, **kwargs)

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
        if self._identity:
            return self._reuse(x, t, c, past.previous, **kwargs)
        adaptor, r_out = self.adaptor, past.previous
        if self.ages_in is not None:
            # Until there are enough full steps, the oldest stands for the missing.
            missing = self.history - len(past.fulls)
            r_out = torch.stack([*past.fulls, *past.fulls[-1:] * missing])
            ages = torch.tensor([*past.ages, *past.ages[-1:] * missing]).float()
            adaptor = functools.partial(adaptor, ages=ages.to(r_out.device))
        return self._adapt(x, t, c, r_out, adaptor, pooled, **kwargs)

    def keep(self, step: Step) -> torch.Tensor | None:
        """Return what the next light pass reads of a pass."""
        if self._identity:
            return step.up
        takes = self.ages_in is None and "r_out" in inputs_of(self.adaptor)
        return step.r_out if takes else None


class Output(NamedTuple):
    """What a pass of a UNet that is not split yields."""

    eps: torch.Tensor


class WholePasses:
    """Full passes alone, of a UNet of any depth; what a run without a clock needs."""

    history = 1

    def __init__(
        self, unet: UNet2DConditionModel, forward: Callable[..., Any] | None = None
    ) -> None:
        """Bind the UNet, and its forward if that is to be called directly."""
        self.unet = unet
        self._forward = unet if forward is None else forward

    def check(self, clock: Clock) -> None:
        """Refuse clocks, which need a split UNet and an adaptor."""
        if clock.needs_adaptor:
            raise ValueError(f"{clock} needs an adaptor")

    def full(
        self, x: torch.Tensor, t: torch.Tensor, c: torch.Tensor, **kwargs: Any
    ) -> Output:
        """Run the UNet."""
        return Output(self._forward(x, t, c, **kwargs, return_dict=False)[0])

    def light(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        c: torch.Tensor,
        past: Past,
        pooled: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Output:
        """There is none."""
        raise AssertionError("checked before")

    def keep(self, step: Output) -> None:
        """Keep nothing."""


class _Kept(NamedTuple):
    """That a step has run, and what the next light one reads of it."""

    features: torch.Tensor | None


class Memory:
    """What one run remembers of its passes, and which pass comes next.

    It keeps what the next light pass reads, and nothing if the next step is full.

    Attributes:
        full: Whether the latest pass was full.
        finite: Each pass's step, and whether its output was finite.
    """

    def __init__(self) -> None:
        """Remember nothing."""
        self.finite: list[tuple[int, torch.Tensor]] = []
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self.full = True
        self._latest: _Kept | None = None
        self._previous: _Kept | None = None
        self._index: int | None = None
        self._fulls: tuple[tuple[int, torch.Tensor], ...] = ()
        self._like: tuple[Any, ...] | None = None

    def run(
        self,
        passes: UNetPasses,
        clock: Clock,
        index: int,
        x: torch.Tensor,
        t: torch.Tensor,
        c: torch.Tensor,
        pooled: torch.Tensor | None = None,
        *,
        more: bool | None = None,
        last: bool = False,
        log_snr: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run the pass that the clock asks for, and remember what is needed of it.

        The first step is full, whatever the clock says, unless it wants no full step;
        so is the first after any change of shape, device or type. All calls of one step
        look back on the same previous step.

        Args:
            passes: The UNet's passes.
            clock: Decides between them.
            index: The sampling step from 0.
            x: Noisy latents, ``(N, C, h, w)``.
            t: Timestep.
            c: Text features, ``(N, L, D)``.
            pooled: Pooled text embedding for the adaptor, ``(N, P)``.
            more: Whether another call of this step follows; None if that is unknown.
            last: Whether no other step follows.
            log_snr: Of each step, ``(steps,)``, by which the ages of full steps are
                told, unless they are wanted in steps; None takes the steps for evenly
                spaced.
            **kwargs: The further arguments of diffusers' UNet.
        """
        like = (x.shape, x.device, x.dtype)
        if self._like not in (None, like):
            self.forget()
        self._like = like
        if index != self._index:
            self._previous, self._latest, self._index = self._latest, None, index
        self.full = clock.is_full(index) or (
            self._previous is None and not clock.every_step
        )
        if self.full:
            self._previous = None
            step = passes.full(x, t, c, **kwargs)
            if ages_of(passes) is not None and not last:
                kept = tuple(each for each in self._fulls if each[0] != index)
                self._fulls = ((index, step.r_out), *kept)[: passes.history]
        else:
            fulls = tuple(r_out for _, r_out in self._fulls)
            if ages_of(passes) == "steps":
                log_snr = None
            ages = tuple(_age(index, at, log_snr) for at, _ in self._fulls)
            previous = None if self._previous is None else self._previous.features
            step = passes.light(x, t, c, Past(previous, fulls, ages), pooled, **kwargs)
        if more is False:
            self._previous = None
        if last:
            self._latest, self._fulls = None, ()
        elif not more:
            read = not clock.is_full(index + 1)
            self._latest = _Kept(passes.keep(step) if read else None)
        return step

    def kept(self) -> list[torch.Tensor]:
        """Return the features that are kept."""
        latest = (self._latest, self._previous)
        found = [each.features for each in latest if each is not None]
        return [
            *(each for each in found if each is not None),
            *(r_out for _, r_out in self._fulls),
        ]

    def keep_rows(self, rows: slice) -> None:
        """Forget the other rows of the batch, which ends with the next step."""
        if self._latest is not None and self._latest.features is not None:
            self._latest = _Kept(self._latest.features[rows])
        self._fulls = tuple((index, r_out[rows]) for index, r_out in self._fulls)
        self._like = None


def _age(index: int, full: int, log_snr: torch.Tensor | None) -> float:
    """Return how far a full step lies back from another."""
    if log_snr is None:
        return index - full
    return float(log_snr[index] - log_snr[full])


def _compile(function: Callable[..., Step]) -> Callable[..., Step]:
    return torch.compile(function, fullgraph=True)
