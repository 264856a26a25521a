"""Train an adaptor on the teacher's unrolled trajectories (Algorithm 1)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

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
            steps alone.
        optimisation: The recipe.
    """

    kind: str
    cut: str
    clock: int
    optimisation: Optimisation


@dataclass(frozen=True)
class HeldOutError:
    """Distance of an adaptor's estimate to the teacher's r_out on unseen prompts.

    Attributes:
        l2: Mean of ‖r_out − φ‖₂ over samples, the training loss.
        mse: Mean squared error per element.
        identity_l2: ``l2`` of the identity adaptor on the same samples.
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


def adaptor_steps(clock: int, steps: int) -> torch.Tensor:
    """Return the indices from 0 of the steps with C(t) = 1.

    Raises:
        ValueError: If there is none.
    """
    schedule = Clock(clock)
    schedule.full_steps(steps)
    indices = [index for index in range(steps) if not schedule.is_full(index)]
    if not indices:
        raise ValueError(f"clock {clock} over {steps} steps has no adaptor step")
    return torch.tensor(indices)


def train_adaptor(
    adaptor: nn.Module,
    data: Trajectories,
    spec: AdaptorSpec,
    state: Path,
    device: torch.device,
    work: str = "",
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
    """
    indices = adaptor_steps(spec.clock, data.steps)
    adaptor = adaptor.to(device)
    batch_size, seed = spec.optimisation.batch_size, spec.optimisation.seed

    def loss_of_step(step: int) -> torch.Tensor:
        generator = generator_for(seed, step)
        rows = torch.randint(len(data.r_in), (batch_size,), generator=generator)
        picked = torch.randint(len(indices), (batch_size,), generator=generator)
        error = _error(adaptor, data, rows, indices[picked], device)
        return error.flatten(1).norm(dim=1).mean()

    return fit(
        adaptor, loss_of_step, spec.optimisation, state, name="adaptor", work=work
    )


@torch.inference_mode()
def held_out_error(
    adaptor: nn.Module, data: Trajectories, clock: int, device: torch.device
) -> HeldOutError:
    """Measure an adaptor and the identity on trajectories."""
    indices = adaptor_steps(clock, data.steps)
    adaptor = adaptor.to(device).eval()
    sums = torch.zeros(4, dtype=torch.float64)
    for index in indices:
        for rows in torch.arange(len(data.r_in)).split(256):
            steps = index.expand(len(rows))
            error = _error(adaptor, data, rows, steps, device).double().flatten(1)
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
    l2, mse, identity_l2, identity_mse = (sums / count).tolist()
    return HeldOutError(l2, mse, identity_l2, identity_mse, count)


def _error(
    adaptor: nn.Module,
    data: Trajectories,
    rows: torch.Tensor,
    steps: torch.Tensor,
    device: torch.device,
) -> torch.Tensor:
    """Return r_out − φ of some rows at some steps, ``(len(rows), c_out, h, w)``."""

    def at(features: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        return features[rows, steps].to(device, torch.float32)

    estimate = adaptor(
        at(data.r_in, steps),
        at(data.r_out, steps - 1),
        data.t_emb[steps].to(device),
        data.pooled[rows].to(device),
    )
    error: torch.Tensor = at(data.r_out, steps) - estimate
    return error
