"""Plug-and-Play's feature injection: the source's features steer another generation.

Tumanyan et al. (CVPR 2023) copy two kinds of features from a source's denoising into
the edit's: the output of one convolution, and the queries and keys of self-attention
(`layers_of` says where). Here hooks do it, on the UNet's own modules, whatever their
attention processors; on leaving the context no hook is left. A step that leaves out a
layer, as Clockwork's adaptor steps leave out ε_L, has nothing injected there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import FusedAttnProcessor2_0
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.hooks import RemovableHandle

CONV_LAYER = "up_blocks.1.resnets.1"
"""The layer whose conv features pnp-diffusers injects."""

Features = dict[str, torch.Tensor]
"""Outputs of injected layers by the module's name."""


@dataclass(frozen=True)
class Layers:
    """Where features are injected, by module name.

    Attributes:
        conv: Convolutions whose output is injected, for τ_f of the steps.
        attention: Projections to queries and keys, for τ_A of the steps.
    """

    conv: tuple[str, ...]
    attention: tuple[str, ...]


def layers_of(unet: UNet2DConditionModel, conv_layer: str = CONV_LAYER) -> Layers:
    """Return the layers of pnp-diffusers in a UNet of Stable Diffusion's topology.

    The second convolution of a ResBlock; queries and keys of the self-attention of
    ``up_blocks[1].attentions[1:]``, ``up_blocks[2].attentions`` and
    ``up_blocks[3].attentions``. A block without attention, as the Efficient UNet's
    last, has none to inject.

    Args:
        unet: The UNet.
        conv_layer: The ResBlock; pnp-diffusers' choice for SD is a quarter of the way
            up. A UNet that keeps its layout elsewhere needs another.

    Raises:
        ValueError: If the UNet lacks these layers, or its queries and keys come from
            one fused projection.
    """
    ups = list(unet.up_blocks)
    resnets = {
        f"up_blocks.{index}.resnets.{place}": resnet
        for index, block in enumerate(ups)
        for place, resnet in enumerate(block.resnets)
    }
    if conv_layer not in resnets:
        raise ValueError(
            f"conv layer {conv_layer!r} is not one of {', '.join(resnets)}"
        )
    attention = []
    for index, block in enumerate(ups[1:], 1):
        transformers = list(getattr(block, "attentions", ()))
        for place, transformer in enumerate(transformers):
            if index == 1 and place == 0:
                continue
            for number, part in enumerate(transformer.transformer_blocks):
                name = f"up_blocks.{index}.attentions.{place}"
                name += f".transformer_blocks.{number}.attn1"
                # `fused_projections` stays true after diffusers has taken it back.
                if isinstance(part.attn1.processor, FusedAttnProcessor2_0):
                    raise ValueError(
                        f"{name} has fused projections; call unet.unfuse_qkv_"
                        "projections() before editing"
                    )
                attention += [f"{name}.to_q", f"{name}.to_k"]
    if not attention:
        raise ValueError("Plug-and-Play needs self-attention in the up blocks")
    return Layers((f"{conv_layer}.conv2",), tuple(attention))


class Injection:
    """Hooks on a UNet's injected layers; a context manager.

    Outside of `share`, `record` and `replay` the hooks change nothing.

    Attributes:
        conv_layer: The ResBlock whose conv features are injected.
    """

    def __init__(
        self, unet: UNet2DConditionModel, conv_layer: str = CONV_LAYER
    ) -> None:
        """Find the layers; the hooks come with entering the context.

        Raises:
            ValueError: As `layers_of`.
        """
        layers = layers_of(unet, conv_layer)
        self.conv_layer = conv_layer
        self._modules = {
            name: unet.get_submodule(name) for name in layers.conv + layers.attention
        }
        self._layers = layers
        self._handles: list[RemovableHandle] = []
        self.off()

    def __enter__(self) -> Injection:
        """Put the hooks in place."""
        for name, module in self._modules.items():
            self._handles.append(module.register_forward_hook(self._hook(name)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take them away."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.off()

    # --- what the next passes do ----------------------------------------------------

    def off(self) -> None:
        """Inject nothing."""
        self._active: frozenset[str] = frozenset()
        self._rows = 0
        self._given: Mapping[str, torch.Tensor] | None = None
        self._kept: Features | None = None

    def share(self, rows: int, *, conv: bool, attention: bool) -> None:
        """Inject the features of a batch's first rows into the rows behind them.

        Args:
            rows: Rows of the source; the batch holds a multiple of them, and every
                further group of as many rows gets the same features.
            conv: Whether convolutions' outputs are injected.
            attention: Whether queries and keys are.
        """
        self.off()
        self._active, self._rows = self._chosen(conv, attention), rows

    def record(self, *, conv: bool, attention: bool) -> Features:
        """Return a dictionary that the next pass fills with its features."""
        self.off()
        self._active, self._kept = self._chosen(conv, attention), {}
        return self._kept

    def replay(
        self, features: Mapping[str, torch.Tensor], *, conv: bool, attention: bool
    ) -> None:
        """Inject recorded features, row by row of the batch.

        The next passes raise ValueError at a layer that they run and whose features
        were not recorded.

        Args:
            features: By layer, with as many rows as a group of the batch; every group
                gets the same.
            conv: Whether convolutions' outputs are injected.
            attention: Whether queries and keys are.
        """
        self.off()
        self._active, self._given = self._chosen(conv, attention), features

    def _chosen(self, conv: bool, attention: bool) -> frozenset[str]:
        if (conv or attention) and not self._handles:
            raise ValueError("the injection has no hooks outside of its context")
        layers = self._layers
        return frozenset(
            (layers.conv if conv else ()) + (layers.attention if attention else ())
        )

    def _hook(
        self, name: str
    ) -> Callable[[nn.Module, Any, torch.Tensor], torch.Tensor | None]:
        def hook(
            module: nn.Module, args: Any, output: torch.Tensor
        ) -> torch.Tensor | None:
            if name not in self._active:
                return None
            if self._kept is not None:
                self._kept[name] = output
                return None
            if self._given is None:
                source = output[: self._rows]
            elif name in self._given:
                source = self._given[name]
            else:
                raise ValueError(
                    f"no features of {name} were kept at this step; keep them with the "
                    "clock and the fractions that the generation has"
                )
            groups = len(output) // len(source)
            assert groups * len(source) == len(output), "rows are no whole groups"
            return torch.cat([source.to(output)] * groups)

        return hook


@dataclass
class FeatureStore:
    """A source's features at each step, in memory or in files.

    Attributes:
        folder: Folder to spill to, one file per step; None keeps all in memory.
        nbytes: Bytes kept so far.
    """

    folder: Path | None = None
    nbytes: int = 0
    _steps: dict[int, Features] = field(default_factory=dict)

    def put(self, index: int, features: Features) -> None:
        """Keep the features of a step."""
        self.nbytes += sum(value.nbytes for value in features.values())
        if self.folder is None:
            self._steps[index] = features
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            on_cpu = {
                name: value.cpu().contiguous() for name, value in features.items()
            }
            save_file(on_cpu, self._path(index))

    def get(self, index: int) -> Features:
        """Return the features of a step; none if nothing was kept."""
        if self.folder is None:
            return self._steps.get(index, {})
        path = self._path(index)
        try:
            return load_file(path) if path.is_file() else {}
        except SafetensorError as error:
            raise ValueError(f"{path} is corrupt or truncated ({error})") from error

    def _path(self, index: int) -> Path:
        assert self.folder is not None
        return self.folder / f"{index:04d}.safetensors"
