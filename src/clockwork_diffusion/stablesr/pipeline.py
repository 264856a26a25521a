"""StableSR: restore a low-quality image with a text-to-image model.

The low-quality image, brought to the size of the result, enters in three places: its
latents, noised, are where sampling starts; their structure steers the UNet at each step
(`structure_encoder`, `spade`); its features correct the decoder (`cfw`). The prompt is
empty and there is no guidance. Last, the result takes on the colours of the low-quality
image (`colour_fix`).

`StableSRPipeline` offers these pieces one by one, for samplers of one's own, and puts
them together with deterministic DDIM.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor
from transformers import CLIPTextModel, CLIPTokenizer

from clockwork_diffusion.finite import check_finite, step_name
from clockwork_diffusion.schedulers import AtTimesteps, visiting
from clockwork_diffusion.stablesr.cfw import CFWAutoencoder
from clockwork_diffusion.stablesr.colour_fix import fix_colours
from clockwork_diffusion.stablesr.spade import SpadeUNet
from clockwork_diffusion.stablesr.structure_encoder import StructureEncoder
from clockwork_diffusion.timesteps import uniform_timesteps

STEPS = 50
"""Of the paper's reference."""

FIDELITY = 0.5
"""Fidelity weight w of the official script."""


class StableSRPipeline(DiffusionPipeline):  # type: ignore[misc]
    """Restores images; a pipeline folder like any of diffusers'."""

    model_cpu_offload_seq = "text_encoder->structure_encoder->unet->vae"

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: SpadeUNet,
        structure_encoder: StructureEncoder,
        scheduler: DDIMScheduler,
        upscale: int = 4,
    ) -> None:
        """Put the parts together.

        Args:
            vae: The autoencoder; a `CFWAutoencoder`, or a plain one that can only
                decode at fidelity weight 0.
            text_encoder: Encodes the empty prompt.
            tokenizer: Of the text encoder.
            unet: The UNet, whole or cut.
            structure_encoder: Gives the UNet's SPADE layers their structure.
            scheduler: Any scheduler; its configuration holds the noise schedule and
                what the UNet predicts.
            upscale: How many times larger the result is than the low-quality image.
        """
        super().__init__()
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            structure_encoder=structure_encoder,
            scheduler=scheduler,
        )
        self.register_to_config(upscale=upscale)
        factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.image_processor = VaeImageProcessor(
            vae_scale_factor=factor, do_resize=False
        )

    @property
    def smallest(self) -> int:
        """The least height and width of a result, in pixels."""
        levels = len(self.structure_encoder.config.block_out_channels)
        return int(self.image_processor.config.vae_scale_factor * 2 ** (levels - 1))

    # --- pieces ------------------------------------------------------------------

    def enlarge(self, images: torch.Tensor) -> torch.Tensor:
        """Bring low-quality images to the size of the result.

        Args:
            images: ``(N, 3, h, w)`` in [-1, 1].

        Raises:
            ValueError: If the result would be smaller than the model's minimum, or not
                made of whole latents.
        """
        upscale, factor = self.config.upscale, self.image_processor.config
        if upscale != 1:
            images = F.interpolate(
                images.float(), scale_factor=upscale, mode="bicubic", antialias=False
            ).clamp(-1, 1)
        height, width = images.shape[2:]
        if min(height, width) < self.smallest:
            raise ValueError(
                f"an image of {width // upscale}x{height // upscale} is too small for "
                f"StableSR: at least {-(-self.smallest // upscale)} pixels a side"
            )
        if height % factor.vae_scale_factor or width % factor.vae_scale_factor:
            raise ValueError(
                f"a result of {width}x{height} pixels is not made of whole latents of "
                f"{factor.vae_scale_factor} pixels"
            )
        return images

    def encode(
        self, lq_image: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Return the scaled latents of a low-quality image of the result's size.

        Args:
            lq_image: ``(N, 3, H, W)`` in [-1, 1].
            generator: To draw from the latents' distribution, as the official script
                does; without it, their mean.
        """
        image = lq_image.to(self.vae.device, self.vae.dtype)
        found = self.vae.encode(image).latent_dist
        latents = found.mean if generator is None else found.sample(generator)
        scaled: torch.Tensor = latents * self.vae.config.scaling_factor
        return scaled

    def empty_prompt(self, count: int) -> torch.Tensor:
        """Return the text features of the empty prompt, ``(count, L, D)``."""
        tokens = self.tokenizer(
            "",
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            return_tensors="pt",
        )
        ids = tokens.input_ids.to(self.text_encoder.device)
        text: torch.Tensor = self.text_encoder(ids)[0]
        return text.to(self.unet.dtype).expand(count, -1, -1)

    def structure_of(
        self, lq_latents: torch.Tensor, t: torch.Tensor | float
    ) -> dict[int, torch.Tensor]:
        """Return the structure that the UNet takes at a timestep.

        Args:
            lq_latents: Scaled latents of the low-quality image, ``(N, C, h, w)``.
            t: Timestep, a scalar or ``(N,)``.
        """
        structure: dict[int, torch.Tensor] = self.structure_encoder(lq_latents, t)
        return structure

    def start(
        self,
        lq_latents: torch.Tensor,
        noise: torch.Tensor,
        timestep: int | None = None,
    ) -> torch.Tensor:
        """Return where sampling starts: the low-quality latents with noise.

        Args:
            lq_latents: Scaled latents of the low-quality image, ``(N, C, h, w)``.
            noise: Of the same shape.
            timestep: The first timestep of the sampling; the schedule's last if left
                out.
        """
        share = self.scheduler.alphas_cumprod[-1 if timestep is None else timestep]
        alpha, sigma = share.sqrt(), (1 - share).sqrt()
        return alpha.to(lq_latents) * lq_latents + sigma.to(noise) * noise

    def decode(
        self,
        latents: torch.Tensor,
        lq_image: torch.Tensor,
        w: float = FIDELITY,
        colour_fix: str = "adain",
    ) -> torch.Tensor:
        """Return the restored image, ``(N, 3, H, W)`` in [-1, 1].

        Args:
            latents: Scaled clean latents, ``(N, C, h, w)``.
            lq_image: The low-quality image, of the result's size, in [-1, 1].
            w: Fidelity weight, 0 to 1; 0 is the plain decoder.
            colour_fix: One of `clockwork_diffusion.stablesr.colour_fix.COLOUR_FIXES`.

        Raises:
            ValueError: If the autoencoder has no CFW and w is not 0.
        """
        vae = self.vae
        latents = latents.to(vae.dtype) / vae.config.scaling_factor
        reference = lq_image.to(vae.device, vae.dtype)
        if not w:
            images = vae.decode(latents).sample
        elif isinstance(vae, CFWAutoencoder):
            _, features = vae.encode_with_features(reference)
            images = vae.decode_with_features(latents, features, w)
        else:
            raise ValueError(
                f"fidelity weight {w} needs a CFW decoder, and this autoencoder is a "
                f"plain {type(vae).__name__}: 0 is allowed"
            )
        check_finite(images, "decoded pixels")
        return fix_colours(images, reference, colour_fix).clamp(-1, 1)

    # --- all in one --------------------------------------------------------------

    @torch.no_grad()
    def __call__(
        self,
        image: Any,
        num_inference_steps: int = STEPS,
        *,
        fidelity_weight: float = FIDELITY,
        colour_fix: str = "adain",
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        from_noise: bool = False,
        unet_arguments: Mapping[str, Any] | None = None,
    ) -> ImagePipelineOutput:
        """Restore images with deterministic DDIM.

        Args:
            image: Low-quality images: PIL, arrays or tensors, as diffusers' pipelines
                take them.
            num_inference_steps: Steps, evenly spaced over the noise schedule; those of
                a scheduler of `visiting` are its own. The result is the clean image
                that the last one predicts.
            fidelity_weight: w of the decoder, 0 to 1.
            colour_fix: One of `clockwork_diffusion.stablesr.colour_fix.COLOUR_FIXES`.
            generator: For the noise.
            output_type: ``pil``, ``np``, ``pt``, or ``latent`` for scaled latents.
            from_noise: Start from noise alone, as the official DDPM script and Kim et
                al.'s code do; else from the noised low-quality latents.
            unet_arguments: Further arguments for each of the UNet's passes.

        Raises:
            ValueError: If an image is too small, or there are more steps than
                timesteps.
        """
        low = self.enlarge(self.image_processor.preprocess(image))
        low = low.to(self._execution_device)
        scheduler = self.scheduler
        if not isinstance(scheduler, AtTimesteps):
            scheduler = visiting(scheduler, uniform_timesteps(num_inference_steps))
        scheduler.set_timesteps(num_inference_steps, device=low.device)
        lq_latents = self.encode(low).to(self.unet.dtype)
        noise = randn_tensor(
            lq_latents.shape,
            generator=generator,
            device=lq_latents.device,
            dtype=lq_latents.dtype,
        )
        text = self.empty_prompt(len(low))
        x = noise
        if not from_noise:
            x = self.start(lq_latents, noise, int(scheduler.timesteps[0]))
        drawn = {}
        if "generator" in inspect.signature(scheduler.step).parameters:
            drawn["generator"] = generator
        for index, t in enumerate(self.progress_bar(scheduler.timesteps)):
            structure = self.structure_of(lq_latents, t)
            predicted = self.unet(
                x, t, text, structure=structure, **(unet_arguments or {})
            ).sample
            x = scheduler.step(predicted, t, x, **drawn, return_dict=False)[0]
            check_finite(x, step_name(index, t))
        if output_type == "latent":
            return ImagePipelineOutput(x)
        images = self.decode(x, low, fidelity_weight, colour_fix)
        return ImagePipelineOutput(
            self.image_processor.postprocess(images, output_type)
        )
