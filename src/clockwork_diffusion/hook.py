"""Put methods on a pipeline's UNet, and take them off, whatever else hangs on it.

Each UNet has one `Hook` at most, which holds all methods that are on it: a depth, and a
choice of passes (Clockwork, DeepCache's branches). It is the *innermost* forward: what
others wrap around the UNet (accelerate's offloading, diffusers' own hooks) stays around
it and does its work at each call, whichever came first. Taken off, it leaves the chain
where it finds itself; under a wrapper that it does not know it stays as a mere relay to
the forward that was there before.

Why not diffusers' ``ModelHook``: one with a forward of its own bypasses every hook that
was registered before it; removing it from its registry drops what lies on top, and what
accelerate has put away brings it back; and a copy of a hooked model runs the original's
modules.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import warnings
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from diffusers import SchedulerMixin, UNet2DConditionModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from diffusers.utils.peft_utils import apply_lora_scale

from clockwork_diffusion.clock import Clock
from clockwork_diffusion.contract import ages_of
from clockwork_diffusion.made_for import (
    facts_of_use,
    is_made_for_something,
    warn_of_another_use,
)
from clockwork_diffusion.passes import UNetPasses, WholePasses
from clockwork_diffusion.pooling import Pool, PromptPooler
from clockwork_diffusion.requests import Call, Requests, step_of
from clockwork_diffusion.summary import Summary
from clockwork_diffusion.unet import describe

_KEY = "_clockwork_hook"
"""Where a UNet keeps its hook."""

HANGING = ("forward", "_old_forward", "_hf_hook", "_diffusers_hook", _KEY)
"""The attributes by which something hangs on a UNet's forward."""

Observer = Callable[[int, torch.Tensor, Any], None]
"""``(index of the sampling step from 0, timestep, what the pass yielded)``."""


class Method(Protocol):
    """A way to run a UNet's passes."""

    @property
    def name(self) -> str:
        """As it is called in messages."""

    def passes(self, unet: UNet2DConditionModel) -> UNetPasses:
        """Return its passes of a UNet, which may end at a level."""


@dataclass
class Settings:
    """A method, and how it runs.

    Attributes:
        method: The method.
        clock: Decides between its passes.
        pool: Maps the UNet's text features to what an adaptor is told, or None.
        observe: Called after each pass.
        always: Whether the method's own full pass runs even where the clock never asks
            for a light one; else the UNet's own forward does.
        summary: Is told of each pass.
    """

    method: Method
    clock: Clock
    pool: Pool | None = None
    observe: Observer | None = None
    always: bool = False
    summary: Summary = field(default_factory=Summary)

    def close(self) -> None:
        """End what listens to the pipeline."""
        if isinstance(self.pool, PromptPooler):
            self.pool.close()


