"""How far an adaptor's estimates lie from the teacher's features (Algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import nn

from clockwork_diffusion.clock import Clock
from clockwork_diffusion.contract import ages_of, history_of, inputs_of
from clockwork_diffusion.trajectories import Recorded


def error_of(
    adaptor: nn.Module,
    data: Recorded,
    rows: torch.Tensor,
    steps: torch.Tensor,
    clock: Clock | None,
    device: torch.device,
    fulls: Sequence[torch.Tensor] | None = None,
) -> torch.Tensor:
    """Return r_out − φ of some rows, each at its own step, ``(len(rows), c, h, w)``.

    Args:
        adaptor: φ, float32.
        data: Trajectories.
        rows: Which rows.
        steps: The step of each.
        clock: Which steps are full, for an adaptor that looks back on some of them.
        device: Where the adaptor is.
        fulls: The last full steps before each step, if not the clock's; newest first.

    Raises:
        ValueError: If a first step is among them, and the adaptor needs the one before.
    """
    earlier: list[torch.Tensor] = []
    more: dict[str, torch.Tensor] = {}
    counted = ages_of(adaptor)
    if counted is not None:
        if fulls is None:
            assert clock is not None
            fulls = last_full_steps(clock, steps, history_of(adaptor))
        earlier = list(fulls)
        at = data.log_snr if counted == "log_snr" else torch.arange(data.steps).float()
        more["ages"] = torch.stack([at[steps] - at[full] for full in earlier])
        more["ages"] = more["ages"].to(device)
    elif "r_out" in inputs_of(adaptor):
        if steps.min() < 1:
            raise ValueError("the first step has no previous r_out to learn from")
        earlier = [steps - 1]
    picked = data.pick(rows, steps, earlier, device)
    previous: torch.Tensor | None = None
    if more:
        previous = torch.stack(picked.earlier)
    elif earlier:
        (previous,) = picked.earlier
    estimate = adaptor(picked.r_in, previous, picked.t_emb, picked.pooled, **more)
    error: torch.Tensor = picked.r_out - estimate
    return error


def last_full_steps(
    clock: Clock, steps: torch.Tensor, history: int = 2
) -> list[torch.Tensor]:
    """Return the last full step before each step, and those before that.

    Until there are as many, the first stands for the missing.
    """
    found = []
    for step in steps.tolist():
        full = [index for index in range(step) if clock.is_full(index)][-history:]
        found.append([*reversed(full), *full[:1] * (history - len(full))])
    return list(torch.tensor(found).T)


def adaptor_steps(clock: Clock | None, steps: int) -> torch.Tensor:
    """Return the indices from 0 of the steps that use the adaptor, C(t) = 1.

    Without a clock, these are all.

    Raises:
        ValueError: If there is none, or an adaptor step lies beyond the last step.
    """
    if clock is None:
        return torch.arange(steps)
    clock.full_steps(steps)
    indices = [index for index in range(steps) if not clock.is_full(index)]
    if not indices:
        raise ValueError(f"{clock} over {steps} steps has no adaptor step")
    return torch.tensor(indices)


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


@torch.inference_mode()
def held_out_error(
    adaptor: nn.Module,
    data: Recorded,
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
        for rows in torch.arange(len(data)).split(256):
            steps = index.expand(len(rows))
            error = error_of(adaptor, data, rows, steps, schedule, device)
            error = error.double().flatten(1)
            drift = torch.zeros(1, 1, dtype=torch.float64)
            if index > 0:
                compared += len(rows)
                picked = data.pick(rows, steps, [steps - 1], torch.device("cpu"))
                drift = picked.r_out.double() - picked.earlier[0]
                drift = drift.flatten(1)
            sums += torch.stack(
                [
                    error.norm(dim=1).sum().cpu(),
                    error.square().mean(dim=1).sum().cpu(),
                    drift.norm(dim=1).sum(),
                    drift.square().mean(dim=1).sum(),
                ]
            )
    count = len(indices) * len(data)
    counts = torch.tensor([count, count, compared, compared])
    l2, mse, identity_l2, identity_mse = (sums / counts).tolist()
    return HeldOutError(l2, mse, identity_l2, identity_mse, count)
