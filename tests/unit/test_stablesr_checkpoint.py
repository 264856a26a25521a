"""The converter against the published layout, written down here independently.

`official_*` list the names and shapes of the published modules, and `Official` computes
with a state dict of them, in plain tensor functions.
"""

import math
import sys
import types

import open_clip
import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from clockwork_diffusion.stablesr import checkpoint as stablesr_checkpoint
from clockwork_diffusion.stablesr.cfw import CFWAutoencoder
from clockwork_diffusion.stablesr.checkpoint import (
    Architecture,
    autoencoder_sources,
    convert_stablesr,
    load_cfw,
    load_stablesr,
    read_checkpoint,
    structure_sources,
    text_sources,
    unet_sources,
)
from clockwork_diffusion.stablesr.pipeline import StableSRPipeline
from clockwork_diffusion.stablesr.spade import STABLESR_UNET, SpadeUNet
from clockwork_diffusion.stablesr.structure_encoder import StructureEncoder
from clockwork_experiments.base.storage import check_weights, read_tensors
from clockwork_experiments.steps import convert_stablesr as convert_step

# --- the published layout ------------------------------------------------------------


def conv(name, inputs, outputs, size=3):
    return {f"{name}.weight": (outputs, inputs, size, size), f"{name}.bias": (outputs,)}


def linear(name, inputs, outputs, bias=True):
    found = {f"{name}.weight": (outputs, inputs)}
    return found | ({f"{name}.bias": (outputs,)} if bias else {})


def norm(name, channels):
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}


def official_resblock(name, inputs, outputs, emb, spade):
    layout = norm(f"{name}.in_layers.0", inputs)
    layout |= conv(f"{name}.in_layers.2", inputs, outputs)
    layout |= linear(f"{name}.emb_layers.1", emb, outputs)
    layout |= norm(f"{name}.out_layers.0", outputs)
    layout |= conv(f"{name}.out_layers.3", outputs, outputs)
    if inputs != outputs:
        layout |= conv(f"{name}.skip_connection", inputs, outputs, 1)
    if spade:
        structure, hidden = spade
        layout |= norm(f"{name}.spade.param_free_norm", outputs)
        layout |= conv(f"{name}.spade.mlp_shared.0", structure, hidden)
        layout |= conv(f"{name}.spade.mlp_gamma", hidden, outputs)
        layout |= conv(f"{name}.spade.mlp_beta", hidden, outputs)
    return layout


def official_transformer(name, channels, context):
    layout = norm(f"{name}.norm", channels)
    layout |= linear(f"{name}.proj_in", channels, channels)
    layout |= linear(f"{name}.proj_out", channels, channels)
    block = f"{name}.transformer_blocks.0"
    for attention, width in (("attn1", channels), ("attn2", context)):
        layout |= linear(f"{block}.{attention}.to_q", channels, channels, bias=False)
        layout |= linear(f"{block}.{attention}.to_k", width, channels, bias=False)
        layout |= linear(f"{block}.{attention}.to_v", width, channels, bias=False)
        layout |= linear(f"{block}.{attention}.to_out.0", channels, channels)
    layout |= linear(f"{block}.ff.net.0.proj", channels, 8 * channels)
    layout |= linear(f"{block}.ff.net.2", 4 * channels, channels)
    for index in (1, 2, 3):
        layout |= norm(f"{block}.norm{index}", channels)
    return layout


def official_attention(name, channels):
    return (
        norm(f"{name}.norm", channels)
        | {
            f"{name}.qkv.weight": (3 * channels, channels, 1),
            f"{name}.qkv.bias": (3 * channels,),
        }
        | {
            f"{name}.proj_out.weight": (channels, channels, 1),
            f"{name}.proj_out.bias": (channels,),
        }
    )


