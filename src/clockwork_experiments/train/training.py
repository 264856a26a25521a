"""Train any module so that a killed run continues as if nothing had happened.

Every batch is a function of the step number alone, so the state on disk is the
modules, the optimiser and the step: no random state, no loader position. A run that is
killed and started again ends with the same weights as one that was left alone.

Several processes may train one module, each on its share of every batch. Their
gradients add up to those of the whole batch, so that all make the same updates as one
process would.
"""

from __future__ import annotations

import copy
import csv
import io
import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from clockwork_experiments.base import failures, interruption, storage

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Optimisation:
    """How to optimise.

    Attributes:
        steps: Number of optimiser steps.
        batch_size: Samples per step.
        lr: Peak learning rate.
        warmup: Steps of linear warm-up.
        schedule: ``constant`` or ``cosine`` (to zero at the last step).
        optimizer: ``adam`` or ``adamw``.
        weight_decay: Decoupled weight decay; AdamW only.
        ema: Decay of the exponential moving average of the weights; 0 turns it off.
        clip_norm: Largest gradient norm; 0 turns clipping off.
        seed: Seed of the initial weights and of every batch.
    """

    steps: int
    batch_size: int
    lr: float
    warmup: int = 0
    schedule: str = "constant"
    optimizer: str = "adam"
    weight_decay: float = 0.0
    ema: float = 0.0
    clip_norm: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Reject values that make no training."""
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} is less than 1")
        if self.schedule not in ("constant", "cosine"):
            raise ValueError(f"schedule {self.schedule!r} is not constant or cosine")
        if self.optimizer not in ("adam", "adamw"):
            raise ValueError(f"optimizer {self.optimizer!r} is not adam or adamw")

    def lr_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        scale = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        if self.schedule == "cosine":
            scale *= 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.lr * scale


@dataclass(frozen=True)
class Trained:
    """What training leaves.

    Attributes:
        module: The module, with averaged weights if they are averaged.
        history: Steps and their losses.
        seconds: Time spent, in all runs of a training that was resumed.
        times: Seconds spent until each entry of the history.
    """

    module: nn.Module
    history: list[tuple[int, float]]
    seconds: float
    times: list[float] = field(default_factory=list)

    @property
    def last_loss(self) -> float:
        """Return the mean of the last ten losses of the history."""
        last = [loss for _, loss in self.history[-10:]]
        return sum(last) / len(last)

    def curve(self, optimisation: Optimisation) -> str:
        """Return the loss curve as CSV."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(("step", "loss", "lr", "seconds"))
        for (step, loss), seconds in zip(self.history, self.times, strict=True):
            writer.writerow((step, loss, optimisation.lr_at(step), round(seconds, 3)))
        return text.getvalue()


@dataclass(frozen=True)
class Crew:
    """The processes that train one module together, as accelerate started them.

    Attributes:
        rank: Number of this process, from 0; the first one writes files.
        count: How many there are.
    """

    rank: int = 0
    count: int = 1

    def share(self, length: int) -> range:
        """Return this process's part of ``length`` items."""
        return range(
            length * self.rank // self.count, length * (self.rank + 1) // self.count
        )

    def total(self, value: torch.Tensor) -> torch.Tensor:
        """Return the sum over all processes."""
        if self.count == 1:
            return value
        from accelerate.utils import reduce

        total: torch.Tensor = reduce(value, reduction="sum")
        return total

    def add_gradients(
        self, parameters: Sequence[nn.Parameter], stop: bool = False
    ) -> bool:
        """Replace each gradient by its sum over all processes.

        Returns:
            Whether one of them wants to stop after this step: then all must, or the
            others would wait for it for ever.
        """
        if self.count == 1:
            return stop
        # In one piece, since each message has its price.
        own = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flag = own[0].new_full((1,), float(stop))
        total = self.total(torch.cat([*(each.flatten() for each in own), flag]))
        *parts, stops = total.split([*(each.numel() for each in own), 1])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)
        return bool(stops)


