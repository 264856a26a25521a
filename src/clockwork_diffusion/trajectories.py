"""Trajectories of a teacher: what an adaptor learns from (Algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn

from clockwork_diffusion.hook import sampling_with, unet_of
from clockwork_diffusion.passes import Passes
from clockwork_diffusion.schedulers import log_snr
from clockwork_diffusion.unet import SplitUNet


class Picked(NamedTuple):
    """What an adaptor learns from at some rows, each at one step; float32.

    Attributes:
        r_in: ``(len(rows), c_in, h, w)``.
        r_out: ``(len(rows), c_out, h, w)``.
        earlier: r_out at earlier steps, in the order in which they were asked for.
        t_emb: Time embeddings, ``(len(rows), E)``.
        pooled: Pooled text embeddings, ``(len(rows), P)``, or None.
    """

    r_in: torch.Tensor
    r_out: torch.Tensor
    earlier: tuple[torch.Tensor, ...]
    t_emb: torch.Tensor
    pooled: torch.Tensor | None


class Recorded(Protocol):
    """Trajectories of one teacher, however they are kept; rows are UNet samples."""

    @property
    def log_snr(self) -> torch.Tensor:
        """Log-SNR of each step, ``(steps,)``."""

    @property
    def steps(self) -> int:
        """Number of sampling steps."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def pick(
        self,
        rows: torch.Tensor,
        steps: torch.Tensor,
        earlier: Sequence[torch.Tensor],
        device: torch.device,
    ) -> Picked:
        """Return the features of some rows, each at its own step.

        Args:
            rows: Which rows.
            steps: The step of each.
            earlier: Other steps of each, of which r_out is wanted.
            device: Where to put the features.
        """


@dataclass(frozen=True)
class Trajectories:
    """What an adaptor learns from; rows are UNet samples: captions × guidance.

    Attributes:
        r_in: Features entering ε_L, ``(rows, steps, c_in, h, w)``.
        r_out: Features leaving it, ``(rows, steps, c_out, h, w)``.
        t_emb: Time embeddings, ``(rows, steps, E)``.
        pooled: Pooled text embeddings, ``(rows, P)``, or None.
        log_snr: Of each step, ``(steps,)``.
    """

    r_in: torch.Tensor
    r_out: torch.Tensor
    t_emb: torch.Tensor
    pooled: torch.Tensor | None
    log_snr: torch.Tensor

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.r_in)

    @property
    def steps(self) -> int:
        """Number of sampling steps."""
        return self.r_in.shape[1]

    def pick(
        self,
        rows: torch.Tensor,
        steps: torch.Tensor,
        earlier: Sequence[torch.Tensor],
        device: torch.device,
    ) -> Picked:
        """Look the features up; see `Recorded`."""

        def at(features: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
            return features[rows, steps].to(device, torch.float32)

        pooled = (
            None if self.pooled is None else self.pooled[rows].to(device, torch.float32)
        )
        before = tuple(at(self.r_out, other) for other in earlier)
        now = at(self.r_in, steps), at(self.r_out, steps)
        return Picked(*now, before, at(self.t_emb, steps), pooled)


class Recorder:
    """Observes the passes of a pipeline, and keeps what an adaptor learns from.

    Where a step has several calls, its last one counts: that is what an adaptor sees of
    the step before.
    """

    def __init__(self, pipe: Any, cut: str, pool: Any = None) -> None:
        """Prepare; see `recording`.

        Args:
            pipe: The teacher.
            cut: Where its UNet is split.
            pool: Pools the UNet's text features, or None if text is not kept.
        """
        self.pipe, self.cut, self.pool = pipe, cut, pool
        self._t_emb = self._text = torch.empty(0)
        self._steps: list[dict[str, torch.Tensor]] = []
        self._batches: list[Trajectories] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Let the pipeline run whole within a block, and observe its passes."""
        unet = unet_of(self.pipe)
        passes = Passes(SplitUNet(unet, self.cut))
        first = unet.down_blocks[0].resnets[0]

        def keep_text(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> None:
            self._text = kwargs["encoder_hidden_states"]

        def keep_time(module: nn.Module, args: tuple[Any, ...]) -> None:
            self._t_emb = args[1]

        handles = [
            unet.register_forward_pre_hook(keep_text, with_kwargs=True),
            first.register_forward_pre_hook(keep_time),
        ]
        try:
            with sampling_with(self.pipe, passes, observe=self._observe):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _observe(self, index: int, timestep: torch.Tensor, step: Any) -> None:
        if index > len(self._steps):
            raise ValueError(f"step {index} was seen before step {len(self._steps)}")
        seen = {"r_in": step.r_in, "r_out": step.r_out, "t_emb": self._t_emb}
        kept = {name: value.detach().cpu() for name, value in seen.items()}
        at = log_snr(self.pipe.scheduler, torch.as_tensor(timestep).flatten()[:1])
        self._steps[index:] = [{**kept, "log_snr": at[0]}]

    def end_batch(self) -> None:
        """Join the steps of what one call of the pipeline has sampled.

        Raises:
            ValueError: If no step was seen, or something is not finite.
        """
        steps, self._steps = self._steps, []
        if not steps:
            raise ValueError("the pipeline has not called its UNet")
        joined = {
            name: torch.stack([step[name] for step in steps], dim=1)
            for name in ("r_in", "r_out", "t_emb")
        }
        for name, value in joined.items():
            if not torch.isfinite(value).all():
                raise ValueError(
                    f"{name} of the trajectories is not finite in {value.dtype}: load "
                    "the pipeline in another precision"
                )
        pooled = None if self.pool is None else self.pool(self._text).detach().cpu()
        at = torch.stack([step["log_snr"] for step in steps])
        self._batches.append(Trajectories(**joined, pooled=pooled, log_snr=at))

    def take(self) -> Trajectories:
        """Return all batches as one, and forget them."""
        batches, self._batches = self._batches, []
        pooled = [batch.pooled for batch in batches if batch.pooled is not None]
        return Trajectories(
            r_in=torch.cat([batch.r_in for batch in batches]),
            r_out=torch.cat([batch.r_out for batch in batches]),
            t_emb=torch.cat([batch.t_emb for batch in batches]),
            pooled=torch.cat(pooled) if pooled else None,
            log_snr=batches[0].log_snr,
        )
