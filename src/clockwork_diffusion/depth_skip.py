"""Leave out a UNet's deep levels for good: depth-skip compression.

Stable Diffusion's UNet has 12 skip connections: levels 1 to 12, from the input down.
Level 13 is the middle block; SDXL's UNet of three blocks has 10 levels. To *keep level
N* is to keep what lies at levels 1 to N::

    level 1    conv_in                       the last layer of UP-3
    level 2    first layer of DOWN-0         the second layer of UP-3
    ...
    level 12   last layer of DOWN-3          the first layer of UP-0
    level 13   the middle block

The middle block goes at every level below 13, where nothing is left out. What the
deepest layer that is left of the up path expects from below becomes zeros. Time
embedding and output layers always stay. Nothing is trained, no adapter takes the place
of what is gone.

Source: Kim et al. 2024, "Diffusion Model Compression for Image-to-Image Translation".
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from diffusers import (
    ModelMixin,  # noqa: F401  # where diffusers looks when a pipeline is loaded
    UNet2DConditionModel,
)
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from diffusers.utils.peft_utils import apply_lora_scale
from torch import nn

from clockwork_diffusion.hook import HANGING, put_depth, take_depth
from clockwork_diffusion.scoped import scoped
from clockwork_diffusion.unet import (
    add_residuals,
    check_topology,
    describe,
    kept_level,
    level_count,
    levels_per_block,
    make_conditions,
    rise,
    run_down,
    run_input,
    run_output,
    run_up_path,
    take_residuals,
)


class DepthSkipUNet(UNet2DConditionModel):
    """A UNet that ends at a level.

    What is left out is not there: not in memory, not in the state dict, not in the
    file. What is left keeps its name. In the up path None marks the places left empty.
    """

    def __init__(self, *, level: int | None = None, **kwargs: Any) -> None:
        """Build the UNet down to a level.

        Args:
            level: The deepest level to keep, from 1; all if left out.
            **kwargs: The configuration of diffusers' UNet.

        Raises:
            ValueError: If there is no such level, or the UNet is of another topology.
        """
        super().__init__(**kwargs)
        level = levels_of(self) if level is None else level
        _check_level(self, level)
        self._modules.update(_kept_blocks(self, level))
        self.register_to_config(level=level)

    @staticmethod
    def _get_init_keys(input_class: type) -> set[str]:
        """Return the keys of a configuration: those of a class and of its bases."""
        keys: set[str] = set()
        for kind in input_class.__mro__:
            if issubclass(kind, UNet2DConditionModel):
                keys |= set(inspect.signature(kind).parameters) | {"self"}
        return keys

    @property
    def level(self) -> int:
        """The deepest level that is left."""
        return kept_level(self)

    def enable_freeu(self, s1: float, s2: float, b1: float, b2: float) -> None:
        """Enable FreeU in the blocks that are left; see diffusers' UNet."""
        for block in self.up_blocks:
            if block is not None:
                vars(block).update(s1=s1, s2=s2, b1=b1, b2=b2)

    @apply_lora_scale("cross_attention_kwargs")
    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float | int,
        encoder_hidden_states: torch.Tensor,
        class_labels: torch.Tensor | None = None,
        timestep_cond: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        added_cond_kwargs: dict[str, torch.Tensor] | None = None,
        down_block_additional_residuals: tuple[torch.Tensor, ...] | None = None,
        mid_block_additional_residual: torch.Tensor | None = None,
        down_intrablock_additional_residuals: tuple[torch.Tensor, ...] | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        return_dict: bool = True,
        *,
        structure: Mapping[int, torch.Tensor] | None = None,
    ) -> UNet2DConditionOutput | tuple[torch.Tensor]:
        """Run the levels that are left; the arguments are those of diffusers' UNet.

        Of ControlNet's residuals those of the levels that are gone are left out.

        Args:
            sample: Noisy latents, ``(N, C, H, W)``.
            timestep: Timestep, a scalar or ``(N,)``.
            encoder_hidden_states: Text features, ``(N, L, D)``.
            class_labels: As in diffusers.
            timestep_cond: As in diffusers.
            attention_mask: As in diffusers.
            cross_attention_kwargs: As in diffusers.
            added_cond_kwargs: As in diffusers.
            down_block_additional_residuals: ControlNet's, one per skip connection.
            mid_block_additional_residual: ControlNet's for the middle.
            down_intrablock_additional_residuals: T2I-Adapter's, which are refused.
            encoder_attention_mask: As in diffusers.
            return_dict: As in diffusers.
            structure: Structure features for residual blocks with SPADE.
        """
        residuals, middle = take_residuals(
            {
                "down_block_additional_residuals": down_block_additional_residuals,
                "mid_block_additional_residual": mid_block_additional_residual,
                "down_intrablock_additional_residuals": (
                    down_intrablock_additional_residuals
                ),
            }
        )
        conditions = make_conditions(
            self,
            sample,
            timestep,
            encoder_hidden_states,
            class_labels=class_labels,
            timestep_cond=timestep_cond,
            attention_mask=attention_mask,
            encoder_attention_mask=encoder_attention_mask,
            added_cond_kwargs=added_cond_kwargs,
            cross_attention_kwargs=cross_attention_kwargs,
            structure=structure,
        )
        hidden = run_input(self, sample)
        skips: tuple[torch.Tensor, ...] = (hidden,)
        for block in self.down_blocks:
            hidden, more = run_down(block, hidden, conditions)
            skips += more
        skips = add_residuals(skips, residuals)
        rising = rise(self, hidden, conditions, middle)
        hidden = run_up_path(list(self.up_blocks), rising, skips, conditions)
        output = run_output(self, hidden)
        return UNet2DConditionOutput(sample=output) if return_dict else (output,)