def join_crew() -> tuple[Crew, torch.device | None]:
    """Join the processes that ``accelerate launch`` started with this one.

    Returns:
        The crew, and this process's device; a crew of one and None if this process was
        started alone, for which accelerate is not even imported.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Crew(), None
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available())
    return Crew(state.process_index, state.num_processes), state.device


def generator_for(*key: int) -> torch.Generator:
    """Return a CPU generator for a key such as ``(seed, step)``."""
    seed = 0
    for part in key:
        seed = (seed * 1_000_003 + part + 1) % (2**63 - 1)
    return torch.Generator().manual_seed(seed)


def fit(
    module: nn.Module,
    loss_of_step: Callable[[int], torch.Tensor],
    optimisation: Optimisation,
    state_path: Path,
    *,
    name: str,
    work: str = "",
    save_seconds: float = 60.0,
    crew: Crew | None = None,
) -> Trained:
    """Minimise ``loss_of_step`` over the parameters of ``module``.

    Args:
        module: What is trained, in place, on the device where it lies.
        loss_of_step: Scalar loss of a step; it must depend on the step number alone.
            Of several processes, each returns its share, and their sum is the loss.
        optimisation: The recipe.
        state_path: Where the resumable state lies; kept until the caller removes it.
        name: What the progress bar calls the run.
        work: Says what else decides the outcome: data, code.
        save_seconds: Longest time between two saves of the state, which is also saved
            after each tenth of the steps.
        crew: The processes that train together; one alone if left out.

    Returns:
        The module with averaged weights (a copy, if ``ema`` is on).

    Raises:
        ValueError: If the loss is not finite, naming the step; or if the state on disk
            belongs to another recipe or other work.
        InterruptedError: If SIGTERM came, once the state is saved.
    """
    crew = crew or Crew()
    course = _Course(module, optimisation, state_path, work)
    last, start = optimisation.steps, course.step
    if start:
        log.info("%s resumes at step %d of %d", name, start, last)
    every, tenth = max(1, last // 200), max(1, last // 10)
    saved = time.monotonic()
    module.train()
    bar = tqdm(
        range(start, last),
        initial=start,
        total=last,
        desc=name,
        disable=True if crew.rank else None,
    )
    with interruption.noticing_sigterm() as terminated:
        for step in bar:
            for group in course.optimizer.param_groups:
                group["lr"] = optimisation.lr_at(step)
            try:
                loss = loss_of_step(step)
            except InterruptedError as error:
                # It was recording what to learn from, which takes longer than a step.
                course.save(step, crew)
                log.info("%s stops before step %d: %s", name, step, error)
                raise interruption.stopped(name, step, last) from error
            stop = course.update(step, loss, crew, terminated())
            if step % every == 0 or step == last - 1:
                value = float(crew.total(loss.detach()))
                if not math.isfinite(value):
                    # It would lead here again, and stand in the way of another recipe.
                    kept = failures.set_aside(state_path)
                    raise ValueError(
                        f"{name}: the loss is {value} at step {step}{kept}"
                    )
                course.history.append((step, value))
                course.times.append(course.seconds)
                bar.set_postfix(loss=f"{value:.4g}")
                log.info("%s step %d/%d loss %.5g", name, step, last, value)
            done, waited = step + 1, time.monotonic() - saved
            if done == last or stop or done % tenth == 0 or waited > save_seconds:
                course.save(done, crew)
                saved = time.monotonic()
            if stop and done < last:
                log.info("%s stops after step %d", name, step)
                raise interruption.stopped(name, done, last)
    result = module if course.average is None else course.average
    return Trained(result.eval(), course.history, course.seconds, course.times)


def fit_in_stages(
    module: nn.Module,
    optimisations: Sequence[Optimisation],
    loss_of: Callable[[nn.Module, int], Callable[[int], torch.Tensor]],
    state: Path,
    *,
    name: str,
    work: str = "",
) -> Trained:
    """Train a module in stages; each starts from the average of the one before.

    Args:
        module: What is trained, on the device where it lies.
        optimisations: The recipes, one after the other.
        loss_of: Returns the loss of a stage's steps, of the module as it is trained and
            the stage's number; called before the stage, and may freeze parameters.
        state: Where the resumable state lies; each stage adds its number to the name.
        name: What the progress bar calls the run.
        work: As `fit` takes it.

    Returns:
        The last stage's module, with the losses and the time of all stages.
    """
    history: list[tuple[int, float]] = []
    seconds = 0.0
    for index, optimisation in enumerate(optimisations):
        module = module.train().requires_grad_(True)
        trained = fit(
            module,
            loss_of(module, index),
            optimisation,
            state.with_suffix(f".{index}.pt"),
            name=f"{name}, stage {index + 1} of {len(optimisations)}",
            work=work,
        )
        module = trained.module
        history += trained.history
        seconds += trained.seconds
    return Trained(module, history, seconds)


class _Course:
    """A training on its way, which goes on where its state on disk left it."""

    def __init__(
        self, module: nn.Module, optimisation: Optimisation, path: Path, work: str
    ) -> None:
        self.module, self.recipe, self.path = module, optimisation, path
        self.work = work
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[
            optimisation.optimizer
        ]
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.optimizer: torch.optim.Optimizer = kind(
            self.parameters,
            lr=optimisation.lr,
            weight_decay=optimisation.weight_decay,
        )
        self.average: nn.Module | None = None
        if optimisation.ema:
            self.average = copy.deepcopy(module).requires_grad_(False)
        self.step, self._before = 0, 0.0
        self.history: list[tuple[int, float]] = []
        self.times: list[float] = []
        state = _read_state(path, optimisation, work)
        if state is not None:
            module.load_state_dict(state["module"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            self.step, self._before = state["step"], state["seconds"]
            self.history = [(int(step), float(loss)) for step, loss in state["history"]]
            self.times = list(state["times"])
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Time spent until now, in all runs."""
        return self._before + time.monotonic() - self._began

    def update(self, step: int, loss: torch.Tensor, crew: Crew, stop: bool) -> bool:
        """Change the weights; return whether a process of the crew wants to stop."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        stop = crew.add_gradients(self.parameters, stop)
        if self.recipe.clip_norm:
            nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip_norm)
        self.optimizer.step()
        if self.average is not None:
            _average(self.average, self.module, self.recipe.ema, step)
        return stop

    def save(self, step: int, crew: Crew) -> None:
        """Write the state after so many steps, if this is the crew's first process."""
        if crew.rank:
            return
        average = {} if self.average is None else self.average.state_dict()
        with storage.atomic_path(self.path) as partial, partial.open("wb") as file:
            torch.save(
                {
                    "recipe": asdict(self.recipe),
                    "work": self.work,
                    "module": self.module.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "average": average,
                    "step": step,
                    "seconds": self.seconds,
                    "history": self.history,
                    "times": self.times,
                },
                file,
            )


def _average(average: nn.Module, module: nn.Module, decay: float, step: int) -> None:
    # The short memory at the start keeps the random initial weights out.
    decay = min(decay, (step + 1) / (step + 10))
    with torch.no_grad():
        old: list[torch.Tensor] = list(average.parameters())
        new: list[torch.Tensor] = list(module.parameters())
        torch._foreach_lerp_(old, new, 1 - decay)
        for mine, theirs in zip(average.buffers(), module.buffers(), strict=True):
            mine.copy_(theirs)


def _read_state(
    path: Path, optimisation: Optimisation, work: str
) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises many kinds for a damaged file
        raise ValueError(
            f"{path} is corrupt or truncated; delete it to train from the start"
        ) from error
    if state["recipe"] != asdict(optimisation):
        raise ValueError(
            f"{path} is the state of another recipe ({state['recipe']}); "
            "delete it to train from the start"
        )
    if state.get("work", "") != work:
        raise ValueError(
            f"{path} is the state of training on other data or with other code; "
            "delete it to train from the start"
        )
    return state
