"""Translate images by diffusers' pipelines and StableSR's, all tasks alike.

The tasks are those of Kim et al. 2024: editing (InstructPix2Pix), drawing along edges
(ControlNet), restoration (StableSR), inpainting and high-frequency synthesis; and
text-to-image, whose input images are blank and say how large the result is. The UNet is
asked at an explicit list of timesteps, and the clean image that it predicts at the last
of them is the output; no further step leads to timestep 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler

from clockwork_diffusion.clock import Clock
from clockwork_diffusion.encoding import decode_latents, decode_pixels, to_bytes
from clockwork_diffusion.finite import after_each_step
from clockwork_diffusion.schedulers import new_scheduler, visiting
from clockwork_diffusion.timesteps import check_timesteps, uniform_timesteps
from clockwork_experiments.generate.tasks import (
    JOINED,
    PROMPTED,
    check_task,
    guided_rows,
)
from clockwork_experiments.generate.text import generators, sampling_by

SOLVERS: dict[str, dict[str, Any]] = {
    "ddim": {"solver_order": 1},
    "dpmpp": {"solver_order": 2},
    "ddim_stochastic": {"solver_order": 1, "algorithm_type": "sde-dpmsolver++"},
}
"""Settings of the solver by name.

Multistep DPM-Solver++ of first order is DDIM with η = 0, and its SDE variant of first
order is DDIM with η = 1, which puts in noise at every step but the last.

