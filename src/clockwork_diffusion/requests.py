"""Tell which sampling request a call of the UNet belongs to, and which step of it.

The UNet sees a call's arguments and nothing else, and many requests may share it: other
pipelines of the same components, threads, interleaved generators. Two things make a
request known, and neither is a heuristic of order or of time:

- **its time steps.** Every pipeline loops over the tensor that the scheduler has set,
  and hands the UNet an element of it. That element is a view: its storage is the
  run's, since ``set_timesteps`` makes a new one, and its offset there is the index.
- **its text.** The conditioning is one tensor for the whole run. Two calls at the same
  time step with different texts are the branches of sequential guidance.

Calls that agree in both (MultiDiffusion's views, one scheduler's steps looped over
twice at once) are matched to the nearest input among those of the step before. A time
step that is a plain number, or a copy, says nothing: such calls run the whole UNet,
with one warning.

Storages are referred to weakly. A weak reference keeps the address from being given to
another one, so that it identifies the storage, and does not keep its memory.
"""

from __future__ import annotations

import functools
import gc
import warnings
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from diffusers import PNDMScheduler, SchedulerMixin
from torch.multiprocessing.reductions import StorageWeakRef

from clockwork_diffusion.passes import Memory
from clockwork_diffusion.schedulers import log_snr

_SIGNATURE = 64
"""Values of an input that are compared to find the nearest."""

_NO_ELEMENT = (
    "the time step is not an element of a scheduler's `timesteps`, so that it does not "
    "tell which request it belongs to: the whole UNet runs at each such call; loop "
    "over `scheduler.timesteps` and hand on its elements"
)
_SKIPPED = (
    "the loop leaves out some of the scheduler's `timesteps`, so that no call follows "
    "another: the whole UNet runs at each; set the scheduler to the time steps that "
    "the loop visits"
)


class Call(NamedTuple):
    """Where a call of the UNet stands.

    Attributes:
        step: Index of its sampling step from 0.
        memory: What its branch has kept of the steps before.
        first: Whether it begins a run.
        more: Whether a call of the same step follows, as with Heun's method.
        last: Whether no step follows.
        steps: Number of the run's steps, or None if it is unknown.
        scheduler: Whose time steps they are, or None if it is unknown.
        log_snr: Returns the log-SNR of each step up to this one, or None if the
            scheduler is unknown; to be asked from the first call on.
    """

    step: int
    memory: Memory
    first: bool = True
    more: bool = False
    last: bool = False
    steps: int | None = None
    scheduler: SchedulerMixin | None = None
    log_snr: Callable[[], torch.Tensor | None] = lambda: None


@dataclass
class _Strand:
    """One call at each place of a run's time steps, in even strides of 1 or -1."""

    offset: int
    stride: int = 0
    calls: int = 0  # places before this one
    starts: list[int] = field(default_factory=list)  # the first place of each step
    memory: Memory = field(default_factory=Memory)
    signature: torch.Tensor | None = None

    def expects(self, offset: int) -> bool:
        """Tell whether an offset is the next place."""
        moved = offset - self.offset
        return moved == self.stride if self.stride else abs(moved) == 1


class _Run:
    """Calls with the same time steps and the same text: one strand, most often."""

    def __init__(
        self,
        grid: StorageWeakRef,
        end: int,
        step_of: Callable[[int], int],
        digest: tuple[torch.Tensor, ...],
        scheduler: SchedulerMixin | None,
    ) -> None:
        self.grid, self.end, self.step_of = grid, end, step_of
        # Not held: it would hold its time steps, and these are never over.
        self.scheduler = (lambda: None) if scheduler is None else weakref.ref(scheduler)
        self._log_snr: torch.Tensor | None = None
        self.digest = digest
        self.text: StorageWeakRef | None = None
        self.watch: Any = None
        self.strands: list[_Strand] = []

    def strand(self, offset: int, sample: torch.Tensor) -> _Strand:
        """Return the strand that an input continues, or a new one."""
        signature = _signature(sample)
        ready = [strand for strand in self.strands if strand.expects(offset)]
        if len(ready) > 1:
            distances = [_distance(each, signature) for each in ready]
            ready = [ready[distances.index(min(distances))]]
        if ready:
            (found,) = ready
            found.stride = offset - found.offset
            found.offset = offset
            found.calls += 1
        else:
            found = _Strand(offset)
            self.strands.append(found)
        if self.step_of(found.calls) == len(found.starts):
            found.starts.append(offset)
        found.signature = signature
        return found

    def skips(self, offset: int) -> bool:
        """Tell whether a loop leaves out time steps; what it kept serves no call."""
        if any(strand.expects(offset) for strand in self.strands):
            return False
        left = [each for each in self.strands if each.stride == 0]
        left = [each for each in left if each.offset != offset]
        for strand in left:
            strand.memory.forget()
        return bool(left)

    def call(self, strand: _Strand, first: bool) -> Call:
        """Return where a strand's call stands."""
        stride = strand.stride or 1
        left = self.end - strand.offset if stride > 0 else strand.offset
        step = self.step_of(strand.calls)
        more = left > 0 and self.step_of(strand.calls + 1) == step
        steps = self.step_of(strand.calls + left) + 1
        return Call(
            step,
            strand.memory,
            first,
            more,
            left <= 0,
            steps,
            self.scheduler(),
            functools.partial(self.log_snr, strand),
        )

    def log_snr(self, strand: _Strand) -> torch.Tensor | None:
        """Return the log-SNR of each of a strand's steps so far."""
        scheduler: Any = self.scheduler()
        if self._log_snr is None and scheduler is not None:
            # At the first call these are still its time steps.
            self._begun = int(scheduler.timesteps.storage_offset())
            self._log_snr = log_snr(scheduler, scheduler.timesteps)
        if self._log_snr is None:
            return None
        return self._log_snr[[start - self._begun for start in strand.starts]]