class Hook:
    """The forward of a UNet with methods on it.

    Attributes:
        unet: The UNet.
        original: The forward that it relays to.
        settings: The method that chooses its passes, or None.
        depth: Makes of the UNet one that ends at a level; None for the whole.
        requests: The runs under way.
    """

    # No __dict__: functools.update_wrapper would copy it to whatever wraps this.
    __slots__ = (
        "__weakref__",
        "_passes",
        "_pipes",
        "_place",
        "_view",
        "depth",
        "original",
        "requests",
        "settings",
        "unet",
    )

    def __init__(self, unet: UNet2DConditionModel) -> None:
        """Make a hook that relays; see `hook_of`."""
        self.unet = unet
        self.original: Callable[..., Any] = functools.partial(type(unet).forward, unet)
        self.settings: Settings | None = None
        self.depth: Callable[[UNet2DConditionModel], UNet2DConditionModel] | None = None
        self._pipes: list[weakref.ref[Any]] = []
        self._forget()

    def _forget(self) -> None:
        self.requests = Requests(functools.partial(_schedulers, self.pipes))
        self._passes: UNetPasses | None = None
        self._place: Any = None
        self._view: Any = None

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """The forward underneath, where its signature is looked for."""
        return self.original

    @property
    def idle(self) -> bool:
        """Whether no method is on."""
        return self.settings is None and self.depth is None

    def __deepcopy__(self, memo: dict[int, Any]) -> Hook:
        """Copy along with the UNet, without the runs under way."""
        new = object.__new__(type(self))
        memo[id(self)] = new
        new._pipes = []
        for name in ("unet", "original", "settings", "depth"):
            setattr(new, name, copy.deepcopy(getattr(self, name), memo))
        new._forget()
        return new

    def set(
        self,
        *,
        settings: Settings | None = None,
        depth: Callable[[UNet2DConditionModel], UNet2DConditionModel] | None = None,
    ) -> None:
        """Take up other methods.

        Raises:
            ValueError: If they do not fit the UNet or each other; all is as before.
        """
        before = self.settings, self.depth
        self.settings, self.depth = settings, depth
        try:
            self._bind()
        except ValueError:
            self.settings, self.depth = before
            raise
        self._forget()

    def _bind(self) -> UNetPasses:
        """Make the passes of the methods that are on."""
        view: Any = self.unet
        forward = self.original
        if self.depth is not None:
            view = self.depth(self.unet)
            forward = view.forward
        settings = self.settings
        passes: UNetPasses = WholePasses(view, forward)
        if settings is not None:
            asked = settings.method.passes(view)
            asked.check(settings.clock)
            if settings.always or settings.clock.needs_adaptor:
                passes = asked
        self._passes, self._view = passes, view
        self._place = (self.unet.dtype, self.unet.device)
        return passes

    def _current(self, first: bool) -> UNetPasses:
        """Return the passes; anew if the UNet has moved or has other parts since."""
        if first and self._place != (self.unet.dtype, self.unet.device):
            self._passes = None
        if first and self._view is not None and self._view is not self.unet:
            blocks = ("down_blocks", "mid_block", "up_blocks")
            for name, part in self.unet._modules.items():
                if name not in blocks and self._view._modules.get(name) is not part:
                    self._passes = None
        return self._passes or self._bind()

    def meet(self, pipe: Any) -> None:
        """Remember a pipeline, whose scheduler may sample."""
        if pipe is not self.unet and all(pipe is not known for known in self.pipes()):
            # What takes no weak reference is met again by its scheduler.
            with contextlib.suppress(TypeError):
                self._pipes.append(weakref.ref(pipe))

    def pipes(self) -> list[Any]:
        """Return the pipelines that were met and live."""
        met = [reference() for reference in self._pipes]
        return [pipe for pipe in met if pipe is not None]

    @torch.compiler.disable
    def __call__(
        self,
        sample: torch.Tensor,
        timestep: Any,
        encoder_hidden_states: torch.Tensor,
        *args: Any,
        return_dict: bool = True,
        **kwargs: Any,
    ) -> Any:
        """Run the pass that is due, in diffusers' calling convention."""
        if self.idle:
            return self.original(
                sample,
                timestep,
                encoder_hidden_states,
                *args,
                return_dict=return_dict,
                **kwargs,
            )
        if args:
            names = _names_after_text(type(self.unet).forward)
            kwargs |= zip(names, args, strict=False)
        eps = _with_lora_scale(
            self.unet, self._run, sample, timestep, encoder_hidden_states, **kwargs
        )
        return UNet2DConditionOutput(sample=eps) if return_dict else (eps,)

    def _run(
        self, sample: torch.Tensor, timestep: Any, text: torch.Tensor, **kwargs: Any
    ) -> torch.Tensor:
        settings = self.settings
        if settings is None:
            step = self._current(True).full(sample, timestep, text, **kwargs)
            return step.eps  # type: ignore[no-any-return]
        call = self.requests.place(sample, timestep, _conditioning(text, kwargs))
        passes = self._current(call.first)
        if call.first:
            self._begin(settings, call, passes, sample)
        pooled = None if settings.pool is None else settings.pool(text)
        if call.first:
            given = (sample, timestep, text)
            settings.summary.begin(passes, given, kwargs, pooled)
        started = settings.summary.start(sample)
        step = call.memory.run(
            passes,
            settings.clock,
            call.step,
            sample,
            timestep,
            text,
            pooled,
            more=call.more,
            last=call.last,
            log_snr=call.log_snr() if ages_of(passes) == "log_snr" else None,
            **kwargs,
        )
        _check_output(call, step.eps)
        seconds = settings.summary.seconds(sample, started)
        settings.summary.note(
            call.step, call.memory.full, seconds, self.requests.kept()
        )
        if settings.observe is not None:
            settings.observe(call.step, timestep, step)
        return step.eps  # type: ignore[no-any-return]

    def _begin(
        self, settings: Settings, call: Call, passes: UNetPasses, sample: torch.Tensor
    ) -> None:
        """Check what can only be known when a run begins."""
        if call.steps is not None:
            settings.clock.full_steps(call.steps)
        match = getattr(passes, "match", None)
        if match is not None:
            match(self.unet.dtype, sample.device)
        adaptor = getattr(settings.method, "adaptor", None)
        if is_made_for_something(adaptor) and call.scheduler is not None:
            cut: str = getattr(settings.method, "cut", "")
            facts = facts_of_use(self.unet, call.scheduler, settings.clock, cut)
            warn_of_another_use(adaptor, facts)
        for pipe in self.pipes():
            if getattr(getattr(pipe, "unet", None), "_orig_mod", None) is self.unet:
                warnings.warn(
                    "the UNet was compiled after the method was applied, which leaves "
                    "it as slow as before: apply with compile=True instead",
                    stacklevel=2,
                )


