"""Run a UNet with other attention for one pass, and leave nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock

Attend = Callable[..., torch.Tensor]
"""A processor of attention, as diffusers calls it: ``(attention, hidden, …)``."""


def transformer_blocks(unet: UNet2DConditionModel) -> list[BasicTransformerBlock]:
    """Return a UNet's transformer blocks in the order in which they run."""
    parts = (*unet.down_blocks, unet.mid_block, *unet.up_blocks)
    return [
        module
        for part in parts
        if part is not None
        for module in part.modules()
        if isinstance(module, BasicTransformerBlock)
    ]


@contextmanager
def attending(given: list[tuple[Any, Attend]]) -> Iterator[None]:
    """Let attention modules run other processors within a block."""
    before = [(module, module.processor) for module, _ in given]
    for module, processor in given:
        module.processor = processor
    try:
        yield
    finally:
        for module, processor in before:
            module.processor = processor


def whole(
    unet: UNet2DConditionModel, x: torch.Tensor, t: Any, c: torch.Tensor, kwargs: Any
) -> torch.Tensor:
    """Run the UNet by its own forward, under whatever lies on it."""
    found: torch.Tensor = type(unet).forward(
        unet, x, t, c, **{**kwargs, "return_dict": False}
    )[0]
    return found
