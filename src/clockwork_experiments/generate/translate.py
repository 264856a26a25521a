"""Translate images with conditional diffusion models: one loop for all tasks.

The tasks are those of Kim et al. 2024: editing (InstructPix2Pix), drawing along edges
(ControlNet), restoration (StableSR), inpainting and high-frequency synthesis; and
text-to-image, whose input images are blank and say how large the result is. They
differ in what the UNet is given and in guidance, and share everything else: the UNet is
asked at an explicit list of timesteps, and the clean image that it predicts at the last
of them is the output; no further step leads to timestep 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from clockwork_diffusion.clock import Clock
from clockwork_diffusion.encoding import Prompts
from clockwork_diffusion.passes import Memory, UNetPasses
from clockwork_diffusion.schedulers import SOLVERS, STOCHASTIC, scheduler_at
from clockwork_diffusion.timesteps import check_timesteps, uniform_timesteps
from clockwork_experiments.generate.tasks import (
    PROMPTED,
    Row,
    check_task,
    guidance_scales,
    guided_rows,
)
from clockwork_experiments.generate.text import draw_noise


@dataclass(frozen=True)
class TranslationSpec:
    """How images are translated.

    Attributes:
        task: A key of `clockwork_experiments.generate.tasks.TASKS`.
        steps: Number of sampling steps.
        guidance: Scale of guidance by the prompt, s_T.
        image_guidance: Scale of guidance by the input image, s_I; for edits.
        timesteps: The timesteps, descending, ``steps`` of them; uniform if left out.
        scheduler: A key of `clockwork_diffusion.schedulers.SOLVERS`.
        clock: Runs the whole UNet once in so many steps; 1 at every step.
        all_rows: Compute the rows that cancel too, such as that without the input
            image at s_I = 1, as the published code does. The same image for more.
    """

    task: str
    steps: int
    guidance: float = 1.0
    image_guidance: float = 1.0
    timesteps: tuple[int, ...] = ()
    scheduler: str = "ddim"
    clock: int = 1
    all_rows: bool = False

    def __post_init__(self) -> None:
        """Reject values that make no translation."""
        check_task(self.task)
        if self.scheduler not in SOLVERS:
            raise ValueError(
                f"scheduler {self.scheduler!r} is not one of {', '.join(SOLVERS)}"
            )
        Clock(self.clock).full_steps(self.steps)
        for name, tasks in (("guidance", PROMPTED), ("image_guidance", ("edit",))):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name} {value} is less than 1")
            if value != 1 and self.task not in tasks:
                raise ValueError(f"{name} {value} is for {', '.join(tasks)}")
        if self.timesteps and len(self.timesteps) != self.steps:
            raise ValueError(
                f"{len(self.timesteps)} timesteps are not {self.steps} steps"
            )
        if self.timesteps:
            check_timesteps(self.timesteps)

    @property
    def visited(self) -> tuple[int, ...]:
        """The timesteps that the UNet is asked about, descending."""
        return self.timesteps or uniform_timesteps(self.steps)

    @property
    def stochastic(self) -> bool:
        """Whether noise is drawn at every step, so that it takes generators."""
        return self.scheduler in STOCHASTIC

    @property
    def rows(self) -> tuple[Row, ...]:
        """What is computed per image and step: those rows that have a weight."""
        scales = (self.guidance, self.image_guidance)
        return guided_rows(self.task, *scales, all_rows=self.all_rows)

    @property
    def branches(self) -> int:
        """UNet samples per image and step: up to 3 for edits, 2 with guidance, or 1."""
        return len(self.rows)

    def guide(self, outputs: torch.Tensor) -> torch.Tensor:
        """Combine the rows' outputs, ``(branches * N, …)``, to ``(N, …)``.

        For edits ε(∅,∅) + s_T [ε(I,T) − ε(I,∅)] + s_I [ε(I,∅) − ε(∅,∅)].
        """
        parts = outputs.chunk(self.branches)
        if len(parts) == 3:
            neither, image, both = parts
            scale = self.image_guidance
            text = self.guidance * (both - image)
            return neither + text + scale * (image - neither)
        if len(parts) == 2:
            # Of two rows the weights sum to 1, whichever has cancelled.
            scale = guidance_scales(self.task, self.guidance, self.image_guidance)[-1]
            return parts[0] + scale * (parts[1] - parts[0])
        return parts[0]


# --- the loop -------------------------------------------------------------------------


Feed = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, dict[str, Any]]
]
"""``(x, t, text) → (what the UNet takes, its further arguments)``, for all rows."""


class Translator(Protocol):
    """A model for a task; see `clockwork_experiments.generate.translators`."""

    @property
    def task(self) -> str:
        """A key of `clockwork_experiments.generate.tasks.TASKS`."""

    @property
    def pipe(self) -> Any:
        """UNet, autoencoder, text encoder and scheduler."""

    def encode(
        self,
        prompts: Sequence[str],
        pool: Callable[[Sequence[str]], torch.Tensor] | None = None,
    ) -> Prompts:
        """Encode prompts; see `clockwork_diffusion.encoding.encode_prompts`."""

    def start(
        self, noise: torch.Tensor, images: torch.Tensor, timestep: int
    ) -> torch.Tensor:
        """Return the latents that sampling starts from at a timestep."""

    def feed(self, images: torch.Tensor, rows: Sequence[Row]) -> Feed:
        """Return what hands the UNet its inputs, given N images; rows come row-wise."""

    def noise_shape(self, images: torch.Tensor) -> tuple[int, int, int]:
        """Return the shape of one image's latents, ``(C, h, w)``."""

    def decode(self, latents: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Return uint8 images of latents, given the images they were made from."""


@torch.inference_mode()
def translate(
    translator: Translator,
    passes: UNetPasses,
    images: torch.Tensor,
    prompts: Prompts,
    noise: torch.Tensor,
    spec: TranslationSpec,
    on_step: Callable[[int, int, torch.Tensor], None] | None = None,
    generators: Sequence[torch.Generator] = (),
) -> torch.Tensor:
    """Denoise under the conditions that the input images and prompts set.

    Args:
        translator: The model.
        passes: Passes of its UNet, or of that UNet without its deep levels.
        images: Input images, uint8, ``(N, 3, H, W)``.
        prompts: Encoded prompts, N of them; only the empty one counts without prompts.
        noise: Starting noise, ``(N, C, h, w)``, unit variance.
        spec: How to translate.
        on_step: Called after each step with its index from 0, its timestep, and the
            latents that it yields.
        generators: Of each image's noise, if the scheduler draws any; see
            `clockwork_experiments.generate.text.step_generators`.

    Returns:
        Latents, ``(N, C, h, w)``, scaled as the UNet sees them.

    Raises:
        ValueError: If the translator is for another task, the clock needs an adaptor,
            the model lacks a timestep, numbers or sizes do not fit, or noise is to be
            drawn and there is not a generator for each image.
    """
    if spec.task != translator.task:
        raise ValueError(f"a translator for {translator.task} does no {spec.task}")
    wanted = (len(images), *translator.noise_shape(images))
    if tuple(noise.shape) != wanted or len(prompts) != len(images):
        raise ValueError(
            f"noise {tuple(noise.shape)} and {len(prompts)} prompts do not fit "
            f"{len(images)} images, whose latents are {wanted}"
        )
    if spec.stochastic and len(generators) != len(images):
        raise ValueError(
            f"scheduler {spec.scheduler!r} draws noise at every step: "
            f"{len(generators)} generators are not one for each of {len(images)} images"
        )
    clock, memory = Clock(spec.clock), Memory()
    passes.check(clock)
    config = translator.pipe.scheduler.config
    scheduler = scheduler_at(spec.scheduler, config, spec.visited)
    rows, unet = spec.rows, passes.unet
    text, pooled = _conditions(prompts, rows)
    feed = translator.feed(images, rows)
    latents = translator.start(noise, images, spec.visited[0])
    latents = latents.to(unet.device, unet.dtype)
    for index, timestep in enumerate(scheduler.timesteps):
        x = scheduler.scale_model_input(torch.cat([latents] * len(rows)), timestep)
        x, further = feed(x, timestep, text)
        step = memory.run(passes, clock, index, x, timestep, text, pooled, **further)
        drawn = draw_noise(generators, wanted[1:]) if spec.stochastic else None
        latents = scheduler.step(
            spec.guide(step.eps),
            timestep,
            latents,
            variance_noise=drawn,
            return_dict=False,
        )[0]
        if on_step is not None:
            on_step(index, int(timestep), latents)
    return latents


def _conditions(
    prompts: Prompts, rows: Sequence[Row]
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return text features and pooled embeddings, row by row."""
    empty = prompts.empty.expand_as(prompts.text)
    text = torch.cat([prompts.text if row.text else empty for row in rows])
    if prompts.pooled is None or prompts.empty_pooled is None:
        return text, None
    none = prompts.empty_pooled.expand_as(prompts.pooled)
    return text, torch.cat([prompts.pooled if row.text else none for row in rows])