def _check_output(call: Call, eps: torch.Tensor) -> None:
    """Refuse outputs that are not finite when a run ends: no step waits for a GPU.

    Raises:
        ValueError: If there are such, naming the first step. Their rows are branches of
            guidance, and not a `finite.NotFiniteError`'s.
    """
    passes = call.memory.finite
    passes.append((call.step, torch.isfinite(eps).all()))
    if call.last:
        bad = [step for step, finite in passes if not finite]
        passes.clear()
        if bad:
            raise ValueError(
                f"the UNet's output is not finite from step {bad[0] + 1} of "
                f"{call.step + 1} on, in {eps.dtype}: the images would be black"
            )


def hook_of(pipe: Any) -> Hook | None:
    """Return the hook of a pipeline's UNet, or None if it has none."""
    found: Hook | None = vars(unet_of(pipe)).get(_KEY)
    return found


def unet_of(pipe: Any) -> Any:
    """Return a pipeline's UNet, or the UNet itself; the one inside, if compiled."""
    unet = getattr(pipe, "unet", pipe)
    return getattr(unet, "_orig_mod", unet)


def put(pipe: Any, settings: Settings) -> Summary:
    """Put a method on a pipeline's UNet.

    Raises:
        ValueError: If another is on, the UNet is compiled or wrapped, or the method
            does not fit; nothing is changed then.
    """
    _check_scheduler(pipe)
    hook = hook_of(pipe)
    if hook is not None and hook.settings is not None:
        raise ValueError(
            f"{hook.settings.method.name} is applied to this UNet already: remove it "
            f"before applying {settings.method.name}"
        )
    with _linked(pipe) as hook:
        hook.set(settings=settings, depth=hook.depth)
    return settings.summary


def take(pipe: Any, kind: type) -> None:
    """Take a method of a kind off a pipeline's UNet; if it is not on, do nothing."""
    hook = hook_of(pipe)
    if hook is None or hook.settings is None:
        return
    if isinstance(hook.settings.method, kind):
        hook.settings.close()
        hook.set(depth=hook.depth)
        _settle(hook)


@dataclass(frozen=True)
class _Given:
    """Passes that are given as they are."""

    given: UNetPasses
    name: str = "a method of one's own"

    def passes(self, unet: UNet2DConditionModel) -> UNetPasses:
        """Return the passes, which are of the UNet that they were made for."""
        return self.given


@contextlib.contextmanager
def sampling_with(
    pipe: Any,
    passes: UNetPasses,
    clock: Clock | None = None,
    *,
    pool: Pool | None = None,
    observe: Observer | None = None,
) -> Iterator[Summary]:
    """Let a pipeline sample with passes of one's own within a block.

    Args:
        pipe: A diffusers pipeline with a ``unet``.
        passes: The passes; they must not call the pipeline's UNet as a whole.
        clock: Decides between them; full at every step if left out.
        pool: As for `apply_clockwork`.
        observe: As for `apply_clockwork`, with what these passes yield.

    Raises:
        ValueError: As `apply_clockwork`.
    """
    clock = Clock() if clock is None else clock
    summary = put(
        pipe,
        Settings(
            _Given(passes),
            clock,
            pool=pool,
            observe=observe,
            always=True,
            summary=Summary(type(passes).__name__),
        ),
    )
    try:
        yield summary
    finally:
        take(pipe, _Given)


def put_depth(
    pipe: Any, depth: Callable[[UNet2DConditionModel], UNet2DConditionModel]
) -> None:
    """Let a pipeline's UNet end at a level.

    Raises:
        ValueError: If one is set already, or as `put`.
    """
    hook = hook_of(pipe)
    if hook is not None and hook.depth is not None:
        raise ValueError("depth-skip is applied to this UNet already: remove it first")
    with _linked(pipe) as hook:
        hook.set(settings=hook.settings, depth=depth)


def take_depth(pipe: Any) -> None:
    """Give a pipeline its whole UNet back; without depth-skip, do nothing."""
    hook = hook_of(pipe)
    if hook is not None and hook.depth is not None:
        hook.set(settings=hook.settings)
        _settle(hook)


