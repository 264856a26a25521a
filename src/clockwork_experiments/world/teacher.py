"""Train the mini teacher: text encoder and UNet of a Stable Diffusion in small.

The UNet has SD v1.5's topology (four levels, two layers per block, the same block
types, channel ratio 1:2:4:4) and its noise schedule. What differs, and why:

- It predicts v (Salimans and Ho 2022), as SD 2.1 does, not ε. At the noisy end the
  ε-error hardly weighs what decides the layout, and a small model never learns it.
- The text encoder is first taught to read captions (SD's is pre-trained as well), then
  trained with the UNet.
- Some samples start as sampling does, from noise alone. SD's schedule leaves the layout
  faintly visible at its last timestep (Lin et al. 2023, "Common diffusion noise
  schedules and sample steps are flawed"), so that a model may learn to look for it and
  not to read it.
- On very noisy samples, where they carry little but noise, skip connections of the
  finer levels are left out now and then. At 16×16 latents attention reaches everything
  at the finest level, and without this the coarse levels stay idle, which in SD decide
  what the picture shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    UNet2DConditionModel,
)
from torch import nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from clockwork_diffusion.encoding import encode_images
from clockwork_experiments.base import storage
from clockwork_experiments.mini.language import build_tokenizer
from clockwork_experiments.mini.teacher import (
    Teacher,
    build_scheduler,
    tokenize,
)
from clockwork_experiments.mini.teacher import to_pipeline as to_pipeline
from clockwork_experiments.train.training import (
    Optimisation,
    Trained,
    fit,
    generator_for,
)
from clockwork_experiments.world import captions, scenes, shapes
from clockwork_experiments.world.data import scene_images

PHRASINGS = 4
"""Captions kept of each training scene; a step draws one."""

_SLOTS: dict[str, tuple[str, ...]] = {
    "kind": tuple(shapes.KINDS),
    "colour": tuple(scenes.COLOURS),
    "texture": scenes.TEXTURES,
    "size": tuple(scenes.SIZES),
    "place": tuple(captions.PLACES),
    "count": ("1", "2"),
}
_WHOLE: dict[str, tuple[str, ...]] = {
    "relation": tuple(captions.RELATIONS),
    "ground": scenes.GROUNDS,
    "hour": tuple(scenes.HOURS),
    "light": tuple(scenes.LIGHTS),
}


@dataclass(frozen=True)
class Stage:
    """A stage of training.

    Attributes:
        optimisation: The recipe.
        blind_share: Share of samples that show noise alone, at a timestep from which
            a sampler may start; their target is the clean image's.
        coarse_share: Share of the samples beyond `TeacherSpec.blind_from` that lack the
            skip connections of the two finer levels; half of those lack the third's.
    """

    optimisation: Optimisation
    blind_share: float
    coarse_share: float = 0.0

    def __post_init__(self) -> None:
        """Reject shares that are none."""
        for name in ("blind_share", "coarse_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)} is not within 0 and 1")


@dataclass(frozen=True)
class TeacherSpec:
    """Data, sizes and recipe of the mini teacher.

    Attributes:
        images: Number of training scenes.
        channels: Channels of the UNet's four levels; SD's ratio is 1:2:4:4.
        heads: Attention heads at every level.
        text_width: Width of the text encoder, and of cross attention.
        text_layers: Layers of the text encoder.
        empty_captions: Share of samples trained with the empty prompt, for guidance.
        blind_from: First timestep from which a sampler may start. DPM++ starts at 999,
            DDIM and PNDM with few steps a good deal earlier.
        reading: The recipe by which the text encoder learns to read.
        stages: The recipes of the rest, one after the other; each starts from the
            average of the one before.
    """

    images: int
    channels: tuple[int, int, int, int]
    heads: int
    text_width: int
    text_layers: int
    empty_captions: float
    blind_from: int
    reading: Optimisation
    stages: tuple[Stage, ...]


class Reader(nn.Module):
    """Text encoder that tells from its last token what a caption says."""

    def __init__(self, text_encoder: CLIPTextModel, width: int) -> None:
        """Put one linear head per question onto a text encoder of this width."""
        super().__init__()
        self.text_encoder = text_encoder
        # One class more than there are values: the caption leaves it open.
        sizes = [len(values) + 1 for values in [*_SLOTS.values()] * 3]
        sizes += [len(values) + 1 for values in _WHOLE.values()]
        self.heads = nn.ModuleList(nn.Linear(width, size) for size in sizes)

    def forward(self, tokens: torch.Tensor) -> list[torch.Tensor]:
        """Return logits ``(N, classes)`` by question for ``(N, L)`` tokens."""
        # Attention is causal: only the last token has seen the whole caption.
        last = self.text_encoder(tokens).last_hidden_state[:, -1]
        return [head(last) for head in self.heads]


def reading_labels(said: list[captions.Caption]) -> torch.Tensor:
    """Return what captions say, as class numbers.

    Returns:
        int64, ``(N, 22)``: kind, colour, texture, size, place and count of the first
        three mentions, then relation, ground, hour and light; 0 for what is left open.
    """
    rows = []
    for caption in said:
        row = []
        for slot in range(3):
            for name, values in _SLOTS.items():
                value = None
                if slot < len(caption.mentions):
                    value = getattr(caption.mentions[slot], name)
                row.append(0 if value is None else 1 + values.index(str(value)))
        for name, values in _WHOLE.items():
            value = getattr(caption, name)
            row.append(0 if value is None else 1 + values.index(value))
        rows.append(row)
    return torch.tensor(rows)


@contextmanager
def without_skips(unet: UNet2DConditionModel, dropped: torch.Tensor) -> Iterator[None]:
    """Leave out skip connections of some samples within a block.

    Args:
        unet: The UNet.
        dropped: How many of the finer levels' skip connections each sample lacks,
            int64, ``(N,)``, from 0 to the number of levels.
    """
    count = len(unet.up_blocks)

    def hook(level: int) -> Callable[..., Any]:
        kept = (dropped <= level).to(torch.float32).view(-1, 1, 1, 1)

        def drop(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
            skips = kwargs["res_hidden_states_tuple"]
            thinned = tuple(skip * kept.to(skip) for skip in skips)
            return args, {**kwargs, "res_hidden_states_tuple": thinned}

        return drop

    handles = [
        # The last up block is the finest: level 0.
        block.register_forward_pre_hook(hook(count - 1 - index), with_kwargs=True)
        for index, block in enumerate(unet.up_blocks)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def build_tokenizer_of_world() -> CLIPTokenizer:
    """Return the tokenizer of the caption grammar."""
    return build_tokenizer(captions.captions("train", 20_000))


def build(spec: TeacherSpec, tokenizer: CLIPTokenizer) -> Teacher:
    """Return an untrained teacher."""
    torch.manual_seed(spec.reading.seed)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=spec.text_width,
            intermediate_size=4 * spec.text_width,
            projection_dim=spec.text_width,
            num_hidden_layers=spec.text_layers,
            num_attention_heads=4,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=spec.channels,
        layers_per_block=2,
        cross_attention_dim=spec.text_width,
        # diffusers reads this as the number of heads, in SD v1.5 as well.
        attention_head_dim=spec.heads,
        norm_num_groups=8,
    )
    return Teacher(text_encoder, unet)


@dataclass(frozen=True)
class _Data:
    """Training data; entry *i* belongs to scene *i*.

    Attributes:
        latents: ``(N, 4, h, w)``, fp16.
        tokens: By phrasing, ``(N, PHRASINGS, L)``.
        labels: What each caption says, ``(N, PHRASINGS, 22)``.
    """

    latents: torch.Tensor
    tokens: torch.Tensor
    labels: torch.Tensor


def _data(
    spec: TeacherSpec,
    tokenizer: CLIPTokenizer,
    vae: AutoencoderKL,
    state: Path,
    device: torch.device,
) -> _Data:
    """Make the training data, or read what an earlier run has made."""
    kept = state.with_suffix(".data.safetensors")
    if not kept.is_file():
        drawn = [
            (seed, scenes.sample_scene(seed))
            for seed in scenes.split_seeds("train", spec.images)
        ]
        # Seeds far apart: neighbours of a scene's seed word its neighbours.
        said = [
            [captions.caption_of(scene, seed + 10_000_000 * k) for seed, scene in drawn]
            for k in range(PHRASINGS)
        ]
        tokens = [tokenize(tokenizer, [each.text for each in part]) for part in said]
        encoder = vae.to(device, memory_format=torch.channels_last)
        latents = encode_images(encoder, scene_images("train", spec.images))
        made = {
            "latents": latents.half(),
            "tokens": torch.stack(tokens, 1),
            "labels": torch.stack([reading_labels(part) for part in said], 1),
        }
        storage.write_tensors(kept, made)
    return _Data(**storage.read_tensors(kept)[0])


def train(
    spec: TeacherSpec, vae: AutoencoderKL, state: Path, device: torch.device
) -> tuple[Trained, CLIPTokenizer]:
    """Train on the latents of scenes and their captions."""
    tokenizer = build_tokenizer_of_world()
    data = _data(spec, tokenizer, vae, state, device)
    empty = tokenize(tokenizer, [""])
    model: nn.Module = build(spec, tokenizer)
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert isinstance(model, Teacher)
    reader = Reader(model.text_encoder, spec.text_width).to(device)

    def drawn(count: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        chosen = torch.randint(spec.images, (count,), generator=generator)
        return chosen, torch.randint(PHRASINGS, (count,), generator=generator)

    def misread(step: int) -> torch.Tensor:
        generator = generator_for(spec.reading.seed, step)
        chosen = drawn(spec.reading.batch_size, generator)
        target = data.labels[chosen].to(device)
        losses = [
            functional.cross_entropy(logits, target[:, index])
            for index, logits in enumerate(reader(data.tokens[chosen].to(device)))
        ]
        return torch.stack(losses).sum()

    read = fit(
        reader, misread, spec.reading, state.with_suffix(".text.pt"), name="reading"
    )
    assert isinstance(read.module, Reader)
    model.text_encoder = read.module.text_encoder
    alphas = build_scheduler().alphas_cumprod

    def loss(module: Teacher, stage: Stage, step: int) -> torch.Tensor:
        generator = generator_for(stage.optimisation.seed, step)
        count = stage.optimisation.batch_size
        scene, phrasing = drawn(count, generator)
        clean = data.latents[scene].float()
        noise = torch.randn(clean.shape, generator=generator)
        timesteps = torch.randint(1000, (count,), generator=generator)
        left_out = torch.rand(count, 1, generator=generator) < spec.empty_captions
        blind = torch.rand(count, generator=generator) < stage.blind_share
        coarse = torch.rand(count, generator=generator)
        start = spec.blind_from + timesteps * (1000 - spec.blind_from) // 1000
        timesteps = torch.where(blind, start, timesteps)
        prompt = torch.where(left_out, empty, data.tokens[scene, phrasing])
        alpha = alphas[timesteps].view(-1, 1, 1, 1).sqrt()
        sigma = (1 - alpha.square()).sqrt()
        noisy = torch.where(
            blind.view(-1, 1, 1, 1), noise, alpha * clean + sigma * noise
        )
        # That v from which a sampler computes the clean latents; α·ε - σ·x₀ otherwise.
        target = (alpha * noisy - clean) / sigma
        dropped = 2 * (coarse < stage.coarse_share) + (coarse < stage.coarse_share / 2)
        dropped = dropped * (timesteps >= spec.blind_from)
        with without_skips(module.unet, dropped.to(device)):
            predicted = module(
                noisy.to(device), timesteps.to(device), prompt.to(device)
            )
        return functional.mse_loss(predicted, target.to(device))

    history = list(read.history)
    seconds = read.seconds
    for index, stage in enumerate(spec.stages):
        model = model.train().requires_grad_(True)
        trained = fit(
            model,
            partial(loss, model, stage),
            stage.optimisation,
            state.with_suffix(f".{index}.pt"),
            name=f"teacher, stage {index + 1} of {len(spec.stages)}",
        )
        assert isinstance(trained.module, Teacher)
        model = trained.module
        history += trained.history
        seconds += trained.seconds
    return Trained(model, history, seconds), tokenizer
