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
  not to read it. Trained so from the start, it learns places within 200 updates;
  without, not within 3,700.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from torch import nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from clockwork_diffusion.encoding import encode_images
from clockwork_experiments.mini import scenes
from clockwork_experiments.mini.data import scene_images
from clockwork_experiments.mini.language import build_tokenizer
from clockwork_experiments.mini.quality import ATTRIBUTES, scene_labels
from clockwork_experiments.train.training import (
    Optimisation,
    Trained,
    fit,
    generator_for,
)


@dataclass(frozen=True)
class Stage:
    """A stage of training.

    Attributes:
        optimisation: The recipe.
        blind_share: Share of samples that show noise alone, at a timestep from which
            a sampler may start; their target is the clean image's.
    """

    optimisation: Optimisation
    blind_share: float

    def __post_init__(self) -> None:
        """Reject a share that is none."""
        if not 0 <= self.blind_share <= 1:
            raise ValueError(f"blind_share {self.blind_share} is not within 0 and 1")


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
    """Text encoder that names a caption's attributes from its last token."""

    def __init__(self, text_encoder: CLIPTextModel, width: int) -> None:
        """Put one linear head per attribute onto a text encoder of this width."""
        super().__init__()
        self.text_encoder = text_encoder
        self.heads = nn.ModuleList(
            nn.Linear(width, len(values)) for values in ATTRIBUTES.values()
        )

    def forward(self, tokens: torch.Tensor) -> list[torch.Tensor]:
        """Return logits ``(N, classes)`` by attribute for ``(N, L)`` tokens."""
        # Attention is causal: only the last token has seen the whole caption.
        last = self.text_encoder(tokens).last_hidden_state[:, -1]
        return [head(last) for head in self.heads]


class Teacher(nn.Module):
    """Text encoder and UNet, trained as one module."""

    def __init__(self, text_encoder: CLIPTextModel, unet: UNet2DConditionModel) -> None:
        """Hold both parts."""
        super().__init__()
        self.text_encoder = text_encoder
        self.unet = unet

    def forward(
        self, latents: torch.Tensor, timesteps: torch.Tensor, tokens: torch.Tensor
    ) -> torch.Tensor:
        """Predict v for ``(N, 4, h, w)`` latents and ``(N, L)`` tokens."""
        text = self.text_encoder(tokens).last_hidden_state
        v: torch.Tensor = self.unet(latents, timesteps, text).sample
        return v


def build_tokenizer_of_world() -> CLIPTokenizer:
    """Return the tokenizer of the caption grammar."""
    two = [
        scenes.caption(scenes.sample_scene(seed, two_objects=1.0), seed)
        for seed in scenes.split_seeds("train", 1000)
    ]
    return build_tokenizer(scenes.captions("train", 4000) + two)


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


def build_scheduler() -> DPMSolverMultistepScheduler:
    """Return SD's noise schedule in the sampler that the papers use, for v."""
    return DPMSolverMultistepScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        steps_offset=1,
    )


def tokenize(tokenizer: CLIPTokenizer, prompts: list[str]) -> torch.Tensor:
    """Return padded token ids, ``(N, max_length)``."""
    ids: torch.Tensor = tokenizer(
        prompts,
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    return ids


def train(
    spec: TeacherSpec, vae: AutoencoderKL, state: Path, device: torch.device
) -> tuple[Trained, CLIPTokenizer]:
    """Train on the latents of scenes and their captions."""
    tokenizer = build_tokenizer_of_world()
    tokens = tokenize(tokenizer, scenes.captions("train", spec.images))
    empty = tokenize(tokenizer, [""])

    @cache
    def latents() -> torch.Tensor:
        # Made on first use: a run that is resumed after its last step needs none.
        encoder = vae.to(device, memory_format=torch.channels_last)
        return encode_images(encoder, scene_images("train", spec.images))

    model: nn.Module = build(spec, tokenizer)
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert isinstance(model, Teacher)
    reader = Reader(model.text_encoder, spec.text_width).to(device)
    labels = scene_labels("train", spec.images)

    def misread(step: int) -> torch.Tensor:
        generator = generator_for(spec.reading.seed, step)
        chosen = torch.randint(
            spec.images, (spec.reading.batch_size,), generator=generator
        )
        target = labels[chosen].to(device)
        logits = reader(tokens[chosen].to(device))
        losses = [
            functional.cross_entropy(one, target[:, i]) for i, one in enumerate(logits)
        ]
        return torch.stack(losses).sum()

    read = fit(
        reader, misread, spec.reading, state.with_suffix(".text.pt"), name="reading"
    )
    assert isinstance(read.module, Reader)
    model.text_encoder = read.module.text_encoder
    alphas = build_scheduler().alphas_cumprod

    def loss(module: nn.Module, stage: Stage, step: int) -> torch.Tensor:
        generator = generator_for(stage.optimisation.seed, step)
        count = stage.optimisation.batch_size
        chosen = torch.randint(spec.images, (count,), generator=generator)
        clean = latents()[chosen]
        noise = torch.randn(clean.shape, generator=generator)
        timesteps = torch.randint(1000, (count,), generator=generator)
        dropped = torch.rand(count, 1, generator=generator) < spec.empty_captions
        blind = torch.rand(count, generator=generator) < stage.blind_share
        start = spec.blind_from + timesteps * (1000 - spec.blind_from) // 1000
        timesteps = torch.where(blind, start, timesteps)
        prompt = torch.where(dropped, empty, tokens[chosen])
        alpha = alphas[timesteps].view(-1, 1, 1, 1).sqrt()
        sigma = (1 - alpha.square()).sqrt()
        noisy = torch.where(
            blind.view(-1, 1, 1, 1), noise, alpha * clean + sigma * noise
        )
        # That v from which a sampler computes the clean latents; α·ε - σ·x₀ otherwise.
        target = (alpha * noisy - clean) / sigma
        predicted = module(noisy.to(device), timesteps.to(device), prompt.to(device))
        return functional.mse_loss(predicted, target.to(device))

    module: nn.Module = model
    history = list(read.history)
    seconds = read.seconds
    for index, stage in enumerate(spec.stages):
        module = module.train().requires_grad_(True)
        trained = fit(
            module,
            partial(loss, module, stage),
            stage.optimisation,
            state.with_suffix(f".{index}.pt"),
            name=f"teacher, stage {index + 1} of {len(spec.stages)}",
        )
        module = trained.module
        history += trained.history
        seconds += trained.seconds
    return Trained(module, history, seconds), tokenizer


def to_pipeline(
    teacher: nn.Module, tokenizer: CLIPTokenizer, vae: AutoencoderKL
) -> StableDiffusionPipeline:
    """Assemble the Stable Diffusion pipeline that is saved and shipped."""
    assert isinstance(teacher, Teacher)
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=teacher.text_encoder,
        tokenizer=tokenizer,
        unet=teacher.unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
