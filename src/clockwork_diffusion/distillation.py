"""Train an adaptor on the teacher's unrolled trajectories (Algorithm 1)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clockwork_diffusion.adaptors import INPUTS, check_inputs
from clockwork_diffusion.clock import Clock
from clockwork_diffusion.training import Optimisation, Trained, fit, generator_for
from clockwork_diffusion.trajectories import Trajectories


@dataclass(frozen=True)
class AdaptorSpec:
    """What adaptor to train, and how.

    Attributes:
        kind: A key of `clockwork_diffusion.adaptors.KINDS`.
        cut: A key of `clockwork_diffusion.split.CUTS`.
        clock: The clock that it will run at; it is trained on that clock's adaptor
            steps alone. 1 where one of the last two fields says which steps these are.
        optimisation: The recipe.
        inputs: Which of `clockwork_diffusion.adaptors.INPUTS` it looks at.
        adaptor_steps: The adaptor steps, counted from 1 as in Table 3.
        every_step: Train on all steps, the first included: the model distillation of
            Table S2, which has neither a clock nor r_out.
    """

    kind: str
    cut: str
    clock: int
    optimisation: Optimisation
    inputs: tuple[str, ...] = INPUTS
    adaptor_steps: tuple[int, ...] = ()
    every_step: bool = False

    def __post_init__(self) -> None:
        """Reject steps and inputs that do not fit together."""
        check_inputs(self.inputs)
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

    def made_for(self, model: str, scheduler: str, steps: int) -> dict[str, Any]:
        """Return what the adaptor is for, as it is saved with it.

        Args:
            model: SHA-256 of the teacher's weights.
            scheduler: Key of the teacher's scheduler.
            steps: Number of sampling steps.
        """
        facts: dict[str, Any] = {"model": model, "scheduler": scheduler, "steps": steps}
        facts["cut"] = self.cut
        if self.every_step:
            return {**facts, "every_step": True}
        if self.adaptor_steps:
            return {**facts, "adaptor_steps": list(self.adaptor_steps)}
        return {**facts, "clock": self.clock}


@dataclass(frozen=True)
class HeldOutError:
    """Distance of an adaptor's estimate to the teacher's r_out on unseen prompts.

    Attributes:
        l2: Mean of ‖r_out − φ‖₂ over samples, the training loss.
        mse: Mean squared error per element.
        identity_l2: ``l2`` of the identity adaptor on the same samples, less those of
            the first step, which has nothing to reuse.
        identity_mse: ``mse`` of the identity adaptor.
        n: Number of samples: prompts × guidance branches × adaptor steps.
    """

    l2: float
    mse: float
    identity_l2: float
    identity_mse: float
    n: int

    def to_json(self) -> dict[str, float | int]:
        """Return the fields and the two ratios to identity."""
        return {
            **asdict(self),
            "l2_over_identity": self.l2 / self.identity_l2,
            "mse_over_identity": self.mse / self.identity_mse,
        }


def adaptor_steps(clock: int | Clock | None, steps: int) -> torch.Tensor:
    """Return the indices from 0 of the steps with C(t) = 1; of all without a clock.

    Raises:
        ValueError: If there is none, or an adaptor step lies beyond the last step.
    """
    if clock is None:
        return torch.arange(steps)
    schedule = clock if isinstance(clock, Clock) else Clock(clock)
    schedule.full_steps(steps)
    indices = [index for index in range(steps) if not schedule.is_full(index)]
    if not indices:
        raise ValueError(
            f"clock {schedule.every} over {steps} steps has no adaptor step"
        )
    return torch.tensor(indices)


def train_adaptor(
    adaptor: nn.Module,
    data: Trajectories,
    spec: AdaptorSpec,
    state: Path,
    device: torch.device,
    work: str = "",
    prompts: Sequence[str] | None = None,
) -> Trained:
    """Minimise ‖r_t^out − φ(r_t^in, r_{t+1}^out, t_emb, text_emb)‖₂ over φ.

    Each step of the optimiser sees a random batch of (trajectory, adaptor step) pairs;
    both branches of guidance are samples.

    Args:
        adaptor: φ, trained in place.
        data: The teacher's trajectories.
        spec: The recipe.
        state: Resumable state of the training.
        device: Where to train.
        work: Says what the data and the code are; a state of other work is refused.
        prompts: The prompts of the trajectories in their order, to be named in errors.

    Raises:
        ValueError: If the adaptor has nothing to train or other inputs than the spec;
            if there are not as many trajectories per prompt as branches of guidance;
            or if the loss is not finite: the message names the first such step, and
            the prompts (or else the rows of the data) of its batch.
    """
    indices = adaptor_steps(spec.schedule, data.steps)
    if not any(parameter.requires_grad for parameter in adaptor.parameters()):
        raise ValueError(f"adaptor kind {spec.kind!r} has nothing to train")
    if set(_inputs_of(adaptor)) != set(spec.inputs):
        raise ValueError(
            f"the adaptor's inputs are {', '.join(_inputs_of(adaptor))}, "
            f"and the spec's are {', '.join(spec.inputs)}"
        )
    if prompts is not None and len(data.r_in) not in (len(prompts), 2 * len(prompts)):
        raise ValueError(
            f"{len(prompts)} prompts do not fit {len(data.r_in)} trajectories"
        )
    adaptor = adaptor.to(device)
    batch_size, seed = spec.optimisation.batch_size, spec.optimisation.seed
    # Kept on the device, so that no step waits for it.
    first_bad = torch.full((), -1, device=device)

    def batch_of_step(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator = generator_for(seed, step)
        rows = torch.randint(len(data.r_in), (batch_size,), generator=generator)
        picked = torch.randint(len(indices), (batch_size,), generator=generator)
        return rows, indices[picked]

    def refuse_bad() -> None:
        step = int(first_bad)
        if step < 0:
            return
        # It would lead here again, and stand in the way of another recipe.
        state.unlink(missing_ok=True)
        rows, _ = batch_of_step(step)
        batch = _describe(rows, len(data.r_in), prompts)
        raise ValueError(f"adaptor: the loss is not finite at step {step}, of {batch}")

    def loss_of_step(step: int) -> torch.Tensor:
        error = _error(adaptor, data, *batch_of_step(step), device)
        loss = error.flatten(1).norm(dim=1).mean()
        bad = (first_bad < 0) & ~loss.detach().isfinite()
        first_bad.masked_fill_(bad, step)
        if step % _every(device) == 0:
            refuse_bad()
        return loss

    try:
        return fit(
            adaptor, loss_of_step, spec.optimisation, state, name="adaptor", work=work
        )
    except ValueError:
        # `fit` may be the first to look, and it knows the step alone.
        refuse_bad()
        raise


@torch.inference_mode()
def held_out_error(
    adaptor: nn.Module,
    data: Trajectories,
    clock: int | Clock | None,
    device: torch.device,
) -> HeldOutError:
    """Measure an adaptor and the identity on trajectories.

    Args:
        adaptor: φ.
        data: The teacher's trajectories.
        clock: The clock that decides which steps are measured; None measures all.
        device: Where to measure.

    Raises:
        ValueError: If no measured step has a previous one.
    """
    schedule = Clock(clock) if isinstance(clock, int) else clock
    indices = adaptor_steps(schedule, data.steps)
    if not int(indices.max()):
        raise ValueError("trajectories of 1 step leave nothing for identity to reuse")
    adaptor = adaptor.to(device).eval()
    sums = torch.zeros(4, dtype=torch.float64)
    compared = 0
    for index in indices:
        for rows in torch.arange(len(data.r_in)).split(256):
            steps = index.expand(len(rows))
            error = _error(adaptor, data, rows, steps, device, schedule)
            error = error.double().flatten(1)
            drift = torch.zeros(1, 1, dtype=torch.float64)
            if index > 0:
                compared += len(rows)
                drift = data.r_out[rows, steps].double() - data.r_out[rows, steps - 1]
                drift = drift.flatten(1)
            sums += torch.stack(
                [
                    error.norm(dim=1).sum().cpu(),
                    error.square().mean(dim=1).sum().cpu(),
                    drift.norm(dim=1).sum(),
                    drift.square().mean(dim=1).sum(),
                ]
            )
    count = len(indices) * len(data.r_in)
    counts = torch.tensor([count, count, compared, compared])
    l2, mse, identity_l2, identity_mse = (sums / counts).tolist()
    return HeldOutError(l2, mse, identity_l2, identity_mse, count)


def _error(
    adaptor: nn.Module,
    data: Trajectories,
    rows: torch.Tensor,
    steps: torch.Tensor,
    device: torch.device,
    schedule: Clock | None = None,
) -> torch.Tensor:
    """Return r_out − φ of some rows at some steps, ``(len(rows), c_out, h, w)``.

    An adaptor with a longer history needs the schedule, and rows of one step.
    """

    def at(features: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        return features[rows, steps].to(device, torch.float32)

    previous: torch.Tensor | None = None
    more: dict[str, torch.Tensor] = {}
    if getattr(adaptor, "history", 1) == 2:
        assert schedule is not None
        (step,) = steps.unique().tolist()
        full = [index for index in range(step) if schedule.is_full(index)]
        # Until there is a second full pass, the first stands for both.
        pair = [full[-1], full[-2:][0]]
        previous = torch.stack(
            [at(data.r_out, torch.full_like(steps, index)) for index in pair]
        )
        more["ages"] = torch.tensor([step - index for index in pair], device=device)
    elif "r_out" in _inputs_of(adaptor):
        if steps.min() < 1:
            raise ValueError("the first step has no previous r_out to learn from")
        previous = at(data.r_out, steps - 1)
    estimate = adaptor(
        at(data.r_in, steps),
        previous,
        data.t_emb[steps].to(device),
        data.pooled[rows].to(device),
        **more,
    )
    error: torch.Tensor = at(data.r_out, steps) - estimate
    return error


def _every(device: torch.device) -> int:
    """Return after how many steps to look at the loss; it stalls a GPU."""
    return 1 if device.type == "cpu" else 50


def _inputs_of(adaptor: nn.Module) -> tuple[str, ...]:
    return getattr(adaptor, "inputs", INPUTS)


def _describe(rows: torch.Tensor, count: int, prompts: Sequence[str] | None) -> str:
    """Name a batch by its prompts, or by its rows among ``count`` trajectories."""
    if prompts is None:
        return f"trajectories {', '.join(map(str, rows.unique().tolist()))}"
    branches = count // len(prompts)
    chosen = (rows // branches).unique().tolist()
    texts = (json.dumps(prompts[index], ensure_ascii=False) for index in chosen)
    return f"prompts {', '.join(texts)}"
