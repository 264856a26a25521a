"""ToMe: merge the tokens that are most alike before self-attention, unmerge them after.

Bolya and Hoffman, "Token Merging for Fast Stable Diffusion", CVPR Workshops 2023. In
each transformer block at the highest resolution, one token of every 2×2 is a
destination, drawn at random, and all others are sources. Each source looks for the
destination that is most like it by the cosine of what enters the block. So many of the
sources as the ratio says, those most alike, are averaged into their destinations; the
self-attention runs on what is left; and each gets back what its destination got.

A source that is merged counts as much as its destination and the others merged there.
UNets without transformers at the highest resolution, as SDXL's, are left as they are.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from clockwork_diffusion.clock import Clock
from clockwork_diffusion.hook import Settings, put, take
from clockwork_diffusion.passes import Output, Past
from clockwork_diffusion.scoped import scoped
from clockwork_diffusion.summary import Summary
from clockwork_experiments.rivals.attention import (
    Attend,
    attending,
    transformer_blocks,
    whole,
)

STRIDE = 2
"""Side of the squares of which one token is a destination."""


class Merge(NamedTuple):
    """How tokens are merged, and how what was made of them is spread again."""

    merge: Callable[[torch.Tensor], torch.Tensor]
    unmerge: Callable[[torch.Tensor], torch.Tensor]


def matched(
    tokens: torch.Tensor, height: int, width: int, ratio: float, draws: Sequence[int]
) -> Merge:
    """Match the tokens that are most alike.

    Args:
        tokens: ``(N, height * width, C)``, row by row.
        height: Rows of the image.
        width: Columns of it.
        ratio: The share of all tokens that is merged; at most those that are sources.
        draws: Which place of each square is the destination, 0 to 3 row by row, the
            squares row by row; what is left over of an odd side has none.
    """
    batch, count, _ = tokens.shape
    chosen = []
    for square, place in enumerate(draws):
        down, across = divmod(square, width // STRIDE)
        row, column = STRIDE * down + place // STRIDE, STRIDE * across + place % STRIDE
        chosen.append(row * width + column)
    others = sorted(set(range(count)) - set(chosen))
    destinations = torch.tensor(sorted(chosen), device=tokens.device)
    sources = torch.tensor(others, device=tokens.device)
    merged_count = min(len(sources), int(count * ratio))

    unit = nn.functional.normalize(tokens.float(), dim=-1)
    alike = unit[:, sources] @ unit[:, destinations].transpose(1, 2)
    likeness, nearest = alike.max(dim=2)
    order = likeness.argsort(dim=1, descending=True)
    merged, left = order[:, :merged_count], order[:, merged_count:]
    target = nearest.gather(1, merged)

    def merge(values: torch.Tensor) -> torch.Tensor:
        wide = values.shape[-1]
        given = values[:, sources]
        kept = given.gather(1, left[..., None].expand(-1, -1, wide))
        moved = given.gather(1, merged[..., None].expand(-1, -1, wide))
        into = values[:, destinations].scatter_reduce(
            1, target[..., None].expand(-1, -1, wide), moved, "mean"
        )
        return torch.cat([kept, into], dim=1)

    def unmerge(values: torch.Tensor) -> torch.Tensor:
        wide = values.shape[-1]
        kept, into = values[:, : left.shape[1]], values[:, left.shape[1] :]
        back = into.gather(1, target[..., None].expand(-1, -1, wide))
        given = values.new_empty(batch, len(sources), wide)
        given = given.scatter(1, left[..., None].expand(-1, -1, wide), kept)
        given = given.scatter(1, merged[..., None].expand(-1, -1, wide), back)
        found = values.new_empty(batch, count, wide)
        found[:, sources], found[:, destinations] = given, into
        return found

    return Merge(merge, unmerge)


class MergingPasses:
    """Passes that merge tokens around self-attention at the highest resolution.

    Attributes:
        unet: The UNet.
    """

    history = 1

    def __init__(self, unet: UNet2DConditionModel, ratio: float, seed: int) -> None:
        """Find the blocks; destinations are drawn for each, from seed and time step."""
        self.unet, self._ratio, self._seed = unet, ratio, seed
        self._blocks = transformer_blocks(unet)
        self._timed = True

    @property
    def eager(self) -> MergingPasses:
        """The same for counting FLOPs, where a time step has no value."""
        new = MergingPasses(self.unet, self._ratio, self._seed)
        new._timed = False
        return new

    def check(self, clock: Clock) -> None:
        """There is but one kind of pass."""
        if clock.needs_adaptor:
            raise ValueError("ToMe has no light steps")

    def full(
        self, x: torch.Tensor, t: torch.Tensor, c: torch.Tensor, **kwargs: Any
    ) -> Output:
        """Run the UNet on merged tokens."""
        height, width = x.shape[-2:]
        squares = (height // STRIDE) * (width // STRIDE)
        draw = random.Random(f"{self._seed} {float(t) if self._timed else None}")
        entering: dict[Any, torch.Tensor] = {}

        def noting(block: Any) -> Callable[..., None]:
            def note(_: Any, args: tuple[Any, ...], given: dict[str, Any]) -> None:
                hidden = args[0] if args else given["hidden_states"]
                entering[block.attn1] = hidden

            return note

        def merging(own: Attend) -> Attend:
            def attend(module: Any, hidden: Any, *args: Any, **given: Any) -> Any:
                tokens = entering[module]
                if tokens.shape[1] != height * width:
                    return own(module, hidden, *args, **given)
                draws = [draw.randrange(STRIDE**2) for _ in range(squares)]
                match = matched(tokens, height, width, self._ratio, draws)
                return match.unmerge(own(module, match.merge(hidden), *args, **given))

            return attend

        handles = [
            block.register_forward_pre_hook(noting(block), with_kwargs=True)
            for block in self._blocks
        ]
        given = [(each.attn1, merging(each.attn1.processor)) for each in self._blocks]
        try:
            with attending(given):
                return Output(whole(self.unet, x, t, c, kwargs))
        finally:
            for handle in handles:
                handle.remove()

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


@dataclass(frozen=True)
class _ToMe:
    """Merge tokens."""

    ratio: float
    seed: int
    name: str = "ToMe"

    def passes(self, unet: UNet2DConditionModel) -> MergingPasses:
        """Return the passes of a UNet."""
        return MergingPasses(unet, self.ratio, self.seed)


def apply_tome(
    pipe: Any, *, ratio: float = 0.5, seed: int = 0, timed: bool = False
) -> Summary:
    """Merge a pipeline's tokens around self-attention at the highest resolution.

    Args:
        pipe: A diffusers pipeline with a ``unet``, or such a UNet.
        ratio: The share of tokens that is merged away, up to 0.75.
        seed: Of the draws of destinations.
        timed: Time the passes, for the summary.

    Returns:
        What the latest run has done.

    Raises:
        ValueError: If a method is applied already, or the ratio is none.
    """
    if not 0 < ratio <= 1 - STRIDE**-2:
        raise ValueError(f"ratio {ratio} is not above 0 and at most {1 - STRIDE**-2}")
    summary = Summary(f"ToMe, {ratio:.0%} of the tokens merged", timed=timed)
    settings = Settings(_ToMe(ratio, seed), Clock(), always=True, summary=summary)
    return put(pipe, settings)


def remove_tome(pipe: Any) -> None:
    """Take ToMe off a pipeline's UNet; if it is not on, do nothing."""
    take(pipe, _ToMe)


tome = scoped(
    "tome",
    apply_tome,
    remove_tome,
    """Apply ToMe within a block; see `apply_tome` for the arguments.""",
)
