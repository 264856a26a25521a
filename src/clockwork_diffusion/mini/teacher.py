"""Train the mini teacher: text encoder and UNet of a Stable Diffusion in small.

The UNet has SD v1.5's topology (four levels, two layers per block, the same block
types, channel ratio 1:2:4:4) and its noise schedule and ε-prediction. Unlike SD's, the
text encoder is trained with it: there is no pre-trained one for this vocabulary.
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

from clockwork_diffusion.mini import autoencoder, scenes
from clockwork_diffusion.mini.data import scene_images
from clockwork_diffusion.mini.language import build_tokenizer
from clockwork_diffusion.training import Optimisation, Trained, fit, generator_for


@dataclass(frozen=True)
class Stage:
    """A stage of training; all of them minimise a weighted ε-prediction error.

    Under SD's noise schedule that error hardly weighs what decides the layout: the
    noisiest timesteps, and among spatial frequencies the lowest. After a plain stage a
    small model follows the caption's shapes and colours and ignores its places. Later
    stages weigh both up. The minimiser stays the same, the conditional mean of ε.

    Attributes:
        optimisation: The recipe.
        noisy_share: Share of samples whose timestep is drawn from the noisy end.
        noisy_from: First timestep of that end.
        cap: Largest weight of a low signal-to-noise ratio, whose inverse it is.
        low_pass: Weight of the error's averages over 4×4 latents.
    """

    optimisation: Optimisation
    noisy_share: float = 0.0
    noisy_from: int = 0
    cap: float = 1.0
    low_pass: float = 0.0


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
        snr_gamma: Cap on the signal-to-noise ratio as a loss weight (min-SNR-γ).
        stages: The recipes, one after the other; each starts from the average of the
            one before.
    """

    images: int
    channels: tuple[int, int, int, int]
    heads: int
    text_width: int
    text_layers: int
    empty_captions: float
    snr_gamma: float
    stages: tuple[Stage, ...]


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
        """Predict the noise in ``(N, 4, h, w)`` latents for ``(N, L)`` tokens."""
        text = self.text_encoder(tokens).last_hidden_state
        noise: torch.Tensor = self.unet(latents, timesteps, text).sample
        return noise


def build_tokenizer_of_world() -> CLIPTokenizer:
    """Return the tokenizer of the caption grammar."""
    two = [
        scenes.caption(scenes.sample_scene(seed, two_objects=1.0), seed)
        for seed in scenes.split_seeds("train", 1000)
    ]
    return build_tokenizer(scenes.captions("train", 4000) + two)


def build(spec: TeacherSpec, tokenizer: CLIPTokenizer) -> Teacher:
    """Return an untrained teacher."""
    torch.manual_seed(spec.stages[0].optimisation.seed)
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
    """Return SD's noise schedule in the sampler that the papers use."""
    return DPMSolverMultistepScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="epsilon",
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
        return autoencoder.encode(encoder, scene_images("train", spec.images))

    alphas = build_scheduler().alphas_cumprod
    snr = alphas / (1 - alphas)
    model: nn.Module = build(spec, tokenizer)
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss(module: nn.Module, stage: Stage, step: int) -> torch.Tensor:
        generator = generator_for(stage.optimisation.seed, step)
        count = stage.optimisation.batch_size
        chosen = torch.randint(spec.images, (count,), generator=generator)
        clean = latents()[chosen]
        noise = torch.randn(clean.shape, generator=generator)
        timesteps = torch.randint(1000, (count,), generator=generator)
        dropped = torch.rand(count, 1, generator=generator) < spec.empty_captions
        lifted = torch.rand(count, generator=generator) < stage.noisy_share
        noisy_end = stage.noisy_from + timesteps * (1000 - stage.noisy_from) // 1000
        timesteps = torch.where(lifted, noisy_end, timesteps)
        prompt = torch.where(dropped, empty, tokens[chosen])
        alpha = alphas[timesteps].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        predicted = module(noisy.to(device), timesteps.to(device), prompt.to(device))
        error = predicted - noise.to(device)
        errors = error.square().mean(dim=(1, 2, 3))
        if stage.low_pass:
            low = functional.avg_pool2d(error, 4).square().mean(dim=(1, 2, 3))
            errors = errors + stage.low_pass * low
        weights = torch.clamp(spec.snr_gamma / snr, max=1)
        weights = weights * torch.clamp(1 / snr, 1, stage.cap)
        return (errors * weights[timesteps].to(device)).mean()

    history: list[tuple[int, float]] = []
    seconds = 0.0
    for index, stage in enumerate(spec.stages):
        module = model.train().requires_grad_(True)
        trained = fit(
            module,
            partial(loss, module, stage),
            stage.optimisation,
            state.with_suffix(f".{index}.pt"),
            name=f"teacher, stage {index + 1} of {len(spec.stages)}",
        )
        model = trained.module
        history += trained.history
        seconds += trained.seconds
    return Trained(model, history, seconds), tokenizer


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