def levels_of(unet: nn.Module) -> int:
    """Return the number of a UNet's levels: its skip connections, and the middle.

    Of a UNet that is cut already, these are the levels that it had.

    Raises:
        ValueError: If it is not of Stable Diffusion's topology, or has no middle.
    """
    check_topology(unet)
    assert isinstance(unet, UNet2DConditionModel)
    whole = level_count(unet)
    if kept_level(unet) == whole and unet.mid_block is None:
        raise ValueError("depth-skip needs a UNet with a middle block")
    return whole


def depth_skip(unet: UNet2DConditionModel, level: int) -> DepthSkipUNet:
    """Return a UNet that ends at a level, of the same modules.

    Nothing is copied, and the UNet that is given stays as it is. Its deep levels leave
    the memory with the last reference to it.

    Args:
        unet: A UNet of Stable Diffusion's topology, which may end at a level already.
        level: The deepest level to keep, from 1 to all that there are: 13 for SD 1.x
            and 2.x, 10 for SDXL.

    Raises:
        ValueError: If there is no such level, the UNet has been cut above it, it is of
            another topology, or something has replaced its forward.
    """
    if "forward" in vars(unet):
        raise ValueError(
            "the UNet's forward is replaced, as by Clockwork; "
            "remove that first, and apply it to what depth-skip leaves"
        )
    return _cut(unet, level)


def _cut(unet: UNet2DConditionModel, level: int) -> DepthSkipUNet:
    """Return a UNet that ends at a level, without what hangs on the given one."""
    levels_of(unet)
    _check_level(unet, level)
    if level > kept_level(unet):
        raise ValueError(
            f"level {level} is gone: depth-skip has kept this UNet to level "
            f"{kept_level(unet)}"
        )
    kind = type(unet) if isinstance(unet, DepthSkipUNet) else DepthSkipUNet
    new: DepthSkipUNet = _alike(unet, kind, **_kept_blocks(unet, level))
    for name in HANGING:
        new.__dict__.pop(name, None)
    new.register_to_config(level=level)
    # What loaders have set (IP-Adapters) is an attribute of the configuration alone.
    for name in unet.config:
        if hasattr(unet.config, name):  # what a file alone has said is none
            setattr(new.config, name, getattr(unet.config, name))
    new.config.level = level
    return new


# --- levels -----------------------------------------------------------------------


