"""Count FLOPs, MACs and parameters with DeepSpeed's profiler, without weights.

Models lie on torch's meta device, so that SD v1.5 is counted on a laptop in seconds.

Two conventions. Clockwork's own rows leave out the two matrix products of attention
(softmax(QKᵀ)V); the competitors' rows in its Table 1 include them. `Count` holds both,
and the MACs of a third: Kim et al.'s (2024) tool takes 4 MACs per element of an affine
LayerNorm, and no attention products.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from deepspeed.profiling.flops_profiler import FlopsProfiler
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import nn

from clockwork_diffusion.adaptors import IdentityAdaptor
from clockwork_diffusion.branches import BranchUNet
from clockwork_diffusion.contract import ages_of
from clockwork_diffusion.depth_skip import depth_skip
from clockwork_diffusion.unet import SplitUNet
from clockwork_experiments.cost.task_architectures import call_inputs, hint_for


@dataclass(frozen=True)
class Count:
    """Cost of one call at batch 1, or of whatever else was counted.

    Attributes:
        flops: FLOPs in the paper's convention, without attention products.
        flops_with_attention: FLOPs with attention products.
        macs: Multiply-accumulates without attention products.
        parameters: Parameters of the modules that were used.
        macs_with_norms: MACs with 4 per element of each affine LayerNorm.
    """

    flops: int
    flops_with_attention: int
    macs: int
    parameters: int
    macs_with_norms: int = 0

    def to_json(self) -> dict[str, int]:
        """Return the fields."""
        return asdict(self)


class _Call(nn.Module):
    """A callable and the modules that it uses, as the profiler wants them."""

    def __init__(self, call: Callable[[], Any], *modules: nn.Module) -> None:
        super().__init__()
        self.call = call
        self.uses = nn.ModuleList(modules)

    def forward(self) -> Any:
        return self.call()


class _Profile:
    """One profiled call."""

    def __init__(self, call: Callable[[], Any], *modules: nn.Module) -> None:
        model = _Call(call, *modules)
        self.profiler = FlopsProfiler(model)
        mm = torch.mm
        self.profiler.start_profile()
        # On the meta device F.linear is Python code that calls torch.mm; with both
        # patched, the profiler would count each linear layer with a bias twice.
        patched, torch.mm = torch.mm, mm
        try:
            with torch.no_grad():
                model()
        except BaseException:
            torch.mm = patched
            self.profiler.end_profile()
            raise
        torch.mm = patched
        self.modules = modules

    def __enter__(self) -> _Profile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.profiler.end_profile()

    def count(self, *modules: nn.Module) -> Count:
        """Return what the call spent in some modules, or in all of them."""
        flops = macs = attention_flops = attention_macs = norms = 0
        seen = {
            id(part): part
            for root in modules or self.modules
            for part in root.modules()
        }
        ran = []
        for part in seen.values():
            own_flops = int(getattr(part, "__flops__", 0))
            own_macs = int(getattr(part, "__macs__", 0))
            flops += own_flops
            macs += own_macs
            if isinstance(part, Attention):
                # Its projections are modules of their own; what is left is products.
                attention_flops += own_flops
                attention_macs += own_macs
            if isinstance(part, nn.LayerNorm) and part.elementwise_affine:
                # The profiler takes 5 FLOPs per element, and no MACs.
                norms += 4 * own_flops // 5
            if own_flops or own_macs:
                ran.append(part)
        used = {
            id(parameter): parameter.numel()
            for part in ran
            for parameter in part.parameters(recurse=False)
        }
        return Count(
            flops=flops - attention_flops,
            flops_with_attention=flops,
            macs=macs - attention_macs,
            parameters=sum(used.values()),
            macs_with_norms=macs - attention_macs + norms,
        )


def count_calls(call: Callable[[], Any], *modules: nn.Module) -> Count:
    """Count what some modules do while a callable runs, be it a whole loop.

    All their calls add up, each at the batch that it has. Of an attention processor
    that is exchanged, all is counted that it does by torch's functions. What happens
    outside of the modules is not counted: sampler, VAE, text encoder.

    Args:
        call: What to run.
        *modules: The UNet, and the adaptor if there is one.

    Raises:
        ValueError: If no module is given.
    """
    if not modules:
        raise ValueError("0 modules to count: give the UNet at least")
    with _Profile(call, *modules) as profile:
        return profile.count()


def _inputs(
    unet: UNet2DConditionModel, tokens: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    size, device = unet.config.sample_size, unet.device
    return (
        torch.zeros(1, unet.config.in_channels, size, size, device=device),
        torch.zeros(1, device=device),
        torch.zeros(1, tokens, unet.config.cross_attention_dim, device=device),
    )


def _more(unet: UNet2DConditionModel) -> dict[str, Any]:
    """Return the further arguments of a call at batch 1 that a UNet must have.

    SDXL is told sizes and a pooled prompt, and consistency models their guidance.
    """
    config, device = unet.config, unet.device
    more: dict[str, Any] = {}
    if config.addition_embed_type == "text_time":
        width = config.projection_class_embeddings_input_dim
        pooled = width - SDXL_SIZES * config.addition_time_embed_dim
        more["added_cond_kwargs"] = {
            "text_embeds": torch.zeros(1, pooled, device=device),
            "time_ids": torch.zeros(1, SDXL_SIZES, device=device),
        }
    if config.time_cond_proj_dim is not None:
        guidance = torch.zeros(1, config.time_cond_proj_dim, device=device)
        more["timestep_cond"] = guidance
    return more


SDXL_SIZES = 6
"""Numbers that SDXL is told of an image: its size, its crop and the size asked for."""


def count_full(unet: UNet2DConditionModel, tokens: int) -> Count:
    """Count one call of the whole UNet at batch 1 with a prompt of ``tokens``."""
    x, t, c = _inputs(unet, tokens)
    more = _more(unet)
    with _Profile(lambda: unet(x, t, c, **more), unet) as profile:
        return profile.count()


def count_level(unet: UNet2DConditionModel, tokens: int, level: int) -> Count:
    """Count one call at batch 1 of a UNet that ends at a level."""
    pruned = depth_skip(unet, level)
    given = call_inputs(pruned, tokens)
    with _Profile(lambda: pruned(**given), pruned) as profile:
        return profile.count()


def count_control(
    branch: ControlNetModel, unet: UNet2DConditionModel, tokens: int
) -> Count:
    """Count one call at batch 1 of ControlNet's branch, its hint net included."""
    given, hint = call_inputs(unet, tokens), hint_for(branch, unet)
    with _Profile(lambda: branch(**given, controlnet_cond=hint), branch) as profile:
        return profile.count()


