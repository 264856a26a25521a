"""Split a UNet of Stable Diffusion's topology at a named cut, without changing it.

SD 1.x and 2.x have four blocks on either path and SDXL three: how many levels there are
follows from the UNet.

The UNet becomes a high-resolution part ε_H, which runs at every sampling step, and a
low-resolution part ε_L, which Clockwork replaces on some steps (paper Fig. 3)::

    r_in  = features that enter ε_L: the output of the last high-resolution down block,
            its downsampler included
    r_out = features that leave ε_L: the output of the first low-resolution up block
            *before* its upsampler

`SplitUNet` holds no weights and no state. It calls the UNet's own modules in the UNet's
own order, so that ``full`` equals the UNet bit for bit, LoRA layers, attention
processors, ControlNet residuals and autocast included.

A UNet without its deep levels (`clockwork_diffusion.depth_skip`) is split all the same:
what is missing is None in it, and the deepest layer that is left gets zeros from below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import torch
from diffusers import UNet2DConditionModel
from diffusers.utils.torch_utils import apply_freeu
from torch import nn

CUTS: dict[str, int] = {"stage1": 1, "stage2": 2}
"""Down (and up) blocks of ε_H by cut: the paper's "res 32x32" and "res 16x16"."""

DOWN_BLOCKS = ("DownBlock2D", "CrossAttnDownBlock2D")
UP_BLOCKS = ("UpBlock2D", "CrossAttnUpBlock2D")
"""The blocks that Stable Diffusion's UNets are made of, SDXL's among them."""


_NONE = cast(torch.Tensor, None)
"""No r_out: those who ask for none do not read it."""


class Step(NamedTuple):
    """What one pass yields.

    Attributes:
        eps: The UNet's output, ``(N, C, H, W)``: predicted noise, or v if the model
            predicts that.
        r_in: Features entering ε_L.
        r_out: Features leaving ε_L, or an adaptor's estimate of them; where the block
            that yields them was asked to run whole, there are none, and this is None.
        up: r_out after its upsampler; what the identity adaptor keeps.
    """

    eps: torch.Tensor
    r_in: torch.Tensor
    r_out: torch.Tensor
    up: torch.Tensor


class SpadeInput(NamedTuple):
    """What residual blocks with SPADE take in place of the time embedding.

    Attributes:
        t_emb: Time embedding, ``(N, E)``.
        structure: Structure features by their width in latent pixels.
    """

    t_emb: torch.Tensor
    structure: Mapping[int, torch.Tensor]


class Conditions(NamedTuple):
    """What all blocks of one pass share.

    Attributes:
        t_emb: Time embedding (class and added embeddings included), ``(N, E)``.
        text: Text features for cross attention, ``(N, L, D)``.
        attention_mask: Bias for self attention, or None.
        text_mask: Bias for cross attention, or None.
        attention_kwargs: Passed on to the attention processors.
        structure: Structure features for residual blocks with SPADE, or None.
    """

    t_emb: torch.Tensor
    text: torch.Tensor
    attention_mask: torch.Tensor | None = None
    text_mask: torch.Tensor | None = None
    attention_kwargs: dict[str, Any] | None = None
    structure: Mapping[int, torch.Tensor] | None = None

    @property
    def temb(self) -> torch.Tensor | SpadeInput:
        """Return what residual blocks take; diffusers' blocks pass it on untouched."""
        if self.structure is None:
            return self.t_emb
        return SpadeInput(self.t_emb, self.structure)

    def attention_arguments(self) -> dict[str, Any]:
        """Return what diffusers' blocks and transformers take of these, by name."""
        return {
            "encoder_hidden_states": self.text,
            "attention_mask": self.attention_mask,
            "cross_attention_kwargs": self.attention_kwargs,
            "encoder_attention_mask": self.text_mask,
        }


