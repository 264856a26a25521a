"""Distil the mini StableSR into one that restores in few deterministic steps.

The student starts as its teacher, and its SPADE layers and structure encoder learn, as
StableSR's do. At each of its few timesteps it learns to predict what the teacher's
deterministic sampler makes of the same image and noise in many steps. It does so where
its own steps lead, not on the teacher's way, so that later steps learn to mend what the
first ones get wrong.

Direct regression, and not progressive distillation (Salimans and Ho 2022; the loss of
`train.backbones`): there each halving of the steps learns from a student,
whose errors it takes over, and needs updates of its own. Whether faults of the
deterministic sampler are inherited is clearest where that is the teacher itself. The
price is that its many steps are computed before, once for each pair and its one noise.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

from clockwork_diffusion.stablesr.pipeline import StableSRPipeline
from clockwork_diffusion.stablesr.spade import spades
from clockwork_diffusion.timesteps import check_timesteps
from clockwork_experiments.base import chunks
from clockwork_experiments.generate.text import image_seed, initial_noise
from clockwork_experiments.generate.translate import TranslationSpec, Translator
from clockwork_experiments.generate.translators import load_translator
from clockwork_experiments.models.loading import default_device
from clockwork_experiments.score.metrics import psnr
from clockwork_experiments.train.backbones import Noise
from clockwork_experiments.train.training import (
    Optimisation,
    Trained,
    fit,
    generator_for,
)
from clockwork_experiments.world.pairs import Pairs

BATCH = 64
"""Images at once where nothing is learned."""


@dataclass(frozen=True)
class FewStepsSpec:
    """Data and recipe of a StableSR of few steps.

    Attributes:
        pairs: Number of training pairs, each with one noise.
        offset: First scene, counted within the training split.
        timesteps: What the student visits, descending.
        reference: Uniform steps of the teacher, whose outcome the student learns.
        optimisation: The recipe; its seed is that of the noises, too.
        judged: Number of validation pairs that its card reports on.
    """

    pairs: int
    offset: int
    timesteps: tuple[int, ...]
    reference: int
    optimisation: Optimisation
    judged: int = 128

    def __post_init__(self) -> None:
        """Reject timesteps that do not descend, and as many as the teacher takes."""
        check_timesteps(self.timesteps)
        if not 0 < len(self.timesteps) < self.reference:
            raise ValueError(
                f"{len(self.timesteps)} timesteps are not fewer than the teacher's "
                f"{self.reference}, or none"
            )

    @property
    def few(self) -> TranslationSpec:
        """How the student restores."""
        steps = len(self.timesteps)
        return TranslationSpec("restoration", steps, timesteps=self.timesteps)

    @property
    def many(self) -> TranslationSpec:
        """How the teacher restores."""
        return TranslationSpec("restoration", self.reference)


def learned_parts(
    unet: nn.Module, structure_encoder: nn.Module
) -> dict[str, nn.Parameter]:
    """Return the parameters that StableSR's training changes, by name."""
    layers = {f"unet.{name}": spade for name, spade in spades(unet)}
    return {
        f"{name}.{key}": parameter
        for name, layer in {**layers, "structure_encoder": structure_encoder}.items()
        for key, parameter in layer.named_parameters()
    }


class Student(nn.Module):
    """A copy of a StableSR, of which learns what StableSR's training changes."""

    text: torch.Tensor

    def __init__(self, pipe: StableSRPipeline) -> None:
        """Copy UNet and structure encoder, and the empty prompt's features."""
        super().__init__()
        self.unet = copy.deepcopy(pipe.unet).float().requires_grad_(False)
        self.structure_encoder = copy.deepcopy(pipe.structure_encoder).float()
        for part in learned_parts(self.unet, self.structure_encoder).values():
            part.requires_grad_(True)
        with torch.no_grad():
            text = pipe.empty_prompt(1).float()
        self.register_buffer("text", text.clone())

    def forward(
        self, noisy: torch.Tensor, timesteps: torch.Tensor, low: torch.Tensor
    ) -> torch.Tensor:
        """Return the UNet's output for noisy and given latents, ``(N, 4, h, w)``."""
        structure = self.structure_encoder(low, timesteps)
        text = self.text.expand(len(noisy), -1, -1)
        output: torch.Tensor = self.unet(noisy, timesteps, text, structure=structure)[0]
        return output


@torch.no_grad()
def follow(
    student: nn.Module,
    noise: Noise,
    x: torch.Tensor,
    low: torch.Tensor,
    timesteps: torch.Tensor,
    place: torch.Tensor,
) -> torch.Tensor:
    """Return where deterministic steps of the student lead, each sample to its place.

    Args:
        student: Maps ``(x, t, low)`` to what the model predicts.
        noise: The noise schedule.
        x: Latents at the first timestep, ``(N, C, h, w)``.
        low: Latents of the low-quality images, alike.
        timesteps: The student's, descending.
        place: Which of them each sample is to reach, ``(N,)``.
    """
    x = x.clone()
    for index, (t, to) in enumerate(pairwise(timesteps)):
        rows = place > index
        if not rows.any():
            break
        now, count = x[rows], int(rows.sum())
        at, then = t.expand(count), to.expand(count)
        clean = noise.clean(student(now, at, low[rows]), now, at)
        x[rows] = noise.step(clean, now, at, then)
    return x


