"""Read StableSR's published checkpoints into our modules.

Two files belong together: ``stablesr_000117.ckpt`` with UNet, structure encoder,
autoencoder and text encoder, and ``vqgan_cfw_00011.ckpt`` with the autoencoder again
and its CFW layers. For each tensor of ours, a table says which of the file's it is;
whatever of the file is in no table, and is not known to be of no use, is an error.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from clockwork_diffusion.stablesr.cfw import CFWAutoencoder
from clockwork_diffusion.stablesr.pipeline import StableSRPipeline
from clockwork_diffusion.stablesr.spade import STABLESR_UNET, SpadeUNet
from clockwork_diffusion.stablesr.structure_encoder import StructureEncoder


@dataclass(frozen=True)
class Architecture:
    """Configurations of what a pair of checkpoints holds; by default, of the published.

    Attributes:
        unet: Of the UNet.
        structure_encoder: Of the structure encoder.
        autoencoder: Of the plain autoencoder.
        cfw: Of CFW's layers.
        text_encoder: Of the text encoder, without the layers after its features.
        scheduler: Of the noise schedule, and what the UNet predicts.
    """

    unet: Mapping[str, Any] = field(default_factory=lambda: STABLESR_UNET)
    structure_encoder: Mapping[str, Any] = field(default_factory=dict)
    autoencoder: Mapping[str, Any] = field(
        default_factory=lambda: {
            "sample_size": 512,
            "block_out_channels": (128, 256, 512, 512),
            "layers_per_block": 2,
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
            "scaling_factor": 0.18215,
        }
    )
    cfw: Mapping[str, Any] = field(default_factory=dict)
    text_encoder: Mapping[str, Any] = field(
        default_factory=lambda: {
            # OpenCLIP's ViT-H/14.
            "hidden_size": 1024,
            "intermediate_size": 4096,
            # Of the 24 in the file: the features are those of the last but one.
            "num_hidden_layers": 23,
            "num_attention_heads": 16,
            "hidden_act": "gelu",
            "projection_dim": 512,
        }
    )
    scheduler: Mapping[str, Any] = field(
        default_factory=lambda: {
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "clip_sample": False,
            "set_alpha_to_one": False,
            "prediction_type": "epsilon",
        }
    )


UNET, STRUCTURE = "model.diffusion_model.", "structcond_stage_model."
FIRST, TEXT = "first_stage_model.", "cond_stage_model.model."

USELESS = re.compile(
    r"betas|alphas_cumprod(_prev)?|(sqrt|log|posterior|lvlb)_\w+|scale_factor|logvar"
    r"|model_ema\..*|(first_stage_model\.)?loss\..*"
    r"|cond_stage_model\.model\.(text_projection|logit_scale|attn_mask)"
)
"""What a checkpoint may hold beyond the modules: schedule, losses, text head."""

NAMED = 3
"""Keys that a message about a checkpoint names of each kind."""


@dataclass(frozen=True)
class Source:
    """Where a tensor of ours is in a checkpoint.

    Attributes:
        name: Its key there.
        read: Takes it out of what is there, if it is not that as it stands.
    """

    name: str
    read: Callable[[torch.Tensor], torch.Tensor] | None = None


Sources = Mapping[str, Source]
"""Sources by our names."""


# --- tables -----------------------------------------------------------------------

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
    "spade.norm": "spade.param_free_norm",
    "spade.shared": "spade.mlp_shared.0",
    "spade.gamma": "spade.mlp_gamma",
    "spade.beta": "spade.mlp_beta",
}
"""Layers of a UNet's ResBlock: ours, the checkpoint's."""

ATTENTION = {"group_norm": "norm", "to_out.0": "proj_out"}
"""Layers of self attention over pixels."""


def unet_sources(unet: SpadeUNet) -> dict[str, Source]:
    """Return where the UNet's tensors are."""
    layers = unet.config.layers_per_block
    modules = _half_unet(layers, len(unet.config.block_out_channels))
    modules |= {"conv_norm_out": "out.0", "conv_out": "out.2"}
    for index, block in enumerate(unet.up_blocks):
        first = index * (layers + 1)
        for layer in range(layers + 1):
            modules[f"up_blocks.{index}.resnets.{layer}"] = (
                f"output_blocks.{first + layer}.0"
            )
            modules[f"up_blocks.{index}.attentions.{layer}"] = (
                f"output_blocks.{first + layer}.1"
            )
        after = 2 if getattr(block, "has_cross_attention", False) else 1
        modules[f"up_blocks.{index}.upsamplers.0"] = (
            f"output_blocks.{first + layers}.{after}"
        )
    return {
        # Transformers have the same names in both.
        name: Source(
            UNET + _rename(name, modules, {} if ".attentions." in name else RESNET)
        )
        for name in _names(unet)
    }