def count_blocks(unet: UNet2DConditionModel, tokens: int) -> dict[str, Count]:
    """Count a whole call by block, as in Figure S1.

    Returns:
        Counts by name: ``DOWN-0`` …, ``MID``, ``UP-0`` …
    """
    blocks = {f"DOWN-{i}": block for i, block in enumerate(unet.down_blocks)}
    if unet.mid_block is not None:
        blocks["MID"] = unet.mid_block
    blocks |= {f"UP-{i}": block for i, block in enumerate(unet.up_blocks)}
    x, t, c = _inputs(unet, tokens)
    with _Profile(lambda: unet(x, t, c), unet) as profile:
        return {name: profile.count(block) for name, block in blocks.items()}


def count_light(
    unet: UNet2DConditionModel, tokens: int, adaptor: Any, text_channels: int
) -> dict[str, Count]:
    """Count one adaptor step at batch 1.

    Returns:
        ``step``: ε_H with its upsampler and the adaptor, the paper's figure; for the
        identity also ``step_after_upsampler``: with the upsampler's output kept.
    """
    split = SplitUNet(unet, adaptor.config.cut)
    x, t, c = _inputs(unet, tokens)
    more = _more(unet)
    with torch.no_grad():
        previous = split.full(x, t, c, **more)
    pooled = torch.zeros(1, text_channels, device=unet.device)
    r_out, estimate = previous.r_out, adaptor
    if ages_of(adaptor) is not None:
        r_out = torch.stack([r_out] * adaptor.history)
        ages = torch.ones(adaptor.history, device=unet.device)
        estimate = partial(adaptor, ages=ages)
    with _Profile(
        lambda: split.adapt(x, t, c, r_out, estimate, pooled, **more), unet, adaptor
    ) as profile:
        counts = {"step": profile.count()}
    if isinstance(adaptor, IdentityAdaptor):
        with _Profile(
            lambda: split.reuse(x, t, c, previous.up, previous.r_out, **more), unet
        ) as profile:
            counts["step_after_upsampler"] = profile.count()
    return counts


def count_branch(unet: UNet2DConditionModel, tokens: int, branch: int) -> Count:
    """Count one step at batch 1 that reuses features at a skip connection."""
    cut = BranchUNet(unet, branch)
    x, t, c = _inputs(unet, tokens)
    with torch.no_grad():
        feature = cut.full(x, t, c).feature
    with _Profile(lambda: cut.reuse(x, t, c, feature), unet) as profile:
        return profile.count()