class Requests:
    """The runs under way on one UNet.

    Attributes:
        schedulers: Yields the schedulers that are likely to sample, asked when a run
            begins; any other is looked for among the live ones.
    """

    def __init__(self, schedulers: Callable[[], Iterable[SchedulerMixin]]) -> None:
        """Know no run yet."""
        self.schedulers = schedulers
        self._met: weakref.WeakSet[SchedulerMixin] = weakref.WeakSet()
        self._runs: dict[tuple[int, Any], _Run] = {}
        self._warned = False

    def reset(self) -> None:
        """Forget every run, and what it keeps."""
        self._runs.clear()

    def kept(self) -> list[torch.Tensor]:
        """Return the features that are kept, of all runs."""
        return [
            each
            for run in list(self._runs.values())
            for strand in run.strands
            for each in strand.memory.kept()
        ]

    def place(
        self, sample: torch.Tensor, timestep: Any, text: torch.Tensor | None
    ) -> Call:
        """Find out where a call stands.

        Args:
            sample: The UNet's input, ``(N, C, h, w)``.
            timestep: As the UNet is given it.
            text: What the call is conditioned on, or None.

        Raises:
            ValueError: If the scheduler does not say which of its calls begin a step.
        """
        storage = _grid_of(timestep)
        if storage is None:
            self._warn(_NO_ELEMENT)
            return Call(0, Memory())
        offset = int(timestep.storage_offset())
        key = (storage._cdata, _text_key(text))
        run = self._runs.get(key) or self._moved(offset, text, key)
        if run is None:
            run = self._begin(storage, timestep, text, key)
        if run is None:
            self._warn(_NO_ELEMENT)
            return Call(0, Memory())
        if run.skips(offset):
            self._warn(_SKIPPED)
        starting = (
            strand.calls == 0
            for other, each in list(self._runs.items())
            if other[0] == key[0]
            for strand in each.strands
        )
        first = not any(starting)
        strand = run.strand(offset, sample)
        return run.call(strand, first and strand.calls == 0)

    def _begin(
        self,
        storage: torch.UntypedStorage,
        timestep: torch.Tensor,
        text: torch.Tensor | None,
        key: tuple[int, Any],
    ) -> _Run | None:
        for other, run in list(self._runs.items()):
            if run.grid.expired():
                self._runs.pop(other, None)
        end = storage.nbytes() // timestep.element_size() - 1
        scheduler = self._owner(storage)
        if scheduler is None and end == 0:
            return None  # a copy, not one of several steps
        if scheduler is not None:
            steps: torch.Tensor = scheduler.timesteps  # type: ignore[attr-defined]
            end = int(steps.storage_offset()) + len(steps) - 1
        digest = () if text is None else _digest(text)
        run = _Run(StorageWeakRef(storage), end, step_of(scheduler), digest, scheduler)
        self._runs[key] = run
        self._watch(run, key, text)
        return run

    def _owner(self, storage: torch.UntypedStorage) -> SchedulerMixin | None:
        """Find the scheduler whose time steps these are, among all that live."""
        likely = [*self.schedulers(), *self._met]
        for scheduler in likely:
            if _owns(scheduler, storage):
                return scheduler
        # A tenth of a second, once for a scheduler that belongs to no pipeline we know:
        # an instance refers to its class.
        for found in gc.get_referrers(*_classes(SchedulerMixin)):
            if isinstance(found, SchedulerMixin) and _owns(found, storage):
                self._met.add(found)
                return found
        return None

    def _moved(
        self, offset: int, text: torch.Tensor | None, key: tuple[int, Any]
    ) -> _Run | None:
        """Find the run whose text tensor is gone, and has come back as an equal one.

        A loop may join its prompts anew at every step. What was there must be gone, so
        that no other request can be taken for this one.
        """
        if text is None:
            return None
        found = [
            (other, run)
            for other, run in list(self._runs.items())
            if other[0] == key[0]
            and run.text is not None
            and run.text.expired()
            and any(strand.expects(offset) for strand in run.strands)
        ]
        if not found:
            return None
        digest = _digest(text)
        same = [each for each in found if all(map(torch.equal, each[1].digest, digest))]
        if len(same) != 1:
            return None
        other, run = same[0]
        del self._runs[other]
        self._runs[key] = run
        self._watch(run, key, text)
        return run

    def _watch(self, run: _Run, key: tuple[int, Any], text: Any) -> None:
        """Let a run's features go with its text, should it end before its last step."""
        if text is None:
            return
        run.text = StorageWeakRef(text.untyped_storage())
        runs = weakref.ref(self)
        places = sum(strand.calls for strand in run.strands)
        begun = places + (1 if run.strands else 0)

        def gone(_: Any) -> None:
            requests = runs()
            # A text that has served at one place only may be a loop's, joined anew.
            served = sum(strand.calls for strand in run.strands) > begun
            if requests is not None and served and requests._runs.get(key) is run:
                del requests._runs[key]

        run.watch = weakref.ref(text if text._base is None else text._base, gone)

    def _warn(self, message: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(message, stacklevel=5)


def step_of(scheduler: SchedulerMixin | None) -> Callable[[int], int]:
    """Return which sampling step, from 0, each call of a run belongs to.

    Heun's kind of schedulers corrects every step by a second call. PNDM corrects its
    first step so, or with Runge-Kutta steps spends four calls on each of those.

    Raises:
        ValueError: If it makes several calls per step and does not say which.
    """
    if isinstance(scheduler, PNDMScheduler):
        if scheduler.config.skip_prk_steps:  # type: ignore[attr-defined]
            return lambda call: max(call - 1, 0)
        # None before its time steps are set.
        prk = 0 if scheduler.prk_timesteps is None else len(scheduler.prk_timesteps)
        return lambda call: call // 4 if call < prk else prk // 4 + call - prk
    order = getattr(scheduler, "order", 1)
    if order == 1:
        return lambda call: call
    if not hasattr(scheduler, "state_in_first_order"):
        raise ValueError(
            f"{type(scheduler).__name__} makes {order} calls per step and does not say "
            "which: the clock serves schedulers with one call per step, PNDM, and "
            "those with state_in_first_order (Heun, KDPM2, DPM-SDE)"
        )
    return lambda call: call // order


def _grid_of(timestep: Any) -> torch.UntypedStorage | None:
    """Return the storage that a time step is an element of; None for a number."""
    if not isinstance(timestep, torch.Tensor):
        return None
    if timestep.numel() != 1 and any(timestep.stride()):
        return None  # one per row, copied together
    return timestep.untyped_storage()


def _classes(kind: type[Any]) -> list[type[Any]]:
    """Return a class and all that derive from it."""
    found = [kind]
    for each in kind.__subclasses__():
        found += _classes(each)
    return found


def _owns(scheduler: Any, storage: torch.UntypedStorage) -> bool:
    steps = getattr(scheduler, "timesteps", None)
    if not isinstance(steps, torch.Tensor):
        return False
    return bool(steps.untyped_storage()._cdata == storage._cdata)


def _text_key(text: torch.Tensor | None) -> Any:
    if text is None:
        return None
    return text.untyped_storage()._cdata, text.storage_offset(), tuple(text.shape)


def _digest(text: torch.Tensor) -> tuple[torch.Tensor, ...]:
    wide = text.detach().float()
    return wide.sum(), wide.square().sum(), wide[..., ::7].sum()


def _signature(sample: torch.Tensor) -> torch.Tensor:
    flat = sample.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // _SIGNATURE)].clone()


def _distance(strand: _Strand, signature: torch.Tensor) -> float:
    before = strand.signature
    if before is None or before.shape != signature.shape:
        return float("inf")
    return float((before.to(signature) - signature).square().sum())