def structure_sources(encoder: StructureEncoder) -> dict[str, Source]:
    """Return where the structure encoder's tensors are.

    The file holds queries, keys and values of each attention in one, head by head.
    """
    config = encoder.config
    modules = _half_unet(config.layers_per_block, len(config.block_out_channels))
    modules |= {
        f"to_structure.{index}": f"fea_tran.{index}"
        for index in range(len(config.block_out_channels))
    }
    sources = {}
    for name in _names(encoder):
        found = re.fullmatch(r"(.+)\.to_([qkv])\.(weight|bias)", name)
        if found:
            block, part, kind = found.groups()
            source = _rename(f"{block}.qkv.{kind}", modules, ATTENTION)
            read: Any = partial(_by_head, heads=config.heads, part="qkv".index(part))
        else:
            source = _rename(name, modules, RESNET | ATTENTION)
            read = _as_linear if ".to_out.0.weight" in name else None
        sources[name] = Source(STRUCTURE + source, read)
    return sources


def autoencoder_sources(vae: AutoencoderKL, prefix: str = "") -> dict[str, Source]:
    """Return where an autoencoder's tensors are, CFW's included if it has any.

    Args:
        vae: The autoencoder.
        prefix: What precedes all keys.
    """
    levels = len(vae.config.block_out_channels)
    modules: dict[str, str] = {}
    for half in ("encoder", "decoder"):
        modules |= {
            f"{half}.mid_block.resnets.0": f"{half}.mid.block_1",
            f"{half}.mid_block.attentions.0": f"{half}.mid.attn_1",
            f"{half}.mid_block.resnets.1": f"{half}.mid.block_2",
            f"{half}.conv_norm_out": f"{half}.norm_out",
        }
    for index in range(levels):
        down, up = f"encoder.down.{index}", f"decoder.up.{levels - 1 - index}"
        modules |= {
            f"encoder.down_blocks.{index}.resnets": f"{down}.block",
            f"encoder.down_blocks.{index}.downsamplers.0": f"{down}.downsample",
            f"decoder.up_blocks.{index}.resnets": f"{up}.block",
            f"decoder.up_blocks.{index}.upsamplers.0": f"{up}.upsample",
        }
    sources = {}
    attention = ATTENTION | {f"to_{part}": part for part in "qkv"}
    for name in _names(vae):
        if name.startswith("fuse."):
            source = _fuse_name(name)
        else:
            source = _rename(
                name, modules, attention | {"conv_shortcut": "nin_shortcut"}
            )
        linear = ".attentions." in name and ".to_" in name and "weight" in name
        sources[name] = Source(prefix + source, _as_linear if linear else None)
    return sources


def text_sources(encoder: CLIPTextModel) -> dict[str, Source]:
    """Return where the text encoder's tensors are."""
    modules = {
        f"encoder.layers.{index}": f"transformer.resblocks.{index}"
        for index in range(encoder.config.num_hidden_layers)
    }
    modules |= {
        "embeddings.token_embedding": "token_embedding",
        "final_layer_norm": "ln_final",
    }
    leaves = {
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
        "self_attn.out_proj": "attn.out_proj",
    }
    sources = {}
    for name in _names(encoder):
        # Some versions of transformers have it, some do not.
        plain = name.removeprefix("text_model.")
        found = re.fullmatch(r"(.+)\.self_attn\.([qkv])_proj\.(weight|bias)", plain)
        read: Any = None
        if found:
            layer, part, kind = found.groups()
            source = f"{_rename(layer, modules, {})}.attn.in_proj_{kind}"
            read = partial(_third, part="qkv".index(part))
        elif plain == "embeddings.position_embedding.weight":
            source = "positional_embedding"
        else:
            source = _rename(plain, modules, leaves)
        sources[name] = Source(TEXT + source, read)
    return sources


