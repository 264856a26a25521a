"""Make the paper's cheaper backbones out of a teacher by distillation.

The paper names its Efficient UNet and Distilled Efficient UNet and publishes no recipe
for either. Ours follow published ones, and are listed among the deviations:

- *Efficient*: the teacher without the transformer blocks of its highest resolution
  keeps the weights of all that is left, and learns the teacher's output (as BK-SDM's
  output distillation does).
- *Distilled*: the Efficient UNet first learns the guided output, so that it runs
  without guidance (Meng et al. 2023, at one fixed scale), then one DDIM step of it
  learns two of its own, from more steps to fewer (Salimans and Ho 2022).

Both are one loop: a student learns clean latents x̂₀ that a teacher implies.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, UNet2DConditionModel
from torch import nn

from clockwork_experiments.cost.architectures import unet_config
from clockwork_experiments.train.training import (
    Optimisation,
    Trained,
    fit_in_stages,
    generator_for,
)


@dataclass(frozen=True)
class Stage:
    """A stage of distillation; its teacher is the student of the stage before.

    Attributes:
        optimisation: The recipe.
        guidance: Scale of guidance that the teacher runs with, and the student learns
            to do without; 1 for none.
        steps: Sampling steps at which one step of the student does two of the
            teacher's; 0: any timestep, one call for one.
        blind_share: Share of samples that show noise alone at the noisiest timestep,
            as sampling starts from.
    """

    optimisation: Optimisation
    guidance: float = 1.0
    steps: int = 0
    blind_share: float = 0.1

    def __post_init__(self) -> None:
        """Reject values that make no stage."""
        if self.guidance < 1:
            raise ValueError(f"guidance {self.guidance} is less than 1")
        if self.steps < 0:
            raise ValueError(f"step count {self.steps} is less than 0")
        if not 0 <= self.blind_share <= 1:
            raise ValueError(f"blind_share {self.blind_share} is not within 0 and 1")


@dataclass(frozen=True)
class BackboneSpec:
    """How to make a backbone.

    Attributes:
        backbone: A key of `clockwork_experiments.cost.architectures.BACKBONES`.
        empty_captions: Share of samples with the empty prompt; 0 for a student that
            runs without guidance.
        stages: The stages, one after the other.
        frozen: Parts of the UNet, by the names of its modules, that stay as they are.
    """

    backbone: str
    empty_captions: float
    stages: tuple[Stage, ...]
    frozen: tuple[str, ...] = ()


@dataclass(frozen=True)
class Data:
    """What a student learns on.

    Attributes:
        latents: Clean latents, ``(N, C, h, w)``, float32, on the CPU.
        text: Maps row numbers to text features, ``(len(rows), L, D)``.
        empty: The empty prompt's features, ``(1, L, D)``.
    """

    latents: torch.Tensor
    text: Callable[[torch.Tensor], torch.Tensor]
    empty: torch.Tensor


class Noise:
    """A noise schedule, and the arithmetic of a prediction type.

    Attributes:
        alpha: √ᾱ by timestep.
        sigma: √(1 − ᾱ) by timestep.
    """

    def __init__(self, config: Any, device: torch.device) -> None:
        """Read the model's own scheduler configuration.

        Raises:
            ValueError: If the model predicts neither ε nor v.
        """
        schedule = DPMSolverMultistepScheduler.from_config(config)
        self.kind: str = schedule.config.prediction_type
        if self.kind not in ("epsilon", "v_prediction"):
            raise ValueError(
                f"prediction type {self.kind!r} is not epsilon or v_prediction"
            )
        self.alpha = schedule.alphas_cumprod.sqrt().to(device)
        self.sigma = (1 - schedule.alphas_cumprod).sqrt().to(device)
        self.timesteps = len(self.alpha)
        self._config = config

    def at(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return √ᾱ and √(1 − ᾱ), ``(N, 1, 1, 1)``; at t = −1 there is no noise."""
        clean = t < 0
        alpha = torch.where(clean, 1.0, self.alpha[t.clamp(min=0)])
        sigma = torch.where(clean, 0.0, self.sigma[t.clamp(min=0)])
        return alpha.view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1)

    def clean(
        self, predicted: torch.Tensor, x: torch.Tensor, t: torch.Tensor
    ) -> torch.Tensor:
        """Return the clean latents x̂₀ that a prediction implies."""
        alpha, sigma = self.at(t)
        if self.kind == "epsilon":
            return (x - sigma * predicted) / alpha
        return alpha * x - sigma * predicted

    def weight(self, t: torch.Tensor, *, truncated: bool) -> torch.Tensor:
        """Return the weight of an error of x̂₀ that makes it the prediction's own.

        An error of ε says nothing of x̂₀ at the noisiest timesteps, where a step of
        distillation is decided; truncated, its weight is 1 at least (Salimans and Ho
        2022, "truncated SNR").
        """
        alpha, sigma = self.at(t)
        if self.kind == "v_prediction":
            return 1 / sigma.square()
        snr = (alpha / sigma).square()
        return snr.clamp(min=1) if truncated else snr

    def step(
        self, clean: torch.Tensor, x: torch.Tensor, t: torch.Tensor, to: torch.Tensor
    ) -> torch.Tensor:
        """Take a DDIM step from timesteps ``t`` to ``to``."""
        alpha, sigma = self.at(t)
        alpha_to, sigma_to = self.at(to)
        return alpha_to * clean + sigma_to * (x - alpha * clean) / sigma

    def grid(self, steps: int) -> torch.Tensor:
        """Return the sampler's timesteps, from noise down, and −1 after the last."""
        schedule = DPMSolverMultistepScheduler.from_config(self._config)
        schedule.set_timesteps(steps)
        return torch.cat([schedule.timesteps.long().cpu(), torch.tensor([-1])])


