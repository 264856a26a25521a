"""Train an adaptor on the teacher's trajectories (Algorithm 1).

The trajectories are recorded before, or anew for each epoch as in the paper.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from clockwork_diffusion.adaptor_error import adaptor_steps, error_of, held_out_error
from clockwork_diffusion.adaptors import build_adaptor
from clockwork_diffusion.clock import Clock
from clockwork_diffusion.contract import (
    INPUTS,
    LOOPS,
    check_inputs,
    history_of,
    inputs_of,
)
from clockwork_diffusion.predictors.linear import RIDGE
from clockwork_diffusion.trajectories import Recorded
from clockwork_experiments.base import failures
from clockwork_experiments.train.training import (
    Crew,
    Optimisation,
    Trained,
    fit,
    generator_for,
)
from clockwork_experiments.train.trajectories import FreshTrajectories


@dataclass(frozen=True)
class AdaptorSpec:
    """What adaptor to train, and how.

    Attributes:
        kind: A key of `clockwork_diffusion.adaptors.KINDS`.
        cut: A key of `clockwork_diffusion.unet.CUTS`.
        clock: The clock that it will run at; it is trained on that clock's adaptor
            steps alone. 1 where one of the last two fields says which steps these are.
        optimisation: The recipe.
        inputs: Which of `clockwork_diffusion.contract.INPUTS` it looks at.
        adaptor_steps: The adaptor steps, counted from 1 as in Table 3.
        every_step: Train on all steps, the first included: the model distillation of
            Table S2, which has neither a clock nor r_out.
        text_scale: What its text embeddings, of unit length, are multiplied by.
        epochs: Epochs with trajectories of their own, each of an equal share of the
            optimiser's steps; 0 trains on trajectories that were recorded before.
        subset: Prompts per epoch, none twice until all were seen; 0 takes all.
        also_clocks: Further clocks that it will run at, of a kind that is told gaps.
        on_policy: Each epoch's trajectories are the adaptor's own: the pipeline samples
            at its clock with what it has learned so far, and what it is to predict is
            what the teacher makes of the same latents.
        rank: Of kind ``low_rank``: the rank of its map across channels.
        ridge: Of kinds that are fitted: how many samples (places of a feature map) the
            simpler map counts for.
    """

    kind: str
    cut: str
    clock: int
    optimisation: Optimisation
    inputs: tuple[str, ...] = INPUTS
    text_scale: float = 1.0
    adaptor_steps: tuple[int, ...] = ()
    every_step: bool = False
    epochs: int = 0
    subset: int = 0
    also_clocks: tuple[int, ...] = ()
    on_policy: bool = False
    rank: int = 0
    ridge: float = RIDGE

    def __post_init__(self) -> None:
        """Reject steps, inputs and epochs that do not fit together."""
        if self.epochs and self.optimisation.steps % self.epochs:
            raise ValueError(
                f"{self.optimisation.steps} steps do not make {self.epochs} equal "
                "epochs"
            )
        if self.subset and not self.epochs:
            raise ValueError(f"subset {self.subset} needs epochs above 0")
        if self.on_policy and not self.epochs:
            raise ValueError("on_policy needs epochs above 0, to record in each")
        if self.on_policy and self.every_step:
            raise ValueError("on_policy and every_step: there is no full step to see")
        if self.also_clocks and not self.clock > 1:
            raise ValueError(
                f"also_clocks {list(self.also_clocks)} need a clock above 1 before them"
            )
        if min(self.also_clocks, default=2) < 2:
            raise ValueError(
                f"also_clocks {list(self.also_clocks)} are not all above 1"
            )
        check_inputs(self.inputs)
        if not 0 < self.text_scale < math.inf:
            raise ValueError(f"text_scale {self.text_scale} is not above 0")
        if self.text_scale != 1 and "text" not in self.inputs:
            raise ValueError(
                f"text_scale {self.text_scale} needs text among the inputs, not "
                f"{', '.join(self.inputs)} alone"
            )
        Clock(self.clock)
        if (self.clock > 1) + bool(self.adaptor_steps) + self.every_step != 1:
            raise ValueError(
                "give one of a clock above 1, adaptor steps and every_step, not "
                f"clock {self.clock}, adaptor steps {list(self.adaptor_steps)} and "
                f"every_step {str(self.every_step).lower()}"
            )
        if self.every_step and "r_out" in self.inputs:
            raise ValueError(
                "every_step needs inputs without r_out: the first step has no previous "
                f"one; given are {', '.join(self.inputs)}"
            )
        if self.adaptor_steps:
            Clock(adaptor_steps=self.adaptor_steps)

    @property
    def schedule(self) -> Clock | None:
        """The clock that it will run at; None if it runs at every step."""
        if self.every_step:
            return None
        if self.adaptor_steps:
            return Clock(adaptor_steps=self.adaptor_steps)
        return Clock(self.clock)

    @property
    def schedules(self) -> tuple[Clock, ...]:
        """All clocks that it will run at; none if it runs at every step."""
        if self.schedule is None:
            return ()
        return (self.schedule, *map(Clock, self.also_clocks))

    def made_for(
        self,
        model: str,
        scheduler: str,
        steps: int,
        loop: str = LOOPS[0],
        also_steps: Sequence[int] = (),
    ) -> dict[str, Any]:
        """Return what the adaptor is for, as it is saved with it.

        Args:
            model: SHA-256 of the teacher's weights.
            scheduler: Key of the teacher's scheduler.
            steps: Number of sampling steps.
            loop: Which of `clockwork_diffusion.contract.LOOPS` the steps are of; noted
                if it is not sampling.
            also_steps: Further numbers of steps that it is trained for.
        """
        facts: dict[str, Any] = {"model": model, "scheduler": scheduler, "steps": steps}
        if also_steps:
            facts["steps"] = sorted({steps, *also_steps})
        facts["cut"] = self.cut
        if loop != LOOPS[0]:
            facts["loop"] = loop
        if self.every_step:
            return {**facts, "every_step": True}
        if self.adaptor_steps:
            return {**facts, "adaptor_steps": list(self.adaptor_steps)}
        if self.also_clocks:
            return {**facts, "clock": sorted({self.clock, *self.also_clocks})}
        return {**facts, "clock": self.clock}


class _Batch(NamedTuple):
    """Trajectories, rows of them, a step of each, and the full steps before it.

    Attributes:
        data: The trajectories.
        rows: Which rows.
        steps: The step of each.
        fulls: The last full steps before each, if not the clock's.
    """

    data: Recorded
    rows: torch.Tensor
    steps: torch.Tensor
    fulls: tuple[torch.Tensor, ...] = ()


class _Batches:
    """The batches of a training, each a function of the step number alone.

    Stored trajectories are drawn with replacement. Those of an epoch are gone through
    in a random order, and again in another if there are steps left.
    """

    def __init__(
        self,
        data: Recorded | FreshTrajectories,
        spec: AdaptorSpec,
        crew: Crew,
        prompts: Sequence[str] | None,
        acting: nn.Module | None = None,
    ) -> None:
        self.acting, self.schedule = acting, spec.schedule
        self.indices = adaptor_steps(spec.schedule, data.steps)
        self.fresh = data if isinstance(data, FreshTrajectories) else None
        if (self.fresh is not None) != bool(spec.epochs):
            raise ValueError(
                f"epochs {spec.epochs} need trajectories that are recorded "
                f"{'anew for each' if spec.epochs else 'before'}"
            )
        self.recipe, self.crew, self.prompts = spec.optimisation, crew, prompts
        self._data: Recorded | None = None
        self._epoch = -1
        if isinstance(data, FreshTrajectories):
            self.updates = self.recipe.steps // spec.epochs
            self.branches = data.spec.sampler.branches
            self.count = data.count * self.branches
            # Each process records its own prompts, and learns what there is of them.
            self.part = crew.share(data.count)
        else:
            self._data = data
            self.count = len(data)
            if prompts is not None and self.count not in (
                len(prompts),
                2 * len(prompts),
            ):
                raise ValueError(
                    f"{len(prompts)} prompts do not fit {self.count} trajectories"
                )

    def of_step(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the rows and sampling steps of a whole batch."""
        size, seed = self.recipe.batch_size, self.recipe.seed
        if self.fresh is None:
            generator = generator_for(seed, step)
            rows = torch.randint(self.count, (size,), generator=generator)
            picked = torch.randint(len(self.indices), (size,), generator=generator)
            return rows, self.indices[picked]
        epoch, place = divmod(step, self.updates)
        samples, start = self.count * len(self.indices), place * size
        rounds = range(start // samples, (start + size - 1) // samples + 1)
        order = torch.cat(
            [
                torch.randperm(samples, generator=generator_for(seed, epoch, number))
                for number in rounds
            ]
        )
        chosen = order[start - rounds.start * samples :][:size]
        return chosen // len(self.indices), self.indices[chosen % len(self.indices)]

    def share_of_step(self, step: int) -> _Batch:
        """Return this process's trajectories, and its samples of a batch."""
        return _Batch(*self._share_of_step(step))

    def _share_of_step(self, step: int) -> tuple[Recorded, torch.Tensor, torch.Tensor]:
        rows, steps = self.of_step(step)
        if self.fresh is None:
            assert self._data is not None
            own = self.crew.share(len(rows))
            return self._data, rows[own.start : own.stop], steps[own.start : own.stop]
        epoch = step // self.updates
        if epoch != self._epoch:
            self._data = None  # makes room
            policy = () if self.acting is None else ((self.acting, self.schedule),)
            self._data = self.fresh.of_epoch(epoch, self.part, *policy)
            self._epoch = epoch
        assert self._data is not None
        first = self.part.start * self.branches
        mine = (rows >= first) & (rows < self.part.stop * self.branches)
        return self._data, rows[mine] - first, steps[mine]

    def describe(self, step: int) -> str:
        """Name a batch by its prompts, or by its rows."""
        rows, _ = self.of_step(step)
        if self.fresh is not None:
            places = self.fresh.prompts_of(step // self.updates)
            places = places[(rows // self.branches).unique()]
            texts = [self.fresh.prompts[place] for place in places.tolist()]
        elif self.prompts is not None:
            branches = self.count // len(self.prompts)
            places = (rows // branches).unique()
            texts = [self.prompts[place] for place in places.tolist()]
        else:
            return f"trajectories {', '.join(map(str, rows.unique().tolist()))}"
        quoted = (json.dumps(text, ensure_ascii=False) for text in texts)
        return f"prompts {', '.join(quoted)}"


class _Pairs:
    """Batches of pairs of two steps, whatever the gap between them.

    Each is a function of its number alone: it is of one number of steps, its rows are
    drawn with replacement, and of each a gap and a step that has one so long.
    """

    def __init__(self, data: Sequence[Recorded], spec: AdaptorSpec, crew: Crew) -> None:
        self.data, self.recipe, self.crew = data, spec.optimisation, crew
        self.longest = max(clock.every for clock in spec.schedules) - 1
        if spec.adaptor_steps:
            # One after the other, they look back further and further.
            self.longest = len(spec.adaptor_steps)

    def _of_step(
        self, step: int
    ) -> tuple[int, torch.Tensor, torch.Tensor, torch.Tensor]:
        generator = generator_for(self.recipe.seed, step)

        def drawn(count: int | torch.Tensor) -> torch.Tensor:
            share = torch.rand(self.recipe.batch_size, generator=generator)
            return (share * count).long()

        chosen = int(torch.randint(len(self.data), (), generator=generator))
        data = self.data[chosen]
        rows, gaps = drawn(len(data)), 1 + drawn(min(self.longest, data.steps - 1))
        return chosen, rows, gaps + drawn(data.steps - gaps), gaps

    def share_of_step(self, step: int) -> _Batch:
        """Return the trajectories of a batch, and this process's samples of it."""
        chosen, rows, steps, gaps = self._of_step(step)
        own = self.crew.share(len(rows))
        part = slice(own.start, own.stop)
        rows, steps, gaps = rows[part], steps[part], gaps[part]
        return _Batch(self.data[chosen], rows, steps, (steps - gaps,))

    def describe(self, step: int) -> str:
        """Name a batch by its rows."""
        chosen, rows, *_ = self._of_step(step)
        listed = ", ".join(map(str, rows.unique().tolist()))
        return f"trajectories {listed} of {self.data[chosen].steps} steps"


class _OnPolicy(nn.Module):
    """An adaptor, and what it was when an epoch began, which samples that epoch.

    Both are in the training's state, so that one that goes on within an epoch records
    what it has recorded before.
    """

    def __init__(self, adaptor: nn.Module) -> None:
        super().__init__()
        self.adaptor = adaptor
        self.acting = copy.deepcopy(adaptor).requires_grad_(False)

    def begin_epoch(self) -> None:
        """Let the adaptor sample as it is now."""
        self.acting.load_state_dict(self.adaptor.state_dict())

    @staticmethod
    def of(trained: Trained) -> nn.Module:
        """Return the adaptor of a training of both."""
        assert isinstance(trained.module, _OnPolicy)
        return trained.module.adaptor


def new_adaptor(
    spec: AdaptorSpec,
    unet: UNet2DConditionModel,
    text_channels: int,
    made_for: dict[str, Any],
) -> Any:
    """Return an untrained adaptor; its weights follow from the recipe's seed.

    Args:
        spec: Which.
        unet: The teacher's UNet, of which the sizes count; may lie on the meta device.
        text_channels: Width of the pooled text embedding.
        made_for: What it is for, to be saved with it.
    """
    more: dict[str, Any] = {"rank": spec.rank} if spec.rank else {}
    if spec.text_scale != 1:
        more["text_scale"] = spec.text_scale
    torch.manual_seed(spec.optimisation.seed)
    return build_adaptor(
        spec.kind,
        unet,
        spec.cut,
        text_channels,
        made_for=made_for,
        inputs=spec.inputs,
        **more,
    )


def train_adaptor(
    adaptor: nn.Module,
    data: Recorded | FreshTrajectories,
    spec: AdaptorSpec,
    state: Path,
    device: torch.device,
    work: str = "",
    prompts: Sequence[str] | None = None,
    crew: Crew | None = None,
    also: Sequence[Recorded] = (),
) -> Trained:
    """Minimise ‖r_t^out − φ(r_t^in, r_{t+1}^out, t_emb, text_emb)‖₂ over φ.

    Each step of the optimiser sees a random batch of (trajectory, adaptor step) pairs;
    both branches of guidance are samples. A kind with a ``fit`` is fitted instead, and
    one with ``any_gap`` learns from pairs of any gap.

    Args:
        adaptor: φ, trained in place.
        data: The teacher's trajectories.
        spec: The recipe.
        state: Resumable state of the training.
        device: Where to train.
        work: Says what the data and the code are; a state of other work is refused.
        prompts: The prompts of stored trajectories in their order, to be named in
            errors.
        crew: The processes that train together, each on its share of every batch; one
            alone if left out.
        also: Trajectories of other numbers of steps, for a kind with ``any_gap``.

    Raises:
        ValueError: If the adaptor has nothing to train or other inputs than the spec;
            if there are not as many trajectories per prompt as branches of guidance;
            or if the loss is not finite: the message names the first such step, and
            the prompts (or else the rows of the data) of its batch.
    """
    crew = crew or Crew()
    _check(adaptor, spec, also)
    if _is_fitted(adaptor):
        return _fitted(adaptor, data, spec, device)
    adaptor = adaptor.to(device)
    policy = _OnPolicy(adaptor) if spec.on_policy else None
    acting = None if policy is None else policy.acting
    batches: _Batches | _Pairs
    if _any_gap(adaptor):
        if isinstance(data, FreshTrajectories) or history_of(adaptor) > 1:
            raise ValueError(
                f"adaptor kind {spec.kind!r} learns pairs of any gap, which needs "
                "trajectories that are recorded before, and a history of 1"
            )
        batches = _Pairs([data, *also], spec, crew)
    else:
        batches = _Batches(data, spec, crew, prompts, acting)
    watch = _Watch(batches, state, crew, device)

    def loss_of_step(step: int) -> torch.Tensor:
        if policy is not None and step % (spec.optimisation.steps // spec.epochs) == 0:
            policy.begin_epoch()
        recorded, rows, steps, *fulls = batches.share_of_step(step)
        if len(rows):
            given = (adaptor, recorded, rows, steps, spec.schedule, device)
            error = error_of(*given, *filter(None, fulls))
            loss = error.flatten(1).norm(dim=1).mean()
        else:
            loss = torch.zeros((), device=device, requires_grad=True)
        if crew.count > 1:
            loss = loss * (len(rows) / spec.optimisation.batch_size)
        watch.see(step, loss.detach())
        return loss

    trained_module = adaptor if policy is None else policy
    given = (trained_module, loss_of_step, spec.optimisation, state)
    try:
        trained = fit(*given, name="adaptor", work=work, crew=crew)
    except ValueError:
        # `fit` may be the first to look, and it knows the step alone.
        watch.refuse()
        raise
    return trained if policy is None else replace(trained, module=policy.of(trained))


def _any_gap(adaptor: nn.Module) -> bool:
    return bool(getattr(adaptor, "any_gap", False))


def _is_fitted(adaptor: nn.Module) -> bool:
    return callable(getattr(adaptor, "fit", None))


def _check(adaptor: nn.Module, spec: AdaptorSpec, also: Sequence[Recorded]) -> None:
    """Reject an adaptor that cannot be trained as the spec says."""
    if not any(parameter.requires_grad for parameter in adaptor.parameters()):
        raise ValueError(f"adaptor kind {spec.kind!r} has nothing to train")
    if also and not _any_gap(adaptor):
        raise ValueError(f"adaptor kind {spec.kind!r} is for one number of steps")
    if _is_fitted(adaptor):
        return
    if spec.also_clocks and not _any_gap(adaptor):
        raise ValueError(f"adaptor kind {spec.kind!r} is for one clock")
    if set(inputs_of(adaptor)) != set(spec.inputs):
        raise ValueError(
            f"the adaptor's inputs are {', '.join(inputs_of(adaptor))}, "
            f"and the spec's are {', '.join(spec.inputs)}"
        )


class _Watch:
    """Notices the first loss that is not finite, and seldom waits for the device."""

    def __init__(
        self,
        batches: _Batches | _Pairs,
        state: Path,
        crew: Crew,
        device: torch.device,
    ) -> None:
        self.batches, self.state, self.crew = batches, state, crew
        self.every = _every(device)
        self._first_bad = torch.full((), -1, device=device)

    def see(self, step: int, loss: torch.Tensor) -> None:
        """Take note of a process's part of the loss; now and then, look at it."""
        bad = (self._first_bad < 0) & ~self.crew.total(loss).isfinite()
        self._first_bad.masked_fill_(bad, step)
        if step % self.every == 0:
            self.refuse()

    def refuse(self) -> None:
        """Raise an error if one was not finite.

        Raises:
            ValueError: Naming the first such step, and what its batch was.
        """
        step = int(self._first_bad)
        if step < 0:
            return
        # It would lead here again, and stand in the way of another recipe.
        kept = failures.set_aside(self.state)
        batch = self.batches.describe(step)
        raise ValueError(
            f"adaptor: the loss is not finite at step {step}, of {batch}{kept}"
        )


def _fitted(
    adaptor: Any,
    data: Recorded | FreshTrajectories,
    spec: AdaptorSpec,
    device: torch.device,
) -> Trained:
    """Fit an adaptor in closed form; its one loss is that of what it was fitted to."""
    if not spec.schedules or spec.on_policy:
        raise ValueError(
            f"adaptor kind {spec.kind!r} is fitted: it needs a clock, or adaptor "
            "steps, and has no policy"
        )
    began = time.monotonic()
    recorded = data.of_epoch(0) if isinstance(data, FreshTrajectories) else data
    adaptor.cpu().fit(recorded, spec.schedules, ridge=spec.ridge)
    seconds = time.monotonic() - began
    loss = held_out_error(adaptor, recorded, spec.schedule, device).l2
    if not math.isfinite(loss):
        raise ValueError(f"adaptor: the loss of the fit is {loss}")
    return Trained(adaptor.eval(), [(0, loss)], seconds, [seconds])


def held_out_errors(
    module: nn.Module, heldout: Recorded, spec: AdaptorSpec, device: torch.device
) -> dict[str, Any]:
    """Return what an adaptor misses of trajectories that it has not seen, by clock."""
    error = held_out_error(module, heldout, spec.schedule, device)
    measured: dict[str, Any] = error.to_json()
    for clock in spec.also_clocks:
        error = held_out_error(module, heldout, clock, device)
        measured.setdefault("also_clocks", {})[str(clock)] = error.to_json()
    return measured


def _every(device: torch.device) -> int:
    """Return after how many steps to look at the loss; it stalls a GPU."""
    return 1 if device.type == "cpu" else 50
