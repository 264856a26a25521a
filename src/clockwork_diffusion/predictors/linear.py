"""Predict r_out by a linear map of past features, fitted in closed form.

Identity ⊂ affine ⊂ low rank: the affine map scales and shifts each channel of r_out of
the last full pass and adds a share of its slope, the change per step between the last
two full passes; the low-rank map adds to that what a matrix of rank k makes of all
channels at each place. Both are ridge regressions on stored trajectories, one for each
pair of a step and its *gap* (how many steps back the last full pass lies): seconds, no
optimiser, and no data leave the identity.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from clockwork_diffusion.adaptor_error import adaptor_steps, last_full_steps
from clockwork_diffusion.clock import Clock
from clockwork_diffusion.contract import check_inputs
from clockwork_diffusion.trajectories import Recorded

RIDGE = 100.0
"""How many samples (places of a feature map) the simpler map counts for."""

ROWS = 64
"""Trajectories that are looked at at once."""


class LinearAdaptor(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """An affine map of each channel, and a map of rank k across channels.

    It knows the step by its time embedding, the nearest of those that it was fitted
    with, and the gap by the ages. For a step and gap that it was not fitted with, it is
    the identity. With a scheduler of several calls per step, it is fitted for the last.
    """

    history = 2
    ages_in = "steps"
    table: torch.Tensor
    times: torch.Tensor
    down: nn.Parameter | None
    up: nn.Parameter | None

    @register_to_config
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        time_channels: int,
        cut: str = "stage1",
        made_for: dict[str, Any] | None = None,
        inputs: Sequence[str] = ("r_in", "r_out"),
        pooling: str | dict[str, Any] | None = None,
        rank: int = 0,
        steps: int = 1,
        fitted: Sequence[Sequence[int]] = (),
    ) -> None:
        """Build the adaptor; as the identity, until `fit` or `load_adaptor` fills it.

        Args:
            in_channels: Channels of r_in.
            out_channels: Channels of r_out.
            time_channels: Channels E of the time embedding.
            cut: The cut that the adaptor works at.
            made_for: What it was fitted for; see `clockwork_diffusion.made_for`.
            inputs: Which inputs it may look at: r_out, and r_in where the rank is above
                0. Text is none of its affair.
            pooling: Unused, as text is.
            rank: Rank k of the map across channels; 0 is the affine map.
            steps: Number of steps that it knows.
            fitted: The steps from 0, and their gaps, that it was fitted with.

        Raises:
            ValueError: If r_out is not among the inputs, or the rank is impossible.
        """
        super().__init__()
        if "r_out" not in check_inputs(inputs):
            raise ValueError(f"{type(self).__name__} needs r_out among its inputs")
        if not 0 <= rank <= out_channels:
            raise ValueError(
                f"rank {rank} is not from 0 to {out_channels}, the channels of r_out"
            )
        takes = ("r_in", "r_out") if rank else ("r_out",)
        self.inputs = tuple(name for name in takes if name in inputs)
        self.register_to_config(inputs=self.inputs)
        self._make(steps, fitted)

    def _make(self, steps: int, fitted: Sequence[Sequence[int]]) -> None:
        """Make room for a map per step and gap, all of them zero: the identity."""
        known = self.config
        self.register_to_config(steps=steps, fitted=[list(pair) for pair in fitted])
        maps = 1 + len(fitted)  # the first one is for all else
        most = max((gap for _, gap in fitted), default=0)
        table = torch.zeros(steps, most + 2, dtype=torch.long)
        for place, (step, gap) in enumerate(fitted):
            table[step, gap] = 1 + place
        self.register_buffer("table", table)
        self.register_buffer("times", torch.zeros(steps, known.time_channels))
        # Scale and share of the slope, less those of the identity; shift.
        self.affine = nn.Parameter(torch.zeros(maps, 3, known.out_channels))
        self.down = self.up = None
        if known.rank:
            wide = self._channels() + 1
            self.down = nn.Parameter(torch.zeros(maps, wide, known.rank))
            self.up = nn.Parameter(torch.zeros(maps, known.rank, known.out_channels))

    def _channels(self) -> int:
        """Return the channels of what the low-rank map sees, without its constant."""
        r_in = self.config.in_channels if "r_in" in self.inputs else 0
        return 2 * int(self.config.out_channels) + int(r_in)

    def forward(
        self,
        r_in: torch.Tensor | None,
        r_out: torch.Tensor,
        t_emb: torch.Tensor,
        text_emb: torch.Tensor | None = None,
        ages: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Predict this step's r_out; see the contract for the shapes."""
        if ages is None or r_out.dim() != 5:
            raise ValueError(
                f"{type(self).__name__} needs r_out of two full passes and their ages, "
                f"not r_out of shape {tuple(r_out.shape)} and ages {ages}"
            )
        newest, slope = _newest_and_slope(r_out, ages)
        distances = t_emb.float()[:, None] - self.times.float()
        step = distances.square().sum(dim=-1).argmin(dim=1)
        gap = ages[0].to(step.device).round().long()
        gap = gap.clamp(0, self.table.shape[1] - 1)
        chosen = self.table[step, gap.expand(len(step))]
        scale, share, shift = self.affine[chosen, :, :, None, None].unbind(dim=1)
        change = newest * scale + slope * share + shift
        if self.down is not None and self.up is not None:
            seen = [newest, slope]
            if "r_in" in self.inputs:
                if r_in is None:
                    raise ValueError(f"this {type(self).__name__} needs r_in")
                seen.append(r_in)
            flat = torch.cat(seen, dim=1).flatten(2)
            down, up = self.down[chosen].mT, self.up[chosen].mT
            hidden = torch.matmul(down[..., :-1], flat) + down[..., -1:]
            change = change + torch.matmul(up, hidden).view_as(change)
        return newest + change

    @torch.no_grad()
    def fit(
        self, data: Recorded, clocks: Sequence[Clock], ridge: float = RIDGE
    ) -> LinearAdaptor:
        """Fit a map for each step and gap that some clocks have.

        The affine map minimises the squared error of r_out plus ``ridge`` times the
        squares of its coefficients' distance from the identity, features scaled to a
        mean square of 1; then the low-rank map does so with what is left, its own
        distance taken from 0. It is the best of its rank (reduced-rank regression), so
        that a higher rank never fits worse.

        Args:
            data: The teacher's trajectories, of one number of steps.
            clocks: Which steps are predicted, and from which full ones.
            ridge: Samples that the simpler map counts for; infinity leaves it.

        Returns:
            Itself.

        Raises:
            ValueError: If the ridge is negative, or a clock has no adaptor step.
        """
        if not ridge >= 0:
            raise ValueError(f"ridge {ridge} is less than 0")
        pasts = _pasts(clocks, data.steps)
        self._make(data.steps, sorted(pasts))
        if not len(data):
            return self
        for step in range(data.steps):
            at = torch.tensor([step])
            self.times[step] = data.pick(at * 0, at, [], torch.device("cpu")).t_emb[0]
        for place, (step, gap) in enumerate(sorted(pasts), start=1):
            samples = _Samples(data, step, pasts[step, gap], "r_in" in self.inputs)
            self.affine[place] = _fit_affine(samples, ridge)
            if self.down is not None and self.up is not None:
                down, up = _fit_low_rank(
                    samples, self.affine[place], self.config.rank, ridge
                )
                self.down[place], self.up[place] = down, up
        return self


