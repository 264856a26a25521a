"""Edit an image with any Stable Diffusion pipeline, with or without a clock.

The whole of Plug-and-Play in one call; its parts are `editing` and `injection`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from clockwork_diffusion.adaptors import build_adaptor
from clockwork_diffusion.contract import cut_of
from clockwork_diffusion.encoding import decode_latents, encode_images, encode_prompts
from clockwork_diffusion.passes import Passes
from clockwork_diffusion.plug_and_play.loops import (
    GenerationSpec,
    InversionSpec,
    check_timesteps,
    ddim_timesteps,
    edit,
    encode_edits,
    invert,
)
from clockwork_diffusion.unet import SplitUNet


def edit_image(
    pipe: StableDiffusionPipeline,
    image: Image.Image,
    source_prompt: str,
    target_prompts: str | Sequence[str],
    inversion: InversionSpec | None = None,
    generation: GenerationSpec | None = None,
    *,
    adaptor: Any = None,
    inversion_adaptor: Any = None,
    pool: Callable[[Sequence[str]], torch.Tensor] | None = None,
    spill: Path | None = None,
) -> list[Image.Image]:
    """Edit one image towards several prompts; the pipeline stays as it is.

    Args:
        pipe: A Stable Diffusion pipeline.
        image: RGB, as large as the pipeline's images.
        source_prompt: What it shows.
        target_prompts: What it should become; one prompt, or several.
        inversion: How to invert; 50 steps if left out.
        generation: How to generate; 50 steps with Table S4's values if left out.
        adaptor: Adaptor of a clocked generation; the identity if left out.
        inversion_adaptor: Adaptor of a clocked inversion; the identity if left out.
        pool: For learned adaptors: maps texts to pooled embeddings, ``(N, P)``.
        spill: Folder for kept activations, if memory should not hold them; 682 MB at SD
            v1.5's size, 50 steps and fp16. They stay there.

    Returns:
        An image per target prompt.

    Raises:
        ValueError: If the pipeline's UNet is told more than a prompt, as SDXL's or an
            editing model's, the image has another mode or size, there is no target
            prompt, or inversion keeps no latent for a timestep of generation.

    >>> import torch
    >>> from diffusers import StableDiffusionPipeline
    >>> mini = "resources/mini/stable-diffusion"
    >>> pipe = StableDiffusionPipeline.from_pretrained(mini, dtype=torch.float32)
    >>> from PIL import Image
    >>> from clockwork_diffusion.plug_and_play.loops import (
    ...     GenerationSpec,
    ...     InversionSpec,
    ... )
    >>> photo = Image.new("RGB", (64, 64), "blue")
    >>> few = InversionSpec(4), GenerationSpec(4, 2.0, 0.8, 0.5)
    >>> len(edit_image(pipe, photo, "a blue ring", "a red ring", *few))
    1
    """
    _check_unet(pipe)
    inversion = inversion or InversionSpec(50)
    generation = generation or GenerationSpec(50, 15.0, 0.8, 0.5)
    side = pipe.unet.config.sample_size * pipe.vae_scale_factor
    if image.mode != "RGB" or image.size != (side, side):
        raise ValueError(
            f"the image is {image.mode}, {image.width}×{image.height}, not RGB, "
            f"{side}×{side}"
        )
    if isinstance(target_prompts, str):
        target_prompts = [target_prompts]
    if not target_prompts:
        raise ValueError("there is no target prompt")
    config = pipe.scheduler.config
    check_timesteps(
        ddim_timesteps(config, inversion.steps),
        ddim_timesteps(config, generation.steps),
    )
    inverting, generating = (
        Passes(SplitUNet(pipe.unet, cut_of(given) or "stage1"))
        if clock == 1
        else _clocked(pipe, given)
        for clock, given in (
            (inversion.clock, inversion_adaptor),
            (generation.clock, adaptor),
        )
    )
    source = invert(
        inverting,
        config,
        encode_images(pipe.vae, _pixels(image)),
        encode_prompts(pipe, [source_prompt], pool),
        inversion,
    )
    prompts = encode_edits(pipe, target_prompts, generation.negative_prompt, pool)
    rows = [0] * len(target_prompts)
    latents = edit(generating, config, source, prompts, generation, rows, spill)
    return [
        Image.fromarray(edited.permute(1, 2, 0).numpy())
        for edited in decode_latents(pipe, latents)
    ]


def _check_unet(pipe: Any) -> None:
    """Refuse a pipeline whose UNet needs more than latents, a timestep and a prompt."""
    config = pipe.unet.config
    channels = pipe.vae.config.latent_channels
    told = {
        "sizes and a pooled prompt": config.addition_embed_type is not None,
        "its guidance": config.time_cond_proj_dim is not None,
        f"{config.in_channels} channels": config.in_channels != channels,
    }
    more = [name for name, found in told.items() if found]
    if more:
        raise ValueError(
            "Plug-and-Play is for text-to-image pipelines of SD 1.x and 2.x, and the "
            f"UNet of this {type(pipe).__name__} is given {' and '.join(more)}"
        )


def _pixels(image: Image.Image) -> torch.Tensor:
    """Return an image as uint8, ``(1, 3, H, W)``."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]


def _clocked(pipe: StableDiffusionPipeline, adaptor: Any) -> Passes:
    if adaptor is None:
        adaptor = build_adaptor("identity", pipe.unet, "stage1", 1)
    passes = Passes(SplitUNet(pipe.unet, cut_of(adaptor) or "stage1"), adaptor)
    passes.match(pipe.unet.dtype, pipe.unet.device)
    return passes