def start_student(teacher: UNet2DConditionModel, backbone: str) -> UNet2DConditionModel:
    """Return a backbone that starts from the teacher's weights, where it has the layer.

    Raises:
        ValueError: If the teacher lacks a layer of the backbone, naming it.
    """
    # Without diffusers' own notes, by which it would undo the change.
    base = {k: v for k, v in teacher.config.items() if not k.startswith("_")}
    config = unet_config(backbone, base)
    student: UNet2DConditionModel = UNet2DConditionModel.from_config(config)
    weights = teacher.state_dict()
    missing = [name for name in student.state_dict() if name not in weights]
    if missing:
        raise ValueError(
            f"the teacher has no {missing[0]}: a {backbone!r} UNet is not part of it"
        )
    student.load_state_dict({name: weights[name] for name in student.state_dict()})
    return student.to(teacher.device)


def implied_clean(
    unet: nn.Module,
    noise: Noise,
    x: torch.Tensor,
    t: torch.Tensor,
    text: torch.Tensor,
    empty: torch.Tensor,
    guidance: float = 1.0,
) -> torch.Tensor:
    """Return x̂₀ of a UNet, with guidance if the scale is above 1."""
    if guidance == 1:
        return noise.clean(unet(x, t, text).sample, x, t)
    both = torch.cat([empty.expand_as(text), text])
    out = unet(torch.cat([x, x]), torch.cat([t, t]), both).sample
    without, prompted = out.chunk(2)
    return noise.clean(without + guidance * (prompted - without), x, t)


def two_steps(
    unet: nn.Module,
    noise: Noise,
    x: torch.Tensor,
    t: torch.Tensor,
    to: torch.Tensor,
    text: torch.Tensor,
    empty: torch.Tensor,
    guidance: float = 1.0,
) -> torch.Tensor:
    """Return the x̂₀ whose one DDIM step from t to ``to`` equals two of the UNet's.

    Source: Salimans and Ho 2022, Algorithm 2.
    """
    middle = torch.div(t + to, 2, rounding_mode="floor")
    first = implied_clean(unet, noise, x, t, text, empty, guidance)
    halfway = noise.step(first, x, t, middle)
    second = implied_clean(unet, noise, halfway, middle, text, empty, guidance)
    end = noise.step(second, halfway, middle, to)
    alpha, sigma = noise.at(t)
    alpha_to, sigma_to = noise.at(to)
    ratio = sigma_to / sigma
    return (end - ratio * x) / (alpha_to - ratio * alpha)