def _half_unet(layers: int, levels: int) -> dict[str, str]:
    """Return the modules down to the middle, which UNet and structure encoder share."""
    modules = {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "conv_in": "input_blocks.0.0",
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
    }
    for index in range(levels):
        first = index * (layers + 1) + 1
        for layer in range(layers):
            block = f"input_blocks.{first + layer}"
            modules[f"down_blocks.{index}.resnets.{layer}"] = f"{block}.0"
            modules[f"down_blocks.{index}.attentions.{layer}"] = f"{block}.1"
        modules[f"down_blocks.{index}.downsamplers.0.conv"] = (
            f"input_blocks.{first + layers}.0.op"
        )
    return modules


def _fuse_name(name: str) -> str:
    """Return the checkpoint's name of a tensor of CFW."""
    _, level, part, rest = name.split(".", 3)
    block = f"decoder.fusion_layer_{int(level) + 1}"
    if part == "dense":
        index, _, dense, _, conv, kind = rest.split(".")
        inner = f"rdb{int(dense) + 1}.conv{int(conv) + 1}.{kind}"
        return f"{block}.encode_enc_2.{index}.{inner}"
    rest = rest.replace("conv_shortcut", "conv_out")
    return f"{block}.encode_enc_{1 if part == 'join' else 3}.{rest}"


def _rename(name: str, modules: Mapping[str, str], leaves: Mapping[str, str]) -> str:
    """Exchange the module that a name starts with, and the layer that follows it."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        module = ".".join(parts[:count])
        if module in modules:
            return modules[module] + _leaf("." + ".".join(parts[count:]), leaves)
    return name


def _leaf(rest: str, leaves: Mapping[str, str]) -> str:
    for ours, theirs in leaves.items():
        if f".{ours}." in rest:
            return rest.replace(f".{ours}.", f".{theirs}.")
    return rest.rstrip(".")


def _names(module: nn.Module) -> list[str]:
    return list(module.state_dict())


def _by_head(tensor: torch.Tensor, heads: int, part: int) -> torch.Tensor:
    """Take queries, keys or values out of what holds all three for each head."""
    split = tensor.unflatten(0, (heads, 3, -1))[:, part].flatten(0, 1)
    return _as_linear(split) if split.ndim > 1 else split


def _third(tensor: torch.Tensor, part: int) -> torch.Tensor:
    """Take queries, keys or values out of what holds one after the other."""
    return tensor.chunk(3)[part]


def _as_linear(weight: torch.Tensor) -> torch.Tensor:
    """Turn the weight of a convolution with a kernel of 1 into a linear layer's."""
    return weight.flatten(1)