def official_half(first, mult, attends, attention, spade, latents=4, layers=2):
    """Lists time embedding, way down and middle; returns them and the skips."""
    emb = 4 * first
    layout = linear("time_embed.0", first, emb) | linear("time_embed.2", emb, emb)
    layout |= conv("input_blocks.0.0", latents, first)
    channels, index, skips = first, 0, [first]
    for level, factor in enumerate(mult):
        for _ in range(layers):
            index += 1
            out = factor * first
            layout |= official_resblock(
                f"input_blocks.{index}.0", channels, out, emb, spade
            )
            channels = out
            if attends[level]:
                layout |= attention(f"input_blocks.{index}.1", channels)
            skips.append(channels)
        if level < len(mult) - 1:
            index += 1
            layout |= conv(f"input_blocks.{index}.0.op", channels, channels)
            skips.append(channels)
    layout |= official_resblock("middle_block.0", channels, channels, emb, spade)
    layout |= attention("middle_block.1", channels)
    layout |= official_resblock("middle_block.2", channels, channels, emb, spade)
    return layout, skips


def official_unet(first, mult, context, structure, hidden):
    attends = (True, True, True, False)

    def attention(name, channels):
        return official_transformer(name, channels, context)

    spade = (structure, hidden)
    layout, skips = official_half(first, mult, attends, attention, spade)
    channels, index = first * mult[-1], 0
    for level in reversed(range(len(mult))):
        for layer in range(3):
            name = f"output_blocks.{index}"
            out = first * mult[level]
            layout |= official_resblock(
                f"{name}.0", channels + skips.pop(), out, 4 * first, spade
            )
            channels = out
            if attends[level]:
                layout |= attention(f"{name}.1", channels)
            if level and layer == 2:
                place = 2 if attends[level] else 1
                layout |= conv(f"{name}.{place}.conv", channels, channels)
            index += 1
    return layout | norm("out.0", channels) | conv("out.2", channels, 4)


def official_structure(first, mult, structure):
    attends = (True, True, True, False)
    layout, _ = official_half(first, mult, attends, official_attention, None)
    for index, factor in enumerate(mult):
        layout |= official_resblock(
            f"fea_tran.{index}", factor * first, structure, 4 * first, None
        )
    return layout


def official_vae_block(name, inputs, outputs, shortcut="nin_shortcut"):
    layout = norm(f"{name}.norm1", inputs) | conv(f"{name}.conv1", inputs, outputs)
    layout |= norm(f"{name}.norm2", outputs) | conv(f"{name}.conv2", outputs, outputs)
    if inputs != outputs:
        layout |= conv(f"{name}.{shortcut}", inputs, outputs, 1)
    return layout


def official_vae(first, mult, layers, fuse=None):
    layout = conv("quant_conv", 8, 8, 1) | conv("post_quant_conv", 4, 4, 1)
    last = first * mult[-1]
    for half in ("encoder", "decoder"):
        layout |= official_vae_block(f"{half}.mid.block_1", last, last)
        layout |= official_vae_block(f"{half}.mid.block_2", last, last)
        layout |= norm(f"{half}.mid.attn_1.norm", last)
        for part in ("q", "k", "v", "proj_out"):
            layout |= conv(f"{half}.mid.attn_1.{part}", last, last, 1)
    layout |= conv("encoder.conv_in", 3, first)
    layout |= norm("encoder.norm_out", last) | conv("encoder.conv_out", last, 8)
    channels = first
    for level, factor in enumerate(mult):
        for block in range(layers):
            name = f"encoder.down.{level}.block.{block}"
            layout |= official_vae_block(name, channels, factor * first)
            channels = factor * first
        if level < len(mult) - 1:
            layout |= conv(f"encoder.down.{level}.downsample.conv", channels, channels)
    layout |= conv("decoder.conv_in", 4, last)
    layout |= norm("decoder.norm_out", first) | conv("decoder.conv_out", first, 3)
    for level in reversed(range(len(mult))):
        for block in range(layers + 1):
            name = f"decoder.up.{level}.block.{block}"
            layout |= official_vae_block(name, channels, mult[level] * first)
            channels = mult[level] * first
        if level:
            layout |= conv(f"decoder.up.{level}.upsample.conv", channels, channels)
        if fuse and 0 < level < len(mult) - 1:
            blocks, growth = fuse
            name = f"decoder.fusion_layer_{level}"
            layout |= official_vae_block(
                f"{name}.encode_enc_1", 2 * channels, channels, "conv_out"
            )
            layout |= official_vae_block(f"{name}.encode_enc_3", channels, channels)
            for block in range(blocks):
                for dense in (1, 2, 3):
                    for index in range(1, 6):
                        layout |= conv(
                            f"{name}.encode_enc_2.{block}.rdb{dense}.conv{index}",
                            channels + (index - 1) * growth,
                            channels if index == 5 else growth,
                        )
    return layout