class High(NamedTuple):
    """State of ε_H halfway.

    Attributes:
        r_in: Features entering ε_L.
        skips: Skip connections within ε_H, from the highest resolution down.
    """

    r_in: torch.Tensor
    skips: tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class SplitUNet:
    """A UNet seen as ε_H and ε_L.

    Attributes:
        unet: The UNet; its modules are shared, never copied.
        cut: A key of `CUTS`.

    Raises:
        ValueError: If the cut is unknown, or the UNet is not one that can be cut there.
    """

    unet: UNet2DConditionModel
    cut: str = "stage1"
    level: int = field(init=False)

    def __post_init__(self) -> None:
        """Check the UNet's topology against the cut."""
        object.__setattr__(self, "level", check_cut(self.unet, self.cut))

    # --- passes ------------------------------------------------------------------

    def full(
        self,
        x: torch.Tensor,
        t: torch.Tensor | float,
        c: torch.Tensor,
        *,
        through: bool = False,
        **kwargs: Any,
    ) -> Step:
        """Run the whole UNet.

        Args:
            x: Noisy latents, ``(N, C, H, W)``.
            t: Timestep, a scalar or ``(N,)``.
            c: Text features, ``(N, L, D)``.
            through: Run the block that yields r_out by its own forward, to the end of
                its upsampler, and yield no r_out.
            **kwargs: The further arguments of diffusers' UNet.
        """
        residuals = take_residuals(kwargs)
        conditions = self.condition(x, t, c, **kwargs)
        high = self.encode(x, conditions)
        if through:
            up = self.low(high, conditions, residuals, through=True)
            r_out = _NONE
        else:
            r_out = self.low(high, conditions, residuals)
            up = self.upsample(r_out, high)
        eps = self.decode(up, _add(high, residuals[0]), conditions)
        return Step(eps, high.r_in, r_out, up)

    def adapt(
        self,
        x: torch.Tensor,
        t: torch.Tensor | float,
        c: torch.Tensor,
        r_out: torch.Tensor | None,
        adaptor: Callable[..., torch.Tensor],
        pooled: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Step:
        """Run ε_H, with an adaptor's estimate of r_out in place of ε_L (Fig. 3).

        Args:
            x: Noisy latents, ``(N, C, H, W)``.
            t: Timestep, a scalar or ``(N,)``.
            c: Text features, ``(N, L, D)``.
            r_out: r_out of the previous sampling step; None for an adaptor that does
                not take it.
            adaptor: φ(r_in, r_out, t_emb, text_emb) → estimate of r_out.
            pooled: Pooled text embedding for the adaptor, ``(N, P)``.
            **kwargs: The further arguments of diffusers' UNet.
        """
        residuals = take_residuals(kwargs)
        conditions = self.condition(x, t, c, **kwargs)
        high = self.encode(x, conditions)
        estimate = adaptor(high.r_in, r_out, conditions.t_emb, pooled)
        up = self.upsample(estimate, high)
        eps = self.decode(up, _add(high, residuals[0]), conditions)
        return Step(eps, high.r_in, estimate, up)

    def reuse(
        self,
        x: torch.Tensor,
        t: torch.Tensor | float,
        c: torch.Tensor,
        up: torch.Tensor,
        r_out: torch.Tensor = _NONE,
        **kwargs: Any,
    ) -> Step:
        """Run ε_H on upsampled features: the identity adaptor at its cheapest.

        The upsampler follows r_out directly, so keeping its *output* gives the same
        image as keeping r_out, and saves the upsampler on each adaptor step.

        Args:
            x: Noisy latents, ``(N, C, H, W)``.
            t: Timestep, a scalar or ``(N,)``.
            c: Text features, ``(N, L, D)``.
            up: ``up`` of the last full pass.
            r_out: ``r_out`` of the last full pass, if it is to be handed on.
            **kwargs: The further arguments of diffusers' UNet.
        """
        residuals = take_residuals(kwargs)
        conditions = self.condition(x, t, c, **kwargs)
        high = self.encode(x, conditions)
        eps = self.decode(up, _add(high, residuals[0]), conditions)
        return Step(eps, high.r_in, r_out, up)

    # --- their pieces ------------------------------------------------------------

    def condition(
        self, x: torch.Tensor, t: torch.Tensor | float, c: torch.Tensor, **kwargs: Any
    ) -> Conditions:
        """Embed the timestep and prepare the rest; see `make_conditions`."""
        return make_conditions(self.unet, x, t, c, **kwargs)

    def encode(self, x: torch.Tensor, conditions: Conditions) -> High:
        """Run the first half of ε_H: conv_in and its down blocks."""
        hidden = run_input(self.unet, x)
        skips: tuple[torch.Tensor, ...] = (hidden,)
        for block in _among(self.unet.down_blocks, stop=self.level):
            hidden, more = run_down(block, hidden, conditions)
            skips += more
        # The last skip is r_in itself, and ε_L consumes it.
        return High(hidden, skips[:-1])

    def low(
        self,
        high: High,
        conditions: Conditions,
        residuals: tuple[tuple[torch.Tensor, ...], torch.Tensor | None] = ((), None),
        *,
        through: bool = False,
    ) -> torch.Tensor:
        """Run ε_L: the other down blocks, the middle, and up to r_out.

        Args:
            high: The state after ε_H's first half.
            conditions: Conditions of the pass.
            residuals: ControlNet's residuals for all skips and for the middle.
            through: Go on through the upsampler.
        """
        unet = self.unet
        hidden, skips = high.r_in, (*high.skips, high.r_in)
        for block in _among(unet.down_blocks, self.level):
            hidden, more = run_down(block, hidden, conditions)
            skips += more
        skips = add_residuals(skips, residuals[0])
        rising = rise(unet, hidden, conditions, residuals[1])
        last = len(unet.up_blocks) - self.level - 1
        blocks = _among(unet.up_blocks, stop=last + 1)
        return run_up_path(blocks, rising, skips, conditions, through=through)

    def upsample(self, r_out: torch.Tensor, high: High) -> torch.Tensor:
        """Bring r_out to the resolution of ε_H's second half."""
        block = self.unet.up_blocks[len(self.unet.up_blocks) - self.level - 1]
        return run_upsampler(block, r_out, high.skips[-1])

    def decode(
        self, up: torch.Tensor, high: High, conditions: Conditions
    ) -> torch.Tensor:
        """Run the second half of ε_H: its up blocks and the output layers."""
        blocks = _among(self.unet.up_blocks, len(self.unet.up_blocks) - self.level)
        hidden = run_up_path(blocks, up, high.skips, conditions)
        return run_output(self.unet, hidden)


def check_cut(unet: nn.Module, cut: str) -> int:
    """Return the number of high-resolution blocks of a cut.

    Raises:
        ValueError: If the cut is unknown, the UNet lacks it, or the UNet does not have
            Stable Diffusion's topology.
    """
    if cut not in CUTS:
        raise ValueError(f"cut {cut!r} is not one of {', '.join(CUTS)}")
    level = CUTS[cut]
    check_topology(unet)
    assert isinstance(unet, UNet2DConditionModel)
    kept, needed = kept_level(unet), levels_per_block(unet) * level + 1
    if kept < needed:
        raise ValueError(
            f"cut {cut!r} needs the UNet's levels down to {needed}, "
            f"and depth-skip has kept it to level {kept}"
        )
    depth = len(unet.config.down_block_types)
    if level >= depth:
        raise ValueError(
            f"cut {cut!r} needs a UNet of at least {level + 1} levels, "
            f"and this one has {depth}"
        )
    return level


def check_topology(unet: nn.Module) -> None:
    """Make sure that a UNet is one that can be split, whole or cut by depth-skip.

    Raises:
        ValueError: If it is of another class, of other blocks, or its blocks are joined
            in another way than Stable Diffusion's.
    """
    name, wanted = type(unet).__name__, "of Stable Diffusion's topology"
    if not isinstance(unet, UNet2DConditionModel):
        raise ValueError(
            f"{name} is not a UNet {wanted}: it must be a UNet2DConditionModel"
        )
    config = unet.config
    for kind in (*config.down_block_types, *config.up_block_types):
        if kind not in DOWN_BLOCKS + UP_BLOCKS:
            raise ValueError(
                f"this {name} is not {wanted}: its block {kind} is not one of "
                f"{', '.join(DOWN_BLOCKS + UP_BLOCKS)}"
            )
    if kept_level(unet) < level_count(unet):
        return  # checked before it was cut
    depth = len(unet.up_blocks)
    for index, (down, up) in enumerate(
        zip(unet.down_blocks, reversed(unet.up_blocks), strict=True)
    ):
        sampled = getattr(down, "downsamplers", None) is not None
        raised = getattr(up, "upsamplers", None) is not None
        fits = len(up.resnets) == len(down.resnets) + 1
        if not fits or sampled != (index < depth - 1) or raised != (index > 0):
            raise ValueError(
                f"down block {index} ({type(down).__name__}) and its up block "
                f"({type(up).__name__}) are not {wanted}"
            )


def levels_per_block(unet: UNet2DConditionModel) -> int:
    """Return the levels of a block: its layers and a downsampler, 3 for SD and SDXL.

    Raises:
        ValueError: If blocks differ.
    """
    layers = unet.config.layers_per_block
    counts = {layers} if isinstance(layers, int) else set(layers)
    if len(counts) > 1:
        raise ValueError(f"the blocks have {list(layers)} layers, not equally many")
    return int(counts.pop()) + 1


def level_count(unet: UNet2DConditionModel) -> int:
    """Return the levels of a UNet before any is skipped: its skips, and the middle.

    13 for SD 1.x and 2.x, 10 for SDXL.
    """
    # The first convolution has a skip as well, and the last block no downsampler.
    return len(unet.config.down_block_types) * levels_per_block(unet) + 1


def make_conditions(
    unet: UNet2DConditionModel,
    x: torch.Tensor,
    t: torch.Tensor | float,
    c: torch.Tensor,
    *,
    class_labels: torch.Tensor | None = None,
    timestep_cond: torch.Tensor | None = None,
    attention_mask: torch.Tensor | None = None,
    encoder_attention_mask: torch.Tensor | None = None,
    added_cond_kwargs: dict[str, torch.Tensor] | None = None,
    cross_attention_kwargs: dict[str, Any] | None = None,
    structure: Mapping[int, torch.Tensor] | None = None,
) -> Conditions:
    """Embed the timestep and prepare text and masks as diffusers does."""
    emb = unet.time_embedding(unet.get_time_embed(sample=x, timestep=t), timestep_cond)
    class_emb = unet.get_class_embed(sample=x, class_labels=class_labels)
    if class_emb is not None:
        joined = unet.config.class_embeddings_concat
        emb = torch.cat([emb, class_emb], dim=-1) if joined else emb + class_emb
    aug_emb = unet.get_aug_embed(
        emb=emb, encoder_hidden_states=c, added_cond_kwargs=added_cond_kwargs
    )
    emb = emb + aug_emb if aug_emb is not None else emb
    if unet.time_embed_act is not None:
        emb = unet.time_embed_act(emb)
    text = unet.process_encoder_hidden_states(
        encoder_hidden_states=c, added_cond_kwargs=added_cond_kwargs
    )
    if cross_attention_kwargs and cross_attention_kwargs.get("gligen") is not None:
        objects = unet.position_net(**cross_attention_kwargs["gligen"])
        cross_attention_kwargs = {**cross_attention_kwargs, "gligen": {"objs": objects}}
    return Conditions(
        emb,
        text,
        _bias(attention_mask, x),
        _bias(encoder_attention_mask, x),
        cross_attention_kwargs,
        structure,
    )


def take_residuals(
    kwargs: dict[str, Any],
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor | None]:
    """Take ControlNet's residuals out of the arguments of a pass."""
    if kwargs.pop("down_intrablock_additional_residuals", None) is not None:
        raise ValueError("T2I-Adapter residuals are not supported by a split UNet")
    skips = kwargs.pop("down_block_additional_residuals", None)
    middle = kwargs.pop("mid_block_additional_residual", None)
    if skips is not None and middle is None:
        raise ValueError("T2I-Adapter residuals are not supported by a split UNet")
    return tuple(skips or ()), middle


def add_residuals(
    skips: tuple[torch.Tensor, ...], residuals: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, ...]:
    """Add residuals to the skips that are there; deeper ones are left out.

    Raises:
        ValueError: If the residuals are too few for the skips, or of other shapes.
    """
    if not residuals:
        return skips
    if len(residuals) < len(skips):
        raise ValueError(
            f"ControlNet gives {len(residuals)} residuals, "
            f"and the UNet has {len(skips)} skip connections"
        )
    added: tuple[torch.Tensor, ...] = ()
    for number, skip in enumerate(skips, 1):
        residual = residuals[number - 1]
        if residual.shape[1:] != skip.shape[1:]:
            raise ValueError(
                f"ControlNet's residual {number} is {tuple(residual.shape[1:])}, "
                f"and the skip connection is {tuple(skip.shape[1:])}: "
                "it belongs to another UNet, or its image has another size"
            )
        added += (skip + residual,)
    return added


def _add(high: High, residuals: tuple[torch.Tensor, ...]) -> High:
    return High(high.r_in, add_residuals(high.skips, residuals))


def _among(
    blocks: nn.ModuleList, start: int = 0, stop: int | None = None
) -> list[nn.Module]:
    """Return some of the blocks; a slice of a ModuleList is a new module, and slow."""
    return list(blocks)[start:stop]


def _bias(mask: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor | None:
    """Turn a (1 = keep, 0 = drop) mask into an additive attention bias."""
    if mask is None:
        return None
    return ((1 - mask.to(x.dtype)) * -10000.0).unsqueeze(1)


def run_input(unet: UNet2DConditionModel, x: torch.Tensor) -> torch.Tensor:
    """Run the first convolution."""
    if unet.config.center_input_sample:
        x = 2 * x - 1.0
    hidden: torch.Tensor = unet.conv_in(x)
    return hidden


def run_down(
    block: nn.Module, hidden: torch.Tensor, conditions: Conditions
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Run a down block; return its output, and the skip of each of its layers."""
    arguments = (
        conditions.attention_arguments()
        if getattr(block, "has_cross_attention", False)
        else {}
    )
    output: tuple[torch.Tensor, tuple[torch.Tensor, ...]] = block(
        hidden_states=hidden, temb=conditions.temb, **arguments
    )
    return output


def run_middle(
    unet: UNet2DConditionModel,
    hidden: torch.Tensor,
    conditions: Conditions,
    residual: torch.Tensor | None = None,
) -> torch.Tensor:
    """Run the middle block, if there is one, and add ControlNet's residual."""
    if unet.mid_block is not None:
        arguments = {}
        if getattr(unet.mid_block, "has_cross_attention", False):
            arguments = conditions.attention_arguments()
        hidden = unet.mid_block(hidden, conditions.temb, **arguments)
    return hidden if residual is None else hidden + residual


def kept_level(unet: UNet2DConditionModel) -> int:
    """Return the level down to which depth-skip has kept a UNet; all if untouched."""
    level = unet.config.get("level")
    return level_count(unet) if level is None else int(level)


def run_output(unet: UNet2DConditionModel, hidden: torch.Tensor) -> torch.Tensor:
    """Run the output layers."""
    if unet.conv_norm_out is not None:
        hidden = unet.conv_act(unet.conv_norm_out(hidden))
    output: torch.Tensor = unet.conv_out(hidden)
    return output


def rise(
    unet: UNet2DConditionModel,
    hidden: torch.Tensor,
    conditions: Conditions,
    residual: torch.Tensor | None = None,
) -> torch.Tensor | None:
    """Return what rises from the middle into the up path.

    None if depth-skip has left the middle out: ControlNet's residual goes with it.
    """
    if kept_level(unet) < level_count(unet):
        return None
    return run_middle(unet, hidden, conditions, residual)


def run_up_path(
    blocks: Sequence[nn.Module | None],
    rising: torch.Tensor | None,
    skips: tuple[torch.Tensor, ...],
    conditions: Conditions,
    *,
    through: bool = False,
) -> torch.Tensor:
    """Run up blocks, each by its own forward wherever it runs whole.

    Args:
        blocks: The blocks; None for those that depth-skip has left out.
        rising: What rises from below, or None if nothing does.
        skips: The skips of these blocks, the last block's first.
        conditions: Conditions of the pass.
        through: Run the last block's upsampler too, if it has one.
    """
    hidden: Any = rising
    present = [block for block in blocks if block is not None]
    for index, block in enumerate(present):
        skips, taken = take_skips(skips, block)
        upsamples = getattr(block, "upsamplers", None) is not None
        ends = upsamples and index == len(present) - 1 and not through
        resnets: Any = block.resnets
        if hidden is None or ends or any(each is None for each in resnets):
            hidden = run_up(block, hidden, taken, conditions)
            if upsamples and not ends:
                hidden = run_upsampler(block, hidden, skips[-1])
        else:
            size = _upsampled(hidden, skips[-1]) if upsamples else None
            hidden = _run_up_whole(block, hidden, taken, conditions, size)
    assert isinstance(hidden, torch.Tensor)
    return hidden


def _run_up_whole(
    block: nn.Module,
    hidden: torch.Tensor,
    skips: tuple[torch.Tensor, ...],
    conditions: Conditions,
    size: torch.Size | None,
) -> torch.Tensor:
    """Run an up block by its own forward, and whatever hangs on that."""
    arguments = (
        conditions.attention_arguments()
        if getattr(block, "has_cross_attention", False)
        else {}
    )
    if _freed(block):
        # It writes into what it is given, which may be a kept feature.
        hidden = hidden.clone()
    output: torch.Tensor = block(
        hidden_states=hidden,
        temb=conditions.temb,
        res_hidden_states_tuple=skips,
        upsample_size=size,
        **arguments,
    )
    return output


def _freed(block: nn.Module) -> bool:
    """Tell whether FreeU is on for a block."""
    # One missing ends the search: each costs microseconds, as absent from a module.
    return all(getattr(block, name, None) for name in ("s1", "s2", "b1", "b2"))


def describe(forward: Any) -> str:
    """Return what has replaced a module's forward, by module and name."""
    made = getattr(forward, "func", forward)  # of functools.partial
    made = made if hasattr(made, "__qualname__") else type(made)
    return f"{made.__module__}.{made.__qualname__}"


def take_skips(
    skips: tuple[torch.Tensor, ...], block: nn.Module
) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """Split off the skips that an up block consumes."""
    resnets: Any = block.resnets
    count = sum(resnet is not None for resnet in resnets)
    return skips[:-count], skips[-count:]


def run_up(
    block: nn.Module,
    rising: torch.Tensor | None,
    skips: tuple[torch.Tensor, ...],
    conditions: Conditions,
    layers: range | None = None,
) -> torch.Tensor:
    """Run an up block's layers, without its upsampler.

    Args:
        block: The block.
        rising: What the layers before have yielded; None if depth-skip has left them
            out, for zeros in its place.
        skips: The block's skips, the first layer's last; at least those of ``layers``.
        conditions: Conditions of the pass.
        layers: Which layers to run; all that there are if left out.

    Raises:
        ValueError: If something hangs on the block's own forward, which is not called.
    """
    if "forward" in vars(block):
        raise ValueError(
            f"{describe(vars(block)['forward'])} hangs on the forward of a "
            f"{type(block).__name__} of which this method runs a part; take it off, or "
            "choose a cut or a branch between blocks and the identity adaptor"
        )
    attentions: Any = (
        block.attentions if getattr(block, "has_cross_attention", False) else ()
    )
    freed = _freed(block)
    resnets: Any = block.resnets
    hidden: Any = rising
    for index in range(len(resnets)) if layers is None else layers:
        if resnets[index] is None:
            continue
        skip = skips[len(resnets) - 1 - index]
        if hidden is None:
            hidden = zero_feature(resnets[index], skip)
        if freed:
            # It writes into what it is given, which may be a kept feature.
            freeu = {name: getattr(block, name) for name in ("s1", "s2", "b1", "b2")}
            hidden, skip = apply_freeu(
                block.resolution_idx, hidden.clone(), skip, **freeu
            )
        hidden = torch.cat([hidden, skip], dim=1)
        hidden = resnets[index](hidden, conditions.temb)
        if attentions:
            hidden = attentions[index](
                hidden, return_dict=False, **conditions.attention_arguments()
            )[0]
    assert isinstance(hidden, torch.Tensor)
    return hidden


def zero_feature(resnet: nn.Module, skip: torch.Tensor) -> torch.Tensor:
    """Return the zeros that stand for what a layer expects from below it.

    They go through the layer's normalisation and convolution in full: without them the
    groups of the normalisation would be others.
    """
    channels = int(resnet.in_channels) - skip.shape[1]  # type: ignore[arg-type]
    return skip.new_zeros(len(skip), channels, *skip.shape[2:])


def run_upsampler(
    block: nn.Module, hidden: torch.Tensor, skip: torch.Tensor
) -> torch.Tensor:
    """Run an up block's upsampler, to the size of the next skip if that is odd."""
    size = _upsampled(hidden, skip)
    for upsampler in block.upsamplers:  # type: ignore[union-attr]
        hidden = upsampler(hidden, size)
    return hidden


def _upsampled(hidden: torch.Tensor, skip: torch.Tensor) -> torch.Size | None:
    """Return the size to upsample to, or None where that is the double."""
    double = (2 * hidden.shape[2], 2 * hidden.shape[3])
    return None if tuple(skip.shape[2:]) == double else skip.shape[2:]