# --- reading ----------------------------------------------------------------------


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """Read a checkpoint's tensors; no code in the file is run.

    Raises:
        ValueError: If the file is missing, damaged, or holds anything but tensors and
            plain values.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    # Lightning's older files name this class beside the weights; nothing is done to it.
    callback = "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"
    try:
        with torch.serialization.safe_globals([(_Ignored, callback)]):
            content = torch.load(
                path,
                map_location="cpu",
                weights_only=True,
                # Files of old versions of torch cannot be mapped.
                mmap=zipfile.is_zipfile(path),
            )
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = str(error).split("\n")[0].strip()
        raise ValueError(f"{path} is not a checkpoint of weights: {reason}") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state:
        raise ValueError(f"{path} holds no state dict")
    return {k: v for k, v in state.items() if isinstance(v, torch.Tensor)}


class _Ignored:
    """Stands for a class that a checkpoint names and nobody needs."""


def load_parts(
    state: Mapping[str, torch.Tensor],
    parts: Iterable[tuple[nn.Module, Sources]],
    useless: Callable[[str], bool] = lambda name: False,
) -> None:
    """Fill modules from a checkpoint, all of it or nothing.

    Args:
        state: The checkpoint's tensors.
        parts: Modules and where their tensors are.
        useless: Says which further keys of the checkpoint are of no use.

    Raises:
        ValueError: If keys are missing or left over, or shapes differ; it counts them,
            and names the first few.
    """
    missing: dict[str, None] = {}
    shapes, used, filled = [], set(), []
    for module, sources in parts:
        values = {}
        for name, wanted in module.state_dict().items():
            source = sources[name]
            used.add(source.name)
            if source.name not in state:
                missing[source.name] = None
                continue
            try:
                found = state[source.name]
                value = source.read(found) if source.read else found
            except RuntimeError:  # it cannot be split into the parts that it should
                value = found
            if value.shape != wanted.shape:
                shapes.append(
                    f"{source.name} gives {tuple(value.shape)}, "
                    f"not {tuple(wanted.shape)}"
                )
                continue
            values[name] = value.to(wanted.dtype).contiguous()
        filled.append((module, values))
    surplus = [
        name
        for name in state
        if name not in used and not USELESS.fullmatch(name) and not useless(name)
    ]
    problems = [
        f"{len(keys)} {what} ({', '.join(keys[:NAMED])}"
        f"{', ...' if len(keys) > NAMED else ''})"
        for keys, what in (
            (list(missing), "missing"),
            (surplus, "surplus"),
            (shapes, "of another shape"),
        )
        if keys
    ]
    if problems:
        raise ValueError(f"the checkpoint does not fit: keys {'; '.join(problems)}")
    for module, values in filled:
        module.load_state_dict(values, assign=True)


def load_stablesr(
    state: Mapping[str, torch.Tensor],
    unet: SpadeUNet,
    structure_encoder: StructureEncoder,
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
) -> None:
    """Fill the modules from StableSR's main checkpoint.

    Args:
        state: The checkpoint's tensors.
        unet: The whole UNet.
        structure_encoder: The structure encoder.
        vae: A plain autoencoder: CFW's layers are in another file.
        text_encoder: Without the layers that come after its features.

    Raises:
        ValueError: If the checkpoint does not fit the modules.
    """
    layers = text_encoder.config.num_hidden_layers

    def useless(name: str) -> bool:
        found = re.match(rf"{re.escape(TEXT)}transformer\.resblocks\.(\d+)\.", name)
        return found is not None and int(found[1]) >= layers

    load_parts(
        state,
        (
            (unet, unet_sources(unet)),
            (structure_encoder, structure_sources(structure_encoder)),
            (vae, autoencoder_sources(vae, FIRST)),
            (text_encoder, text_sources(text_encoder)),
        ),
        useless,
    )


def load_cfw(state: Mapping[str, torch.Tensor], vae: CFWAutoencoder) -> None:
    """Fill an autoencoder with CFW from its checkpoint.

    Raises:
        ValueError: If the checkpoint does not fit.
    """
    load_parts(state, ((vae, autoencoder_sources(vae)),))


def convert_stablesr(
    checkpoint: Path,
    tokenizer: Path,
    cfw: Path | None = None,
    architecture: Architecture | None = None,
    upscale: int = 4,
) -> StableSRPipeline:
    """Make a pipeline of the published files.

    Args:
        checkpoint: ``stablesr_000117.ckpt`` or another of its layout.
        tokenizer: Folder of SD-2.1's tokenizer, which the checkpoint does not hold.
        cfw: ``vqgan_cfw_00011.ckpt``. Without it, the pipeline decodes at fidelity
            weight 0 only.
        architecture: Of what the files hold; the published models' if left out.
        upscale: How many times larger the result is than the low-quality image.

    Raises:
        ValueError: If a file is missing or damaged, or does not fit.
    """
    if not tokenizer.is_dir():
        raise ValueError(f"{tokenizer} is no tokenizer folder")
    words = CLIPTokenizer.from_pretrained(tokenizer, local_files_only=True)
    chosen = architecture or Architecture()
    with torch.device("meta"):
        unet = SpadeUNet(**chosen.unet)
        structure_encoder = StructureEncoder(**chosen.structure_encoder)
        vae = AutoencoderKL(**chosen.autoencoder)
        wrapped = CFWAutoencoder(**chosen.autoencoder, **chosen.cfw)
    text_encoder = CLIPTextModel(CLIPTextConfig(**chosen.text_encoder))
    load_stablesr(
        read_checkpoint(checkpoint), unet, structure_encoder, vae, text_encoder
    )
    if cfw is not None:
        load_cfw(read_checkpoint(cfw), wrapped)
        vae = wrapped
    for module in (unet, structure_encoder, vae, text_encoder):
        module.eval()
    return StableSRPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=words,
        unet=unet,
        structure_encoder=structure_encoder,
        scheduler=DDIMScheduler(**chosen.scheduler),
        upscale=upscale,
    )
