"""Forecast r_out by a Taylor series of finite differences over the last full passes.

TaylorSeer (Liu et al., ICCV 2025), at Clockwork's cut in place of every layer: the
derivatives of r_out by the number of steps are backward differences between full
passes, each divided by the distance of the newest two it spans, and the series goes on
from the last full pass.

Order 1 is a line in steps. Where steps are evenly spaced in log-SNR it is the line of
`clockwork_diffusion.adaptors.extrapolate`; where they are not, each goes by its own
measure. Where full passes are unevenly spaced (the first adaptor steps of some masks)
differences are divided by their own distances, as in TaylorSeer's code; orders above 1
are then first-order accurate, and no order passes through all past values but 1.
"""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config


class TaylorAdaptor(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Continue r_out by a Taylor series in steps; no weights.

    Until there are enough full passes, the order is what there is: the identity after
    one, a line after two.
    """

    ages_in = "steps"
    inputs = ("r_out",)

    @register_to_config
    def __init__(self, cut: str = "stage1", order: int = 2) -> None:
        """Remember the cut, and how many derivatives are taken.

        Raises:
            ValueError: If the order is less than 1.
        """
        super().__init__()
        if order < 1:
            raise ValueError(f"order {order} is less than 1, and 0 is the identity")
        self.history = order + 1

    def forward(
        self,
        r_in: torch.Tensor | None,
        r_out: torch.Tensor,
        t_emb: torch.Tensor | None,
        text_emb: torch.Tensor | None = None,
        ages: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Forecast this step's r_out; see the contract for the shapes."""
        if ages is None or r_out.dim() != 5 or len(r_out) != self.history:
            raise ValueError(
                f"the Taylor adaptor needs r_out of {self.history} full passes and "
                f"their ages, not r_out of shape {tuple(r_out.shape)} and ages {ages}"
            )
        newest, *older = r_out
        weights = taylor_weights(ages.to(newest.device, torch.float32))
        estimate = newest
        # The weights add up to 1; small differences keep their digits in float16.
        for past, weight in zip(older, weights[1:], strict=True):
            weight = weight.to(newest.dtype).view(-1, 1, 1, 1)
            estimate = estimate + (past - newest) * weight
        return estimate


def taylor_weights(ages: torch.Tensor) -> torch.Tensor:
    """Return the weight of each full pass in the forecast.

    Args:
        ages: How many steps each lies back, newest first, ``(n,)`` or ``(n, N)``. A
            pass that is as old as the one before it stands for a missing one.

    Returns:
        Of the same shape; they add up to 1.

    >>> taylor_weights(torch.tensor([1.0, 3.0]))
    tensor([ 1.5000, -0.5000])
    >>> taylor_weights(torch.tensor([1.0, 3.0, 5.0]))
    tensor([ 1.6250, -0.7500,  0.1250])
    """
    count = len(ages)
    distances = ages[1:] - ages[:-1]
    known = distances != 0
    distances = torch.where(known, distances, torch.ones_like(distances))
    # Row j holds the weights of the derivative at the j-th full pass; that of order 0
    # is the pass itself.
    rows = torch.eye(count, device=ages.device, dtype=ages.dtype)
    rows = rows.view(count, count, *[1] * (ages.dim() - 1))
    rows = rows.expand(count, count, *ages.shape[1:])
    weights, power = rows[0], torch.ones_like(ages[0])
    for order in range(1, count):
        rows = (rows[:-1] - rows[1:]) / distances[: count - order].unsqueeze(1)
        power = power * ages[0] / order
        weights = weights + power * known[:order].all(dim=0) * rows[0]
    return weights