What the latter yields is a draw, not a function of the starting noise: move a timestep,
and the same noises lead elsewhere. So it must not be the reference of a search for
timesteps, nor be searched by PSNR; either would measure the luck of the draw.
"""


@dataclass(frozen=True)
class TranslationSpec:
    """How images are translated.

    Attributes:
        task: A key of `clockwork_experiments.generate.tasks.TASKS`.
        steps: Number of sampling steps.
        guidance: Scale of guidance by the prompt, s_T.
        image_guidance: Scale of guidance by the input image, s_I; for edits.
        timesteps: The timesteps, descending, ``steps`` of them; uniform if left out.
        scheduler: A key of `SOLVERS`.
        clock: Runs the whole UNet once in so many steps; 1 at every step.
        from_noise: Restoration starts from noise alone.
        fidelity: Weight of the input's features in its decoder, 0 to 1; the model's own
            if left out.
    """

    task: str
    steps: int
    guidance: float = 1.0
    image_guidance: float = 1.0
    timesteps: tuple[int, ...] = ()
    scheduler: str = "ddim"
    clock: int = 1
    from_noise: bool = False
    fidelity: float | None = None

    def __post_init__(self) -> None:
        """Reject values that make no translation."""
        check_task(self.task)
        if self.scheduler not in SOLVERS:
            raise ValueError(
                f"scheduler {self.scheduler!r} is not one of {', '.join(SOLVERS)}"
            )
        Clock(self.clock).full_steps(self.steps)
        given = self.from_noise or self.fidelity is not None
        if given and self.task != "restoration":
            raise ValueError("from_noise and fidelity are for restoration")
        for name, tasks in (("guidance", PROMPTED), ("image_guidance", ("edit",))):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name} {value} is less than 1")
            if value != 1 and self.task not in tasks:
                raise ValueError(f"{name} {value} is for {', '.join(tasks)}")
        if self.image_guidance != 1 and self.guidance == 1:
            # diffusers' pipeline would leave it out without a word.
            raise ValueError(
                f"image_guidance {self.image_guidance} needs a guidance above 1"
            )
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
    def branches(self) -> int:
        """UNet samples per image and step: 3 for a guided edit, 2 if guided, or 1."""
        return guided_rows(self.task, self.guidance)


@dataclass(frozen=True)
class Translator:
    """A model for a task, as one of diffusers' pipelines or StableSR's.

    Attributes:
        task: A key of `clockwork_experiments.generate.tasks.TASKS`.
        pipe: The pipeline; `clockwork_diffusion` may be applied to it.
        fidelity: Weight of the input's features in StableSR's decoder, 0 to 1.
    """

    task: str
    pipe: Any
    fidelity: float = 0.0

    def latent_shape(self, images: torch.Tensor) -> tuple[int, int, int]:
        """Return the shape of one image's latents, ``(C, h, w)``.

        Args:
            images: uint8, ``(N, 3, H, W)``.

        Raises:
            ValueError: If the images are none, or too small for the UNet's lowest
                resolution, or a side is not whole latents.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(
                f"images are {images.dtype} {tuple(images.shape)}, "
                "not uint8 (N, 3, H, W)"
            )
        height, width = images.shape[2:]
        vae, unet = self.pipe.vae.config, self.pipe.unet.config
        factor = 2 ** (len(vae.block_out_channels) - 1)
        least = factor * 2 ** (len(unet.block_out_channels) - 1)
        if min(height, width) < least:
            raise ValueError(
                f"images are {width}×{height} pixels, and the model needs "
                f"{least}×{least} or more"
            )
        if height % factor or width % factor:
            raise ValueError(
                f"images are {width}×{height} pixels, and the model needs multiples of "
                f"{factor}"
            )
        return vae.latent_channels, height // factor, width // factor

    @torch.inference_mode()
    def translate(
        self,
        images: torch.Tensor,
        prompts: Sequence[str],
        seeds: Sequence[int],
        spec: TranslationSpec,
    ) -> torch.Tensor:
        """Denoise under the conditions that the input images and prompts set.

        Args:
            images: Input images, uint8, ``(N, 3, H, W)``; for ``text`` only their size
                counts.
            prompts: N prompts; the empty one stands for all where the task has none.
            seeds: Of each image's noise.
            spec: How to translate; its clock is the method's, which is applied already.

        Returns:
            Latents, ``(N, C, h, w)``, scaled as the UNet sees them.

        Raises:
            ValueError: If the model is for another task, lacks a timestep, or numbers
                or sizes do not fit; a `NotFiniteError` if latents are not finite.
        """
        if spec.task != self.task:
            raise ValueError(f"a translator for {self.task} does no {spec.task}")
        if not len(images) == len(prompts) == len(seeds):
            raise ValueError(
                f"{len(images)} images, {len(prompts)} prompts and {len(seeds)} seeds "
                "are not one of each"
            )
        self.latent_shape(images)
        given: dict[str, Any] = {
            "num_inference_steps": spec.steps,
            "generator": generators(seeds),
            "output_type": "latent",
        }
        if self.task == "restoration":
            given["from_noise"] = spec.from_noise
        else:
            # StableSR's pipeline checks its latents itself.
            given["callback_on_step_end"] = after_each_step
        if self.task in PROMPTED:
            given |= {"prompt": list(prompts), "guidance_scale": spec.guidance}
        elif self.task in JOINED:
            # InstructPix2Pix without guidance joins the latents of the input.
            given |= {"prompt": [""] * len(images), "guidance_scale": 1.0}
        if self.task == "edit":
            given["image_guidance_scale"] = spec.image_guidance
        if self.task == "text":
            given["height"], given["width"] = images.shape[2:]
        else:
            given["image"] = images.float() / 255
        own = new_scheduler("dpmpp", self.pipe.scheduler.config, spec.steps).config
        settings = {**SOLVERS[spec.scheduler], "thresholding": False}
        solver = DPMSolverMultistepScheduler.from_config(own, **settings)
        with sampling_by(self.pipe, visiting(solver, spec.visited)):
            latents: torch.Tensor = self.pipe(**given).images
        return latents

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Decode latents to uint8 images, ``(N, 3, H, W)``, on the CPU.

        Args:
            latents: What `translate` returned.
            images: The input images; StableSR's decoder takes features and colours of
                them.
        """
        if self.task != "restoration":
            return decode_latents(self.pipe, latents)
        return to_bytes(self._restored(latents, images)).cpu()

    @torch.no_grad()
    def decode_pixels(
        self, latents: torch.Tensor, images: torch.Tensor
    ) -> torch.Tensor:
        """Decode latents to pixels from 0 to 1; see `decode`."""
        if self.task != "restoration":
            return decode_pixels(self.pipe, latents)
        return self._restored(latents, images).cpu()

    def _restored(self, latents: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        pixels = self.pipe.decode(latents, images.float() / 127.5 - 1, self.fidelity)
        shown: torch.Tensor = (pixels / 2 + 0.5).clamp(0, 1)
        return shown