def train(
    spec: FewStepsSpec,
    pipe: StableSRPipeline,
    make_pairs: Callable[[], Pairs],
    state: Path,
    work: str = "",
) -> Trained:
    """Distil a StableSR.

    Args:
        spec: Data and recipe.
        pipe: The teacher; not changed.
        make_pairs: Makes the training pairs, ``spec.pairs`` of them.
        state: Where the resumable state lies; the teacher's restorations beside it, in
            `answers_folder`.
        work: Says what else decides the outcome: teacher, code.

    Returns:
        The trained `Student`.
    """
    recipe, device = spec.optimisation, pipe.device
    student = Student(pipe).to(device)
    noise = Noise(pipe.scheduler.config, device)
    teacher = Translator("restoration", pipe)
    timesteps = torch.tensor(spec.timesteps, device=device)
    places = torch.arange(recipe.batch_size) % len(timesteps)

    @cache
    def data() -> dict[str, torch.Tensor]:
        """Return the teacher's answers, and where sampling starts from."""
        inputs = make_pairs().inputs

        def answer(part: slice) -> dict[str, torch.Tensor]:
            low = pipe.encode(inputs[part].to(device).float() / 127.5 - 1)
            noises = _noises(teacher, inputs[part], recipe.seed, part.start)
            start = pipe.start(low, noises.to(low), spec.timesteps[0])
            right = restore(teacher, inputs[part], spec.many, recipe.seed, part.start)
            found = {"low": low, "start": start, "right": right}
            # torch 2.13 dies of channels_last where a frozen UNet passes gradients on.
            return {key: v.float().cpu().contiguous() for key, v in found.items()}

        with torch.no_grad():
            return chunks.in_chunks(
                len(inputs), BATCH, answer, answers_folder(state), work, "restoring"
            )

    def loss(step: int) -> torch.Tensor:
        generator = generator_for(recipe.seed, step)
        chosen = torch.randint(spec.pairs, (recipe.batch_size,), generator=generator)
        given = {name: value[chosen].to(device) for name, value in data().items()}
        low = given["low"]
        x = follow(student, noise, given["start"], low, timesteps, places)
        t = timesteps[places]
        clean = noise.clean(student(x, t, low), x, t)
        weight = noise.weight(t, truncated=True)
        return (weight * (clean - given["right"]).square()).mean()

    name = f"StableSR, {len(timesteps)} steps"
    return fit(student, loss, recipe, state, name=name, work=work)


def answers_folder(state: Path) -> Path:
    """Return the folder of the teacher's restorations, beside a training's state."""
    return state.with_suffix(".answers")


def restore(
    translator: Translator,
    images: torch.Tensor,
    spec: TranslationSpec,
    seed: int,
    first: int = 0,
) -> torch.Tensor:
    """Return the latents that a model restores from uint8 images, on the CPU.

    Args:
        translator: The model.
        images: ``(N, 3, H, W)``.
        spec: How to restore.
        seed: Seed of the run.
        first: Number of the first image, within the run.
    """
    parts = []
    for rows in images.split(BATCH):
        seeds = [image_seed(seed, first + index) for index in range(len(rows))]
        made = translator.translate(rows, [""] * len(rows), seeds, spec)
        parts.append(made.float().cpu())
        first += len(rows)
    return torch.cat(parts)


def _noises(
    translator: Translator, images: torch.Tensor, seed: int, first: int
) -> torch.Tensor:
    seeds = [image_seed(seed, first + index) for index in range(len(images))]
    return initial_noise(seeds, translator.latent_shape(images))


@torch.inference_mode()
def measure(
    folder: Path, teacher: Path, spec: FewStepsSpec, pairs: Pairs
) -> dict[str, float]:
    """Return how near a saved student comes to its teacher, and to the right answers.

    Args:
        folder: The student's.
        teacher: The teacher's.
        spec: The student's specification.
        pairs: Pairs that it was not trained on.
    """
    device, images = default_device(), {}
    for name, path, how in (
        ("student", folder, spec.few),
        ("hasty teacher", teacher, spec.few),
        ("teacher", teacher, spec.many),
    ):
        translator = load_translator("restoration", path, device=device)
        latents = restore(translator, pairs.inputs, how, 0)
        images[name] = translator.decode(latents.to(device), pairs.inputs)
    many, few = f"{spec.reference} steps", f"{len(spec.timesteps)} steps"
    on = f"{len(pairs)} validation pairs"

    def between(one: torch.Tensor, other: torch.Tensor) -> float:
        return float(psnr(one, other).mean())

    return {
        f"PSNR to the teacher's {many}, dB ({on}, {few})": between(
            images["student"], images["teacher"]
        ),
        f"PSNR of the teacher's {few} to them, dB": between(
            images["hasty teacher"], images["teacher"]
        ),
        "PSNR to the right answer, dB": between(images["student"], pairs.targets),
        f"PSNR of the teacher's {many} to it, dB": between(
            images["teacher"], pairs.targets
        ),
    }