def _newest_and_slope(
    r_out: torch.Tensor, ages: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return r_out of the last full pass, and its change per step since the one before.

    After one full pass there is none.
    """
    newest, older = r_out
    distance = (ages[1] - ages[0]).to(newest.device, torch.float32)
    inverse = (distance != 0) / torch.where(distance == 0, 1.0, distance)
    return newest, (newest - older) * inverse.to(newest.dtype).view(-1, 1, 1, 1)


def _pasts(
    clocks: Sequence[Clock], steps: int
) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Return the last two full steps of each adaptor step, by step and gap."""
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for clock in clocks:
        at = adaptor_steps(clock, steps)
        newest, older = (each.tolist() for each in last_full_steps(clock, at))
        for step, *past in zip(at.tolist(), newest, older, strict=True):
            known = found.setdefault((step, step - past[0]), [])
            if tuple(past) not in known:
                known.append((past[0], past[1]))
    return found


class _Samples:
    """What the maps of one step and gap are fitted to: every place of every row."""

    def __init__(
        self, data: Recorded, step: int, pasts: Sequence[tuple[int, int]], r_in: bool
    ) -> None:
        self.data, self.step, self.pasts, self.r_in = data, step, pasts, r_in

    def __iter__(
        self,
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, list[torch.Tensor], torch.Tensor]]:
        """Yield r_out before, its slope, r_in, and the change; each ``(places, c)``."""
        cpu = torch.device("cpu")
        for rows in torch.arange(len(self.data)).split(ROWS):
            for past in self.pasts:
                at, *fulls = (
                    torch.full_like(rows, each) for each in (self.step, *past)
                )
                picked = self.data.pick(rows, at, fulls, cpu)
                ages = torch.tensor([float(self.step - full) for full in past])
                newest, slope = _newest_and_slope(torch.stack(picked.earlier), ages)
                more = [_places(picked.r_in)] if self.r_in else []
                change = _places(picked.r_out - newest)
                yield _places(newest), _places(slope), more, change