@contextlib.contextmanager
def _linked(pipe: Any) -> Iterator[Hook]:
    """Yield the hook of a pipeline, in its place; take an idle one out again."""
    unet = unet_of(pipe)
    compiled = getattr(pipe, "unet", pipe) is not unet
    if compiled or getattr(unet, "_compiled_call_impl", None) is not None:
        raise ValueError(
            "the UNet is compiled already, and a method cannot be put inside: give the "
            "UNet as it is, and compile=True"
        )
    if not isinstance(unet, torch.nn.Module):
        raise ValueError(f"{type(pipe).__name__} has no UNet")
    hook = hook_of(unet) or Hook(unet)
    _link(hook)
    vars(unet)[_KEY] = hook
    hook.meet(pipe)
    try:
        yield hook
    finally:
        _settle(hook)


def _settle(hook: Hook) -> None:
    """Take a hook out of its place if no method is on, where it finds itself."""
    if not hook.idle:
        return
    for holder, name in _slots(hook.unet):
        if _read(holder, name) is hook:
            _write(holder, name, hook.original)
            vars(hook.unet).pop(_KEY, None)
            return


def _link(hook: Hook) -> None:
    """Put a hook under all wrappers of a UNet's forward.

    Raises:
        ValueError: If one of them is unknown, and what it does cannot be kept.
    """
    unet = hook.unet
    found: Any = None
    for holder, name in _slots(unet):
        found = _read(holder, name)
        if found is hook:
            return
    if found is None or _is_own(found, unet):
        _write(holder, name, hook)
    elif hook_of(unet) is not hook:
        # Else it is the relay that was left under this wrapper.
        raise ValueError(
            f"{describe(found)} lies on the UNet's forward: take it off and put it on "
            "again afterwards, around what is applied here"
        )


def _slots(unet: Any) -> Iterator[tuple[Any, str]]:
    """Yield where the forwards of a UNet are kept, the outermost first.

    Accelerate puts the forward that it wraps away in ``_old_forward``; diffusers' hooks
    put it in a reference of their own.
    """
    holder: Any = vars(unet)
    name = "forward"
    while True:
        yield holder, name
        found = _read(holder, name)
        made: Any = getattr(found, "func", None)
        module = getattr(made, "__module__", "")
        if module == "accelerate.hooks":
            holder, name = vars(unet), "_old_forward"
        elif module == "diffusers.hooks.hooks":
            (cell,) = made.__closure__
            holder = cell.cell_contents
            own = holder.original_forward is not None
            name = "original_forward" if own else "forward"
        else:
            return


def _read(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, dict) else getattr(holder, name)


def _write(holder: Any, name: str, forward: Any) -> None:
    own = isinstance(forward, functools.partial)
    if isinstance(holder, dict) and name == "forward" and own:
        # Nothing lies around it: the class's own forward needs no attribute.
        del holder[name]
    elif isinstance(holder, dict):
        holder[name] = forward
    else:
        setattr(holder, name, forward)


def _is_own(forward: Any, unet: Any) -> bool:
    """Tell whether a forward is the one of the UNet's class."""
    function = getattr(forward, "__func__", getattr(forward, "func", None))
    return function is type(unet).forward


def _check_scheduler(pipe: Any) -> None:
    for scheduler in _schedulers(lambda: [pipe]):
        step_of(scheduler)


def _schedulers(pipes: Callable[[], list[Any]]) -> list[SchedulerMixin]:
    return [
        part
        for pipe in pipes()
        for part in vars(pipe).values()
        if isinstance(part, SchedulerMixin)
    ]


def _conditioning(
    text: torch.Tensor | None, kwargs: dict[str, Any]
) -> torch.Tensor | None:
    """Return the tensor that stands for what a call is conditioned on."""
    if text is not None:
        return text
    added = (kwargs.get("added_cond_kwargs") or {}).values()
    return next((each for each in added if isinstance(each, torch.Tensor)), None)


@functools.cache
def _names_after_text(forward: Callable[..., Any]) -> tuple[str, ...]:
    names = tuple(inspect.signature(forward).parameters)
    return names[names.index("encoder_hidden_states") + 1 :]


@apply_lora_scale("cross_attention_kwargs")
def _with_lora_scale(
    unet: UNet2DConditionModel, call: Any, *args: Any, **kwargs: Any
) -> Any:
    """Call with the LoRA scale of the arguments in force, as diffusers' forward."""
    return call(*args, **kwargs)
