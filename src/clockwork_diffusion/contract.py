"""What an adaptor φ is: how it is called, and what it says of itself (Eq. 2).

No network is here, so that what runs or records passes depends on none of them.

An adaptor is any callable, an ``nn.Module`` of your own for one; nothing needs to be
subclassed. It is called as ``adaptor(r_in, r_out, t_emb, text_emb)`` with

- ``r_in``: features entering ε_L at this step, ``(N, c_in, h, w)``;
- ``r_out``: features that left ε_L at the previous step, full pass or adaptor's
  estimate, ``(N, c_out, h, w)``;
- ``t_emb``: the UNet's time embedding of this step, ``(N, E)``;
- ``text_emb``: pooled text embedding, ``(N, P)``, or None;

and returns an estimate of this step's r_out, ``(N, c_out, h, w)``. What it may say of
itself, by attributes:

- ``cut``, or ``config.cut``: where it works; where the caller says, if it is silent;
- ``inputs``: which of r_in, r_out and text it looks at; r_in and r_out if it is silent.
  Any other may be None;
- ``is_identity``: that the callers may reuse what they have instead;
- ``history``: the number of past r_out that it needs, 1 if it is silent. With 1, the
  call is as above. With n > 1, it needs those of the last n *full* passes, and ages::

    adaptor(r_in, r_out, t_emb, text_emb, ages)

- ``r_out``: r_out of the last full pass, of the one before it, and so on, stacked in
  this order, ``(n, N, c_out, h, w)``;
- ``ages``: how far each of them lies back from this step, ``(n,)``; in training, where
  the steps of a batch differ, ``(n, N)``;
- ``ages_in``: in which of `AGES` that is counted, log-SNR (`log_snr`) if it is silent.
  One that says it is called so with a history of 1, too: it gets r_out of the last full
  pass, ``(1, N, c_out, h, w)``, and its age.

Estimates never enter this history. While there have been fewer full passes, the caller
repeats the oldest, with the same age. ``ages`` is a tensor, so that passes of all ages
are one compiled graph.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

INPUTS = ("r_in", "r_out", "text")
"""What a learned adaptor can look at; the time embedding is always there (Table S2)."""

AGES = ("log_snr", "steps")
"""In what an adaptor can be told how far back its full passes lie."""

LOOPS = ("sampling", "inversion")
"""What an adaptor can be trained for: from noise to an image, or back."""


def inputs_of(adaptor: Any) -> tuple[str, ...]:
    """Return which of `INPUTS` an adaptor looks at."""
    return tuple(getattr(adaptor, "inputs", ("r_in", "r_out")))


def history_of(adaptor: Any) -> int:
    """Return how many full steps an adaptor looks back on."""
    return int(getattr(adaptor, "history", 1))


def ages_of(adaptor: Any) -> str | None:
    """Return in which of `AGES` an adaptor is told ages; None if it is told none.

    Raises:
        ValueError: If it asks for others.
    """
    ages = getattr(adaptor, "ages_in", None)
    if ages is None:
        return AGES[0] if history_of(adaptor) > 1 else None
    if ages not in AGES:
        raise ValueError(f"ages in {ages!r} are not in one of {', '.join(AGES)}")
    return str(ages)


def cut_of(adaptor: Any) -> str | None:
    """Return the cut that an adaptor is for, or None if it does not say."""
    cut = getattr(getattr(adaptor, "config", None), "cut", None)
    if cut is None:
        # Not at first: diffusers hands out a configuration's entries with a warning.
        cut = getattr(adaptor, "cut", None)
    return None if cut is None else str(cut)


def check_adaptor(adaptor: Any) -> None:
    """Make sure that an adaptor can be called as the module's docstring says.

    Raises:
        ValueError: If it is no callable, or takes other arguments.
    """
    if not callable(adaptor):
        raise ValueError(
            f"an adaptor is called as adaptor(r_in, r_out, t_emb, text_emb), and a "
            f"{type(adaptor).__name__} cannot be called"
        )
    check_inputs(inputs_of(adaptor))
    called = getattr(adaptor, "forward", adaptor)
    ages = {} if ages_of(adaptor) is None else {"ages": None}
    try:
        inspect.signature(called).bind(None, None, None, None, **ages)
    except TypeError as error:
        names = ", ".join(("r_in", "r_out", "t_emb", "text_emb", *ages))
        raise ValueError(
            f"{type(adaptor).__name__} cannot be called with {names}: {error}"
        ) from error


def matched(adaptor: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """Return an adaptor in a precision and on a device, itself if it fits already.

    In another precision it is a copy, so that what was given keeps all its digits.
    """
    if not isinstance(adaptor, nn.Module):
        return adaptor
    tensors = [*adaptor.parameters(), *adaptor.buffers()]
    floating = [tensor for tensor in tensors if tensor.is_floating_point()]
    if any(tensor.dtype != dtype for tensor in floating):
        # Not diffusers' own, which warns of layers that it need not keep in float32.
        return nn.Module.to(copy.deepcopy(adaptor), device, dtype)
    return nn.Module.to(adaptor, device)


def check_inputs(inputs: Sequence[str]) -> tuple[str, ...]:
    """Return a choice among `INPUTS` in their order.

    Raises:
        ValueError: If one is unknown, or neither r_in nor r_out is among them.
    """
    for name in inputs:
        if name not in INPUTS:
            raise ValueError(
                f"adaptor input {name!r} is not one of {', '.join(INPUTS)}"
            )
    if not {"r_in", "r_out"} & set(inputs):
        raise ValueError(f"adaptor inputs {list(inputs)} hold neither r_in nor r_out")
    return tuple(name for name in INPUTS if name in inputs)