@dataclass(frozen=True)
class Level:
    """What lies at a level.

    Attributes:
        level: Its number, from 1.
        encoder: Modules on the way down, by diffusers' names.
        decoder: Modules on the way up; at level 13 the middle block.
        parameters: Parameters of these modules.
        zero_channels: Channels of the zeros that take the place of what comes from
            below, if this level is the deepest; 0 at level 13.
        skip_channels: Channels of the skip connection; 0 at level 13.
        resolution: Its height and width at the UNet's own sample size.
    """

    level: int
    encoder: tuple[str, ...]
    decoder: tuple[str, ...]
    parameters: int
    zero_channels: int
    skip_channels: int
    resolution: int

    def to_json(self) -> dict[str, Any]:
        """Return the fields."""
        return asdict(self)


def describe_levels(unet: UNet2DConditionModel) -> tuple[Level, ...]:
    """Describe the levels that a UNet has, level 1 first.

    Raises:
        ValueError: If the UNet is of another topology.
    """
    levels_of(unet)
    return tuple(_describe(unet, level) for level in range(1, kept_level(unet) + 1))


def shared_parameters(unet: UNet2DConditionModel) -> dict[str, int]:
    """Return the parameters that belong to no level: ``time`` and ``output``."""
    parts = {
        "time": (unet.time_embedding, getattr(unet, "add_embedding", None)),
        "output": (unet.conv_norm_out, unet.conv_out),
    }
    return {
        name: sum(_count(part) for part in modules if part is not None)
        for name, modules in parts.items()
    }