def _places(features: torch.Tensor) -> torch.Tensor:
    """Return features with a row for each place, ``(N·h·w, c)``."""
    return features.movedim(1, -1).flatten(0, -2).double()


def _fit_affine(samples: _Samples, ridge: float) -> torch.Tensor:
    """Return scale, share of the slope and shift per channel, ``(3, c)``."""
    gram, cross, count = torch.zeros(()), torch.zeros(()), 0
    for newest, slope, _, change in samples:
        features = torch.stack([newest, slope, torch.ones_like(newest)])
        gram = gram + torch.einsum("ipc,jpc->cij", features, features)
        cross = cross + torch.einsum("ipc,pc->ci", features, change)[..., None]
        count += len(change)
    return _Ridge(gram, cross, count, ridge).solution[..., 0].T.float()


def _fit_low_rank(
    samples: _Samples, affine: torch.Tensor, rank: int, ridge: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the map of a rank that fits best what the affine map leaves.

    Returns:
        Its two factors, ``(features + 1, rank)`` and ``(rank, c)``.
    """
    gram, cross, count = torch.zeros(()), torch.zeros(()), 0
    scale, share, shift = affine.double()
    for newest, slope, more, change in samples:
        left = change - newest * scale - slope * share - shift
        features = torch.cat([newest, slope, *more, torch.ones_like(newest[:, :1])], 1)
        gram = gram + features.T @ features
        cross = cross + features.T @ left
        count += len(left)
    solved = _Ridge(gram, cross, count, ridge)
    # Of the ridge's solution, the directions of r_out that explain most (Mukherjee and
    # Zhu 2011): the objective's optimum among the maps of this rank.
    energy = solved.scaled.mT @ solved.gram @ solved.scaled
    kept = torch.linalg.eigh(energy).eigenvectors[:, -rank:]
    return (solved.solution @ kept).float(), kept.T.float()


class _Ridge:
    """A ridge regression with features scaled to a mean square of 1.

    Attributes:
        gram: Of the scaled features, the ridge in it.
        scaled: The solution for scaled features.
        solution: The solution for features as they are.
    """

    def __init__(
        self, gram: torch.Tensor, cross: torch.Tensor, count: int, ridge: float
    ) -> None:
        size = (gram.diagonal(dim1=-2, dim2=-1) / count).sqrt()
        size = torch.where(size > 0, size, torch.ones_like(size))[..., None]
        share = count / (count + ridge)  # 0 if the ridge is infinite
        unit = torch.eye(gram.shape[-1], dtype=gram.dtype)
        self.gram = share * gram / count / (size * size.mT) + (1 - share) * unit
        # Features that say nothing, or the same, get what is smallest.
        inverse = torch.linalg.pinv(self.gram, hermitian=True)
        self.scaled = inverse @ (share * cross / count / size)
        self.solution = self.scaled / size