# --- what it computes ----------------------------------------------------------------


class Official:
    """Computes with a state dict of the published layout."""

    def __init__(self, state, groups, head_width=None, heads=None):
        self.state, self.groups = state, groups
        self.head_width, self.heads = head_width, heads

    def conv(self, name, x, **kwargs):
        weight = self.state[f"{name}.weight"]
        padding = kwargs.pop("padding", weight.shape[-1] // 2)
        return F.conv2d(
            x, weight, self.state[f"{name}.bias"], padding=padding, **kwargs
        )

    def linear(self, name, x):
        return F.linear(x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"))

    def norm(self, name, x, eps=1e-5):
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        return F.group_norm(x, self.groups, weight, bias, eps)

    def embed(self, t, width):
        rates = torch.exp(-math.log(10000) * torch.arange(width // 2) / (width // 2))
        angles = t[:, None].float() * rates
        waves = torch.cat([angles.cos(), angles.sin()], dim=1)
        return self.linear("time_embed.2", F.silu(self.linear("time_embed.0", waves)))

    def resblock(self, name, x, emb, structure):
        h = self.conv(
            f"{name}.in_layers.2", F.silu(self.norm(f"{name}.in_layers.0", x))
        )
        h = h + self.linear(f"{name}.emb_layers.1", F.silu(emb))[:, :, None, None]
        h = self.norm(f"{name}.out_layers.0", h)
        h = self.conv(f"{name}.out_layers.3", F.silu(h))
        if structure is not None:
            spade = f"{name}.spade"
            read = structure[x.shape[-1]]
            read = F.relu(self.conv(f"{spade}.mlp_shared.0", read))
            gamma = self.conv(f"{spade}.mlp_gamma", read)
            beta = self.conv(f"{spade}.mlp_beta", read)
            h = self.norm(f"{spade}.param_free_norm", h) * (1 + gamma) + beta
        if f"{name}.skip_connection.weight" in self.state:
            x = self.conv(f"{name}.skip_connection", x)
        return x + h

    def attend(self, q, k, v, heads):
        q, k, v = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in (q, k, v))
        weights = (q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])).softmax(-1)
        return (weights @ v).transpose(1, 2).flatten(2)

    def transformer(self, name, x, text):
        tokens = self.norm(f"{name}.norm", x, 1e-6).flatten(2).transpose(1, 2)
        tokens = self.linear(f"{name}.proj_in", tokens)
        block = f"{name}.transformer_blocks.0"

        def normed(index):
            key = f"{block}.norm{index}"
            weight, bias = self.state[f"{key}.weight"], self.state[f"{key}.bias"]
            return F.layer_norm(tokens, weight.shape, weight, bias)

        for index, attention in ((1, "attn1"), (2, "attn2")):
            key = f"{block}.{attention}"
            asked = normed(index)
            seen = asked if index == 1 else text
            q, k, v = (
                self.linear(f"{key}.to_{part}", y)
                for part, y in (("q", asked), ("k", seen), ("v", seen))
            )
            out = self.attend(q, k, v, q.shape[-1] // self.head_width)
            tokens = tokens + self.linear(f"{key}.to_out.0", out)
        value, gate = self.linear(f"{block}.ff.net.0.proj", normed(3)).chunk(2, dim=-1)
        tokens = tokens + self.linear(f"{block}.ff.net.2", value * F.gelu(gate))
        out = self.linear(f"{name}.proj_out", tokens)
        return x + out.transpose(1, 2).reshape(x.shape)

    def attention(self, name, x):
        qkv = F.conv1d(
            self.norm(f"{name}.norm", x).flatten(2),
            self.state[f"{name}.qkv.weight"],
            self.state[f"{name}.qkv.bias"],
        )
        # Head by head: q, k, v of the first, then of the second.
        n, width, length = qkv.shape
        split = qkv.reshape(n * self.heads, width // self.heads, length)
        q, k, v = split.chunk(3, dim=1)
        scores = torch.einsum("bct,bcs->bts", q, k) / math.sqrt(q.shape[1])
        out = torch.einsum("bts,bcs->bct", scores.softmax(-1), v).reshape(n, -1, length)
        weight, bias = (self.state[f"{name}.proj_out.{p}"] for p in ("weight", "bias"))
        return x + F.conv1d(out, weight, bias).reshape(x.shape)

    def block(self, name, x, emb, text=None, structure=None):
        for index in range(3):
            part = f"{name}.{index}"
            if f"{part}.in_layers.0.weight" in self.state:
                x = self.resblock(part, x, emb, structure)
            elif f"{part}.proj_in.weight" in self.state:
                x = self.transformer(part, x, text)
            elif f"{part}.qkv.weight" in self.state:
                x = self.attention(part, x)
            elif f"{part}.op.weight" in self.state:
                x = self.conv(f"{part}.op", x, stride=2)
            elif f"{part}.conv.weight" in self.state:
                x = self.conv(f"{part}.conv", F.interpolate(x, scale_factor=2.0))
            elif f"{part}.weight" in self.state:
                x = self.conv(part, x)
        return x

    def unet(self, x, t, text, structure):
        emb = self.embed(t, self.state["time_embed.0.weight"].shape[1])
        skips = []
        for index in range(12):
            x = self.block(f"input_blocks.{index}", x, emb, text, structure)
            skips.append(x)
        x = self.block("middle_block", x, emb, text, structure)
        for index in range(12):
            x = torch.cat([x, skips.pop()], dim=1)
            x = self.block(f"output_blocks.{index}", x, emb, text, structure)
        return self.conv("out.2", F.silu(self.norm("out.0", x)))

    def structure(self, x, t):
        emb = self.embed(t, self.state["time_embed.0.weight"].shape[1])
        kept = []
        for index in range(12):
            before, x = x, self.block(f"input_blocks.{index}", x, emb)
            if x.shape[-1] != before.shape[-1]:
                kept.append(before)
        kept.append(self.block("middle_block", x, emb))
        return {
            feature.shape[-1]: self.resblock(f"fea_tran.{index}", feature, emb, None)
            for index, feature in enumerate(kept)
        }

    def vae_block(self, name, x, shortcut="nin_shortcut"):
        h = self.conv(f"{name}.conv1", F.silu(self.norm(f"{name}.norm1", x, 1e-6)))
        h = self.conv(f"{name}.conv2", F.silu(self.norm(f"{name}.norm2", h, 1e-6)))
        if f"{name}.{shortcut}.weight" in self.state:
            x = self.conv(f"{name}.{shortcut}", x)
        return x + h

    def vae_middle(self, half, x):
        x = self.vae_block(f"{half}.mid.block_1", x)
        name = f"{half}.mid.attn_1"
        h = self.norm(f"{name}.norm", x, 1e-6)
        q, k, v = (
            self.conv(f"{name}.{part}", h).flatten(2).transpose(1, 2) for part in "qkv"
        )
        out = self.attend(q, k, v, 1).transpose(1, 2).reshape(x.shape)
        x = x + self.conv(f"{name}.proj_out", out)
        return self.vae_block(f"{half}.mid.block_2", x)

    def vae_out(self, half, x):
        x = F.silu(self.norm(f"{half}.norm_out", x, 1e-6))
        return self.conv(f"{half}.conv_out", x)

    def encode(self, x, levels, layers):
        x, features = self.conv("encoder.conv_in", x), []
        for level in range(levels):
            for block in range(layers):
                x = self.vae_block(f"encoder.down.{level}.block.{block}", x)
            if level in (1, 2):
                features.append(x)
            if level < levels - 1:
                name = f"encoder.down.{level}.downsample.conv"
                x = self.conv(name, F.pad(x, (0, 1, 0, 1)), stride=2, padding=0)
        moments = self.vae_out("encoder", self.vae_middle("encoder", x))
        return self.conv("quant_conv", moments).chunk(2, dim=1)[0], features

    def fuse(self, name, encoded, decoded, blocks):
        h = torch.cat([encoded, decoded], dim=1)
        h = self.vae_block(f"{name}.encode_enc_1", h, "conv_out")
        for block in range(blocks):
            outer = h
            for dense in (1, 2, 3):
                key, found = f"{name}.encode_enc_2.{block}.rdb{dense}", [h]
                for index in range(1, 5):
                    joined = torch.cat(found, dim=1)
                    found.append(
                        F.leaky_relu(self.conv(f"{key}.conv{index}", joined), 0.2)
                    )
                joined = torch.cat(found, dim=1)
                h = h + 0.2 * self.conv(f"{key}.conv5", joined)
            h = outer + 0.2 * h
        return self.vae_block(f"{name}.encode_enc_3", h)

    def decode(self, z, features, weight, levels, layers, blocks):
        x = self.conv("decoder.conv_in", self.conv("post_quant_conv", z))
        x = self.vae_middle("decoder", x)
        for level in reversed(range(levels)):
            for block in range(layers + 1):
                x = self.vae_block(f"decoder.up.{level}.block.{block}", x)
            if 0 < level < levels - 1:
                name = f"decoder.fusion_layer_{level}"
                x = x + weight * self.fuse(name, features[level - 1], x, blocks)
            if level:
                x = F.interpolate(x, scale_factor=2.0)
                x = self.conv(f"decoder.up.{level}.upsample.conv", x)
        return self.vae_out("decoder", x)


# --- small models of it --------------------------------------------------------------

GROUPS, CONTEXT, STRUCTURE, HIDDEN = 4, 24, 12, 8
MULT = (1, 2, 4, 4)
VAE = {
    "block_out_channels": (8, 16, 16, 16),
    "layers_per_block": 2,
    "norm_num_groups": GROUPS,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
SMALL = Architecture(
    unet={
        **STABLESR_UNET,
        "block_out_channels": (16, 32, 64, 64),
        "attention_head_dim": (2, 4, 8, 8),
        "cross_attention_dim": CONTEXT,
        "norm_num_groups": GROUPS,
        "structure_channels": STRUCTURE,
        "spade_channels": HIDDEN,
    },
    structure_encoder={
        "block_out_channels": (16, 16, 32, 32),
        "structure_channels": STRUCTURE,
        "norm_num_groups": GROUPS,
        "heads": 4,
    },
    autoencoder=VAE,
    cfw={"fuse_blocks": 2, "fuse_growth": 4},
    text_encoder={
        "hidden_size": CONTEXT,
        "intermediate_size": 4 * CONTEXT,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "hidden_act": "gelu",
        "vocab_size": 300,
        "max_position_embeddings": 32,
    },
)
PARTS = {
    "model.diffusion_model.": official_unet(16, MULT, CONTEXT, STRUCTURE, HIDDEN),
    "structcond_stage_model.": official_structure(16, (1, 1, 2, 2), STRUCTURE),
    "first_stage_model.": official_vae(8, (1, 2, 2, 2), 2),
}


def openclip_text(width, layers, heads, words=300, length=32):
    """Return OpenCLIP's text tower, as the published text encoder wraps it."""
    text = open_clip.model.CLIPTextCfg(
        context_length=length, vocab_size=words, width=width, heads=heads, layers=layers
    )
    vision = open_clip.model.CLIPVisionCfg(
        layers=1, width=8, head_width=8, patch_size=8, image_size=16
    )
    model = open_clip.model.CLIP(16, vision, text)
    del model.visual
    return model.eval()


def random_state(layout, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator) * math.prod(shape[1:]) ** -0.5
        for name, shape in layout.items()
    }


@pytest.fixture(scope="module")
def text_model():
    torch.manual_seed(3)
    return openclip_text(CONTEXT, 3, 2)


@pytest.fixture(scope="module")
def published(text_model):
    """Return a checkpoint's tensors: all parts, and what comes with them."""
    state = {}
    for prefix, layout in PARTS.items():
        state |= {prefix + k: v for k, v in random_state(layout).items()}
    text = text_model.state_dict()
    state |= {f"cond_stage_model.model.{k}": v.clone() for k, v in text.items()}
    state |= {"cond_stage_model.model.attn_mask": torch.zeros(32, 32)}
    names = ("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod")
    names += ("log_one_minus_alphas_cumprod", "posterior_mean_coef1", "scale_factor")
    return state | {name: torch.ones(1000) for name in names}


@pytest.fixture(scope="module")
def cfw_state():
    state = random_state(official_vae(8, (1, 2, 2, 2), 2, fuse=(2, 4)), seed=1)
    return state | {"loss.discriminator.main.0.weight": torch.ones(2)}


def part_of(state, prefix):
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def small_modules():
    torch.manual_seed(9)
    return (
        SpadeUNet(**SMALL.unet).eval(),
        StructureEncoder(**SMALL.structure_encoder).eval(),
        AutoencoderKL(**VAE).eval(),
        CLIPTextModel(CLIPTextConfig(**SMALL.text_encoder)).eval(),
    )


@pytest.fixture(scope="module")
def loaded(published):
    modules = small_modules()
    load_stablesr(published, *modules)
    return modules


# --- tests ---------------------------------------------------------------------------


def test_the_published_size_is_listed_in_full():
    with torch.device("meta"):
        unet, encoder = SpadeUNet(**STABLESR_UNET), StructureEncoder()
        vae = CFWAutoencoder(**Architecture().autoencoder)
    cases = (
        (unet_sources(unet), official_unet(320, MULT, 1024, 256, 128), 918.9),
        (structure_sources(encoder), official_structure(256, (1, 1, 2, 2), 256), 52.5),
        (
            autoencoder_sources(vae),
            official_vae(128, (1, 2, 4, 4), 2, fuse=(2, 32)),
            None,
        ),
    )
    prefixes = ("model.diffusion_model.", "structcond_stage_model.", "")
    for (sources, layout, millions), prefix in zip(cases, prefixes, strict=True):
        assert {source.name for source in sources.values()} == {
            prefix + name for name in layout
        }
        total = sum(math.prod(shape) for shape in layout.values())
        assert millions is None or round(total / 1e6, 1) == millions
    spade = sum(
        math.prod(shape) for name, shape in cases[0][1].items() if ".spade." in name
    )
    assert round(spade / 1e6, 1) == 53.0


def test_a_full_checkpoint_fits_by_name_and_shape():
    with torch.device("meta"):
        chosen = Architecture()
        unet, encoder = SpadeUNet(**chosen.unet), StructureEncoder()
        vae = AutoencoderKL(**chosen.autoencoder)
        text = CLIPTextModel(CLIPTextConfig(**chosen.text_encoder))
        words = openclip_text(1024, 24, 16, words=49408, length=77)
        layouts = {
            "model.diffusion_model.": official_unet(320, MULT, 1024, 256, 128),
            "structcond_stage_model.": official_structure(256, (1, 1, 2, 2), 256),
            "first_stage_model.": official_vae(128, (1, 2, 4, 4), 2),
        }
        state = {
            prefix + name: torch.empty(shape)
            for prefix, layout in layouts.items()
            for name, shape in layout.items()
        }
    state |= {f"cond_stage_model.model.{k}": v for k, v in words.state_dict().items()}
    load_stablesr(state, unet, encoder, vae, text)


def test_the_unet_computes_what_the_published_one_does(published, loaded):
    unet = loaded[0]
    official = Official(part_of(published, "model.diffusion_model."), GROUPS, 8)
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(2, 4, 16, 16, generator=generator)
    text = torch.randn(2, 5, CONTEXT, generator=generator)
    structure = {
        size: torch.randn(2, STRUCTURE, size, size, generator=generator)
        for size in (16, 8, 4, 2)
    }
    t = torch.tensor([30, 700])
    with torch.no_grad():
        ours = unet(x, t, text, structure=structure).sample
    theirs = official.unet(x, t, text, structure)
    assert theirs.std() > 0.01
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_the_structure_encoder_computes_what_the_published_one_does(published, loaded):
    official = Official(part_of(published, "structcond_stage_model."), GROUPS, heads=4)
    x = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(6))
    t = torch.tensor([30, 700])
    with torch.no_grad():
        ours = loaded[1](x, t)
    theirs = official.structure(x, t)
    assert list(ours) == list(theirs) == [16, 8, 4, 2]
    for width, feature in theirs.items():
        torch.testing.assert_close(ours[width], feature, rtol=1e-3, atol=1e-4)


def test_the_autoencoders_compute_what_the_published_ones_do(
    published, loaded, cfw_state
):
    vae = loaded[2]
    wrapped = CFWAutoencoder(**VAE, **SMALL.cfw).eval()
    load_cfw(cfw_state, wrapped)
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(7)) * 2 - 1
    plain = Official(part_of(published, "first_stage_model."), GROUPS)
    fused = Official(cfw_state, GROUPS)
    with torch.no_grad():
        mean, _ = plain.encode(x, 4, 2)
        torch.testing.assert_close(
            vae.encode(x).latent_dist.mean, mean, rtol=1e-3, atol=1e-4
        )
        mean, features = fused.encode(x, 4, 2)
        found, ours = wrapped.encode_with_features(x)
        torch.testing.assert_close(found.mean, mean, rtol=1e-3, atol=1e-4)
        for a, b in zip(ours, features, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
        images = [fused.decode(mean, features, w, 4, 2, 2) for w in (0, 0.5, 1)]
        for w, image in zip((0, 0.5, 1), images, strict=True):
            torch.testing.assert_close(
                wrapped.decode_with_features(mean, ours, w),
                image,
                rtol=1e-3,
                atol=1e-4,
            )
    assert (images[0] - images[2]).abs().max() > 0.01


def test_the_text_features_are_those_before_the_last_layer(text_model, loaded):
    tokens = torch.randint(0, 300, (2, 32), generator=torch.Generator().manual_seed(8))
    with torch.no_grad():
        ours = loaded[3](tokens)[0]
        hidden = text_model.token_embedding(tokens) + text_model.positional_embedding
        for layer in list(text_model.transformer.resblocks)[:-1]:
            hidden = layer(hidden, attn_mask=text_model.attn_mask)
        theirs = text_model.ln_final(hidden)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert set(source.name for source in text_sources(loaded[3]).values()) <= {
        f"cond_stage_model.model.{name}" for name in text_model.state_dict()
    }


def test_what_does_not_fit_is_counted_and_named(published):
    state = dict(published)
    gone = [
        name
        for name in state
        if name.startswith("model.diffusion_model.input_blocks.1.0.spade.")
    ]
    assert len(gone) == 8
    for name in gone:
        del state[name]
    state["model.diffusion_model.label_emb.weight"] = torch.zeros(3)
    state["structcond_stage_model.fea_tran.4.in_layers.0.weight"] = torch.zeros(3)
    state["model.diffusion_model.out.2.bias"] = torch.zeros(8)
    modules = small_modules()
    before = modules[0].conv_in.weight.clone()
    with pytest.raises(ValueError, match="8 missing") as error:
        load_stablesr(state, *modules)
    message = str(error.value)
    assert "\n" not in message
    assert gone[0] in message and gone[7] not in message and ", ..." in message
    assert "2 surplus (model.diffusion_model.label_emb.weight, structcond" in message
    assert "1 of another shape (model.diffusion_model.out.2.bias gives (8,)" in message
    # All or nothing.
    assert torch.equal(modules[0].conv_in.weight, before)


def test_attention_of_another_width_is_a_shape_that_does_not_fit(published):
    name = "structcond_stage_model.middle_block.1.qkv.weight"
    state = {**published, name: torch.zeros(95, 32, 1)}
    with pytest.raises(ValueError, match=rf"3 of another shape \({name} gives"):
        load_stablesr(state, *small_modules())


def test_text_layers_are_ignored_only_after_the_features(published):
    extra = "cond_stage_model.model.transformer.resblocks.2.ln_1.weight"
    assert extra in published
    odd = "cond_stage_model.model.transformer.resblocks.1.ln_3.weight"
    with pytest.raises(ValueError, match="1 surplus"):
        load_stablesr({**published, odd: torch.zeros(2)}, *small_modules())


def test_a_cfw_checkpoint_is_not_a_main_one(published, cfw_state):
    with pytest.raises(ValueError, match="missing"):
        load_stablesr(cfw_state, *small_modules())
    with pytest.raises(ValueError, match="missing"):
        load_cfw(published, CFWAutoencoder(**VAE, **SMALL.cfw))


def test_files_become_a_pipeline_folder(published, cfw_state, tmp_path, root):
    files = {"main.ckpt": published, "cfw.ckpt": cfw_state}
    for name, state in files.items():
        torch.save({"state_dict": state, "global_step": 3}, tmp_path / name)
    tokenizer = root / "resources/mini/stable-diffusion/tokenizer"
    assert isinstance(CLIPTokenizer.from_pretrained(tokenizer), CLIPTokenizer)
    arguments = (tmp_path / "main.ckpt", tokenizer)
    pipe = convert_stablesr(*arguments, tmp_path / "cfw.ckpt", SMALL, upscale=2)
    pipe.save_pretrained(tmp_path / "pipe")
    again = type(pipe).from_pretrained(tmp_path / "pipe")
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    results = []
    for each in (pipe, again):
        each.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(2)
        results.append(each(image, 2, generator=generator, output_type="pt").images)
    assert results[0].shape == (1, 3, 64, 64)
    assert torch.equal(*results)
    plain = convert_stablesr(*arguments, None, SMALL)
    plain.set_progress_bar_config(disable=True)
    with pytest.raises(ValueError, match="fidelity weight 0.5 needs a CFW decoder"):
        plain(image, 1)
    plain(image, 1, fidelity_weight=0)


def test_reading_runs_no_code(tmp_path, monkeypatch):
    # Lightning's class among the keys is let through, by name alone.
    parents = ("pytorch_lightning", "pytorch_lightning.callbacks")
    name = "pytorch_lightning.callbacks.model_checkpoint"
    for module in (*parents, name):
        monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
    callback = type("ModelCheckpoint", (), {"__module__": name})
    sys.modules[name].ModelCheckpoint = callback
    weights = {"a": torch.ones(2)}
    path = tmp_path / "lightning.ckpt"
    torch.save({"callbacks": {callback: {"best": 1}}, "state_dict": weights}, path)
    for module in (*parents, name):
        monkeypatch.delitem(sys.modules, module)
    assert torch.equal(read_checkpoint(path)["a"], weights["a"])

    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("code was run",))

    torch.save({"state_dict": weights, "trap": Trap()}, tmp_path / "trap.ckpt")
    with pytest.raises(ValueError, match="trap.ckpt is not a checkpoint of weights"):
        read_checkpoint(tmp_path / "trap.ckpt")


def test_broken_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"gone.ckpt does not exist"):
        read_checkpoint(tmp_path / "gone.ckpt")
    whole, short = tmp_path / "whole.ckpt", tmp_path / "short.ckpt"
    torch.save({"a": torch.ones(1000)}, whole)
    assert list(read_checkpoint(whole)) == ["a"]
    short.write_bytes(whole.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"short.ckpt is not a checkpoint"):
        read_checkpoint(short)
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(ValueError, match=r"list.ckpt holds no state dict"):
        read_checkpoint(tmp_path / "list.ckpt")
    with pytest.raises(ValueError, match="is no tokenizer folder"):
        convert_stablesr(whole, tmp_path / "none")


def test_the_step_converts_and_saves(published, cfw_state, tmp_path, root, monkeypatch):
    small = stablesr_checkpoint.convert_stablesr
    monkeypatch.setattr(
        stablesr_checkpoint, "convert_stablesr", lambda *given: small(*given, SMALL)
    )
    torch.save({"state_dict": published}, tmp_path / "main.ckpt")
    torch.save({"state_dict": cfw_state}, tmp_path / "cfw.ckpt")
    convert_step.convert_stablesr(
        checkpoint=tmp_path / "main.ckpt",
        cfw=tmp_path / "cfw.ckpt",
        tokenizer=root / "resources/mini/stable-diffusion/tokenizer",
        output=tmp_path / "made",
    )
    check_weights(tmp_path / "made")
    pipe = StableSRPipeline.from_pretrained(tmp_path / "made", local_files_only=True)
    assert isinstance(pipe.vae, CFWAutoencoder)
    stored = tmp_path / "made/unet/diffusion_pytorch_model.safetensors"
    tensors, _ = read_tensors(stored)
    assert {value.dtype for value in tensors.values()} == {torch.float16}
