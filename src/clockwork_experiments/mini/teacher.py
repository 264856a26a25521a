"""Train the mini teacher: text encoder and UNet of a Stable Diffusion in small.

The UNet has SD v1.5's topology (four levels, two layers per block, the same block
types, channel ratio 1:2:4:4) and its kind of noise schedule. What differs, and why:

- The schedule ends at less noise. SD's is for 64×64 latents; of 16×16 ones, which
  repeat themselves less, its noise hides every object's shape by the middle, and half
  of the steps would decide nothing (Hoogeboom et al. 2023, "simple diffusion").
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

import numpy as np
import numpy.typing as npt
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
from clockwork_experiments.base import storage
from clockwork_experiments.mini.language import build_tokenizer
from clockwork_experiments.train.training import (
    Optimisation,
    Trained,
    fit,
    fit_in_stages,
    generator_for,
)
from clockwork_experiments.world import captions, scenes, shapes
from clockwork_experiments.world.data import made_of, scene_images

PHRASINGS = 4
"""Captions kept of each training scene; a step draws one."""

_SLOTS: dict[str, tuple[str, ...]] = {
    **scenes.THING_VALUES,
    "place": tuple(captions.PLACES),
    "count": ("1", "2"),
}
_WHOLE: dict[str, tuple[str, ...]] = {
    "relation": tuple(captions.RELATIONS),
    **scenes.SCENE_VALUES,
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
        object_weight: Weight of a latent that an object covers, where the ground's
            is 1.
        layout_weight: Weight of what the low-resolution features tell of the objects.
        middle_share: Share of timesteps that are drawn from a logit-normal distribution
            about the middle; all others alike.
        telling_share: Share of samples with that of their scene's captions which says
            most; the others have any of them.
    """

    optimisation: Optimisation
    blind_share: float
    coarse_share: float = 0.0
    object_weight: float = 1.0
    layout_weight: float = 0.0
    middle_share: float = 0.0
    telling_share: float = 0.0

    def __post_init__(self) -> None:
        """Reject shares that are none."""
        for name in (
            "blind_share",
            "coarse_share",
            "middle_share",
            "telling_share",
        ):
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
        betas: First and last β of the noise schedule; SD's are 0.00085 and 0.012.
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
    betas: tuple[float, float]
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