def make_backbone(
    spec: BackboneSpec,
    teacher: UNet2DConditionModel,
    scheduler_config: Any,
    data: Data,
    state: Path,
    work: str = "",
) -> Trained:
    """Distil a backbone from a teacher, stage by stage.

    The loss is the squared error of x̂₀, weighted so that it is the error of what the
    UNet predicts.

    Args:
        spec: The recipe.
        teacher: The UNet to learn from; not changed.
        scheduler_config: Configuration of the teacher's own scheduler.
        data: Latents and prompts.
        state: Where resumable state lies; each stage adds its number to the name.
        work: Says what the data and the code are; a state of other work is refused.
    """
    device = teacher.device
    noise = Noise(scheduler_config, device)
    empty = data.empty.to(device)

    def loss_of(student: nn.Module, index: int) -> Callable[[int], torch.Tensor]:
        # A stage learns from what the one before has made of the student.
        wise: nn.Module = copy.deepcopy(student) if index else teacher
        wise = wise.eval().requires_grad_(False)
        for name in spec.frozen:
            _part(student, name).requires_grad_(False)
        stage = spec.stages[index]
        return _loss(spec, stage, student, wise, noise, data, empty, device)

    return fit_in_stages(
        start_student(teacher, spec.backbone),
        [stage.optimisation for stage in spec.stages],
        loss_of,
        state,
        name=f"{spec.backbone} UNet",
        work=work,
    )


def _part(unet: nn.Module, name: str) -> nn.Module:
    try:
        return unet.get_submodule(name)
    except AttributeError as error:
        raise ValueError(f"frozen: the UNet has no module {name!r}") from error


def _loss(
    spec: BackboneSpec,
    stage: Stage,
    student: nn.Module,
    teacher: nn.Module,
    noise: Noise,
    data: Data,
    empty: torch.Tensor,
    device: torch.device,
) -> Callable[[int], torch.Tensor]:
    count = stage.optimisation.batch_size
    grid = noise.grid(stage.steps) if stage.steps else None

    def loss_of_step(step: int) -> torch.Tensor:
        generator = generator_for(stage.optimisation.seed, step)
        rows = torch.randint(len(data.latents), (count,), generator=generator)
        clean = data.latents[rows].to(device)
        random = torch.randn(clean.shape, generator=generator).to(device)
        dropped = torch.rand(count, generator=generator) < spec.empty_captions
        blind = torch.rand(count, generator=generator) < stage.blind_share
        if grid is None:
            t = torch.randint(noise.timesteps, (count,), generator=generator)
            t, to = torch.where(blind, noise.timesteps - 1, t), None
        else:
            place = torch.randint(stage.steps, (count,), generator=generator)
            place = torch.where(blind, 0, place)
            t, to = grid[place].to(device), grid[place + 1].to(device)
        t, seen = t.to(device), ~blind.to(device).view(-1, 1, 1, 1)
        alpha, sigma = noise.at(t)
        x = torch.where(seen, alpha * clean + sigma * random, random)
        text = data.text(rows).to(device)
        text = torch.where(dropped.to(device).view(-1, 1, 1), empty, text)
        with torch.no_grad():
            if to is None:
                target = implied_clean(
                    teacher, noise, x, t, text, empty, stage.guidance
                )
            else:
                target = two_steps(
                    teacher, noise, x, t, to, text, empty, stage.guidance
                )
        guess = implied_clean(student, noise, x, t, text, empty)
        weight = noise.weight(t, truncated=to is not None)
        return (weight * (guess - target).square()).mean()

    return loss_of_step


def text_features(
    encode: Callable[[Sequence[str]], torch.Tensor], prompts: Sequence[str]
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function that encodes the prompts of some rows."""

    def features(rows: torch.Tensor) -> torch.Tensor:
        return encode([prompts[row] for row in rows.tolist()])

    return features