def _describe(unet: UNet2DConditionModel, level: int) -> Level:
    encoder, decoder = _names(unet, level)
    parameters = sum(_count(unet.get_submodule(name)) for name in encoder + decoder)
    size = int(unet.config.sample_size)
    blocks, layers = len(unet.config.down_block_types), levels_per_block(unet)
    for _ in range(min((level - 1) // layers, blocks - 1)):
        size = -(-size // 2)
    if level == level_count(unet):
        return Level(level, encoder, decoder, parameters, 0, 0, size)
    above: Any = unet.get_submodule(encoder[0])
    rising: Any = unet.get_submodule(decoder[0])
    zeros = rising.in_channels - above.out_channels
    return Level(level, encoder, decoder, parameters, zeros, above.out_channels, size)


def _names(
    unet: UNet2DConditionModel, level: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of a level's modules, on the way down and on the way up."""
    levels, layers = level_count(unet), levels_per_block(unet)
    if level == levels:
        return (), ("mid_block",)
    encoder: tuple[str, ...] = ("conv_in",)
    if level > 1:
        block, layer = divmod(level - 2, layers)
        encoder = _layer(unet, f"down_blocks.{block}", layer)
        if layer == layers - 1:
            encoder = (f"down_blocks.{block}.downsamplers.0",)
    block, layer = divmod(levels - 1 - level, layers)
    decoder = _layer(unet, f"up_blocks.{block}", layer)
    if layer == layers - 1 and block < len(unet.config.up_block_types) - 1:
        decoder += (f"up_blocks.{block}.upsamplers.0",)
    return encoder, decoder


def _layer(unet: UNet2DConditionModel, block: str, layer: int) -> tuple[str, ...]:
    names: tuple[str, ...] = (f"{block}.resnets.{layer}",)
    if getattr(unet.get_submodule(block), "attentions", None) is not None:
        names += (f"{block}.attentions.{layer}",)
    return names


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _check_level(unet: UNet2DConditionModel, level: int) -> None:
    levels = level_count(unet)
    if type(level) is not int or not 1 <= level <= levels:
        raise ValueError(f"level {level!r} is not one of 1 to {levels}")


def _kept_blocks(unet: UNet2DConditionModel, level: int) -> dict[str, nn.Module | None]:
    """Return a UNet's blocks as they are down to a level, by their names in it."""
    if level == kept_level(unet):
        names = ("down_blocks", "mid_block", "up_blocks")
        return {name: unet._modules[name] for name in names}
    per_block, deepest_skip = levels_per_block(unet), level_count(unet) - 1
    down: list[nn.Module | None] = []
    for index, block in enumerate(unet.down_blocks):
        # Levels of this block: per_block * index + 2 and those that follow.
        layers = level - (per_block * index + 1)
        if layers >= per_block:
            down.append(block)
        elif layers > 0:
            lists = {
                name: _places(list(parts)[:layers])
                for name, parts in _lists(block).items()
            }
            down.append(_alike(block, type(block), **lists, downsamplers=None))
    up: list[nn.Module | None] = []
    for index, block in enumerate(unet.up_blocks):
        gone = deepest_skip - level - per_block * index
        if gone <= 0:
            up.append(block)
        elif gone >= per_block:
            up.append(None)
        else:
            lists = {
                name: _places([*[None] * gone, *list(parts)[gone:]])
                for name, parts in _lists(block).items()
            }
            up.append(_alike(block, type(block), **lists))
    return {
        "down_blocks": _places(down),
        "mid_block": None,
        "up_blocks": _places(up),
    }


def _places(parts: Sequence[nn.Module | None]) -> nn.ModuleList:
    """Return a list of modules with places left empty, as torch's own type allows."""
    places = nn.ModuleList()
    for index, part in enumerate(parts):
        places.add_module(str(index), part)
    return places


def _lists(block: nn.Module) -> dict[str, nn.ModuleList]:
    """Return a block's lists of layers by name."""
    lists = {name: getattr(block, name, None) for name in ("resnets", "attentions")}
    return {name: parts for name, parts in lists.items() if parts is not None}


def _alike(module: nn.Module, kind: type, **parts: nn.Module | None) -> Any:
    """Return a module like another, but for some parts; the rest is the same objects.

    Only the tables of modules, hooks and so on are new, so that a change of one of the
    two changes nothing in the other.
    """
    if not isinstance(module, UNet2DConditionModel) and "forward" in vars(module):
        raise ValueError(
            f"{describe(vars(module)['forward'])} hangs on the forward of a "
            f"{type(module).__name__} of which depth-skip keeps a part; take it off"
        )
    new: Any = object.__new__(kind)
    for name, value in vars(module).items():
        copied = type(value) in (dict, OrderedDict)
        vars(new)[name] = value.copy() if copied else value
    vars(new)["_modules"].update(parts)
    return new


# --- the door for pipelines -----------------------------------------------------------


def apply_depth_skip(pipe: Any, level: int) -> None:
    """Make a pipeline's UNet end at a level.

    ``pipe.unet`` stays the whole UNet, which runs down to the level alone: what is
    loaded into it meanwhile, such as a LoRA, is in all of it. To have the deep levels
    gone from memory, set ``pipe.unet = depth_skip(pipe.unet, level)`` instead.

    Args:
        pipe: A diffusers pipeline with a ``unet``, or such a UNet.
        level: The deepest level to keep.

    Raises:
        ValueError: If this is in force already, `depth_skip` refuses, or the method
            that is applied does not fit.

    >>> import torch
    >>> from diffusers import StableDiffusionPipeline
    >>> mini = "resources/mini/stable-diffusion"
    >>> pipe = StableDiffusionPipeline.from_pretrained(mini, dtype=torch.float32)
    >>> apply_depth_skip(pipe, level=9)
    >>> image = pipe("a red ring on the sea", num_inference_steps=4).images[0]
    >>> remove_depth_skip(pipe)
    """
    put_depth(pipe, partial(_cut, level=level))


def remove_depth_skip(pipe: Any) -> None:
    """Give a pipeline its whole UNet back; without depth-skip, do nothing.

    >>> import torch
    >>> from diffusers import StableDiffusionPipeline
    >>> mini = "resources/mini/stable-diffusion"
    >>> pipe = StableDiffusionPipeline.from_pretrained(mini, dtype=torch.float32)
    >>> apply_depth_skip(pipe, level=9)
    >>> remove_depth_skip(pipe)
    """
    take_depth(pipe)


depth_skipped = scoped(
    "depth_skipped",
    apply_depth_skip,
    remove_depth_skip,
    """Apply depth-skip within a block; see `apply_depth_skip` for the arguments.

    >>> import torch
    >>> from diffusers import StableDiffusionPipeline
    >>> mini = "resources/mini/stable-diffusion"
    >>> pipe = StableDiffusionPipeline.from_pretrained(mini, dtype=torch.float32)
    >>> with depth_skipped(pipe, level=9):
    ...     image = pipe("a red ring on the sea", num_inference_steps=4).images[0]
    """,
)