class Teacher(nn.Module):
    """Text encoder and UNet, trained as one module."""

    def __init__(self, text_encoder: CLIPTextModel, unet: UNet2DConditionModel) -> None:
        """Hold both parts."""
        super().__init__()
        self.text_encoder = text_encoder
        self.unet = unet
        # What the third-finest level hands up, 8×8: Clockwork's r_out at stage 2.
        width = unet.up_blocks[1].resnets[-1].out_channels
        self.layout = nn.Conv2d(width, 1 + len(shapes.KINDS) + 3, 1)

    def forward(
        self, latents: torch.Tensor, timesteps: torch.Tensor, tokens: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Predict from ``(N, 4, h, w)`` latents and ``(N, L)`` tokens.

        Returns:
            v, ``(N, 4, h, w)``; and by place, ``(N, 16, 8, 8)``, logits of the ground
            and of each kind, then where in its object the place lies (x, y), in radii,
            and the object's radius, in tens of pixels.
        """
        text = self.text_encoder(tokens).last_hidden_state
        low: list[torch.Tensor] = []
        handle = self.unet.up_blocks[1].register_forward_hook(
            lambda module, args, output: low.append(output)
        )
        try:
            v: torch.Tensor = self.unet(latents, timesteps, text).sample
        finally:
            handle.remove()
        return v, self.layout(low.pop())


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


def build_scheduler(betas: tuple[float, float]) -> DPMSolverMultistepScheduler:
    """Return SD's kind of noise schedule in the sampler that the papers use, for v."""
    return DPMSolverMultistepScheduler(
        num_train_timesteps=1000,
        beta_start=betas[0],
        beta_end=betas[1],
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


@dataclass(frozen=True)
class _Data:
    """Training data; entry *i* belongs to scene *i*.

    Attributes:
        latents: ``(N, 4, h, w)``, fp16.
        tokens: By phrasing, ``(N, PHRASINGS, L)``.
        labels: What each caption says, ``(N, PHRASINGS, 22)``.
        cover: Share of each latent that objects cover, ``(N, h, w)``.
        kinds: What is seen at the middle of each place, ``(N, 8, 8)``, int64: 0 for the
            ground, kinds from 1.
        within: Where in its object each place lies, x and y in radii, and the object's
            radius in tens of pixels, ``(N, 3, 8, 8)``; 0 on the ground.
    """

    latents: torch.Tensor
    tokens: torch.Tensor
    labels: torch.Tensor
    cover: torch.Tensor
    kinds: torch.Tensor
    within: torch.Tensor


_PLACES = 8
"""Side of the grid on which the layout is read."""


def _layout(seed: int) -> npt.NDArray[np.float32]:
    """Return cover, kinds and places of a scene, each ``(16, 16)``, in five planes."""
    scene = scenes.sample_scene(seed)
    cover = scenes.object_mask(scene).reshape(16, 4, 16, 4).mean((1, 3))
    found = np.zeros((4, _PLACES, _PLACES), np.float32)
    step = scenes.SIZE // _PLACES
    middle = np.arange(_PLACES) * step + step / 2
    x, y = np.meshgrid(middle, middle)
    for thing in scene.things:
        local = x - thing.x, y - thing.y
        flipped = (-local[0] if thing.mirrored else local[0]), local[1]
        inside = shapes.silhouette(thing.kind, *flipped, thing.radius) < step / 4
        found[0][inside] = 1 + list(shapes.KINDS).index(thing.kind)
        found[1][inside] = local[0][inside] / thing.radius
        found[2][inside] = local[1][inside] / thing.radius
        found[3][inside] = thing.radius / 10
    wide = np.repeat(np.repeat(found, 2, 1), 2, 2)
    return np.concatenate([cover[None], wide]).astype(np.float32)


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
            **layouts(spec.images),
        }
        storage.write_tensors(kept, made)
    return _Data(**storage.read_tensors(kept)[0])


def layouts(images: int) -> dict[str, torch.Tensor]:
    """Return cover, kinds and places of the first training scenes, as `_Data` has."""
    made = made_of(_layout, scenes.split_seeds("train", images))
    planes = torch.from_numpy(np.stack(made))
    by_place = planes[:, 1:, ::2, ::2]
    return {
        "cover": planes[:, 0].half(),
        "kinds": by_place[:, 0].long(),
        "within": by_place[:, 1:].half().contiguous(),
    }


def layout_error(
    told: torch.Tensor, kinds: torch.Tensor, within: torch.Tensor
) -> torch.Tensor:
    """Return how wrong each sample's layout is read, ``(N,)``."""
    # Objects and ground weigh alike, though most places show the ground.
    on_object = (kinds > 0).float()
    weight = on_object / on_object.sum((1, 2), keepdim=True).clamp_min(1)
    ground = 1 - on_object
    weight = weight + ground / ground.sum((1, 2), keepdim=True).clamp_min(1)
    named = functional.cross_entropy(told[:, :-3], kinds, reduction="none")
    placed = (told[:, -3:] - within).square().mean(1) * on_object
    return ((named + placed) * weight).sum((1, 2)) / 2


@dataclass(frozen=True)
class _Batch:
    """What an update learns from, a row a sample.

    Attributes:
        scene: Number of the scene.
        timesteps: Where on the schedule.
        prompt: Tokens.
        noisy: Latents at that time step, or noise alone.
        target: What is to be predicted.
        dropped: How many of the finer levels' skip connections are left out.
        seen: How much of the scene is still to be seen.
    """

    scene: torch.Tensor
    timesteps: torch.Tensor
    prompt: torch.Tensor
    noisy: torch.Tensor
    target: torch.Tensor
    dropped: torch.Tensor
    seen: torch.Tensor


def _drawn(
    spec: TeacherSpec, count: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scenes, and which phrasing of each one's caption."""
    chosen = torch.randint(spec.images, (count,), generator=generator)
    return chosen, torch.randint(PHRASINGS, (count,), generator=generator)


def _batch(
    spec: TeacherSpec, stage: Stage, data: _Data, empty: torch.Tensor, step: int
) -> _Batch:
    """Draw what an update learns from; ``empty`` are the tokens of no caption."""
    alphas = build_scheduler(spec.betas).alphas_cumprod
    generator = generator_for(stage.optimisation.seed, step)
    count = stage.optimisation.batch_size
    scene, phrasing = _drawn(spec, count, generator)
    clean = data.latents[scene].float()
    noise = torch.randn(clean.shape, generator=generator)
    timesteps = torch.randint(1000, (count,), generator=generator)
    middle = torch.sigmoid(torch.randn(count, generator=generator)) * 1000
    drawn_there = torch.rand(count, generator=generator) < stage.middle_share
    timesteps = torch.where(drawn_there, middle.long(), timesteps)
    if stage.telling_share:
        most = (data.labels[scene] > 0).sum(2).argmax(1)
        telling = torch.rand(count, generator=generator) < stage.telling_share
        phrasing = torch.where(telling, most, phrasing)
    left_out = torch.rand(count, 1, generator=generator) < spec.empty_captions
    blind = torch.rand(count, generator=generator) < stage.blind_share
    coarse = torch.rand(count, generator=generator)
    start = spec.blind_from + timesteps * (1000 - spec.blind_from) // 1000
    timesteps = torch.where(blind, start, timesteps)
    prompt = torch.where(left_out, empty, data.tokens[scene, phrasing])
    alpha = alphas[timesteps].view(-1, 1, 1, 1).sqrt()
    sigma = (1 - alpha.square()).sqrt()
    noisy = torch.where(blind.view(-1, 1, 1, 1), noise, alpha * clean + sigma * noise)
    # That v from which a sampler computes the clean latents; α·ε - σ·x₀ otherwise.
    target = (alpha * noisy - clean) / sigma
    dropped = 2 * (coarse < stage.coarse_share) + (coarse < stage.coarse_share / 2)
    dropped = dropped * (timesteps >= spec.blind_from)
    seen = torch.where(blind, 0.0, alpha.flatten())
    return _Batch(scene, timesteps, prompt, noisy, target, dropped, seen)


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

    def misread(step: int) -> torch.Tensor:
        generator = generator_for(spec.reading.seed, step)
        chosen = _drawn(spec, spec.reading.batch_size, generator)
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

    def loss(module: nn.Module, stage: Stage, step: int) -> torch.Tensor:
        batch = _batch(spec, stage, data, empty, step)
        with without_skips(module.unet, batch.dropped.to(device)):
            predicted, told = module(
                batch.noisy.to(device),
                batch.timesteps.to(device),
                batch.prompt.to(device),
            )
        cover = data.cover[batch.scene].float().unsqueeze(1)
        weight = 1 + (stage.object_weight - 1) * cover
        weight = (weight / weight.mean()).to(device)
        total = ((predicted - batch.target.to(device)).square() * weight).mean()
        if stage.layout_weight:
            kinds, within = data.kinds[batch.scene], data.within[batch.scene].float()
            wrong = layout_error(told, kinds.to(device), within.to(device))
            # Only what is still to be seen can be told.
            total = total + stage.layout_weight * (wrong * batch.seen.to(device)).mean()
        return total

    trained = fit_in_stages(
        model,
        [stage.optimisation for stage in spec.stages],
        lambda module, index: partial(loss, module, spec.stages[index]),
        state,
        name="teacher",
    )
    history, seconds = read.history + trained.history, read.seconds + trained.seconds
    return Trained(trained.module, history, seconds), tokenizer


def to_pipeline(
    teacher: nn.Module,
    tokenizer: CLIPTokenizer,
    vae: AutoencoderKL,
    betas: tuple[float, float],
) -> StableDiffusionPipeline:
    """Assemble the Stable Diffusion pipeline that is saved and shipped."""
    assert isinstance(teacher, Teacher)
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=teacher.text_encoder,
        tokenizer=tokenizer,
        unet=teacher.unet,
        scheduler=build_scheduler(betas),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
