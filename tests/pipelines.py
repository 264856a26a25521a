"""Small random pipelines of diffusers, one of each kind, and how each is called."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    StableDiffusionAdapterPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    T2IAdapter,
    TCDScheduler,
    UNet2DConditionModel,
)
from PIL import Image
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from clockwork_experiments.mini.language import build_tokenizer

SIZE = 32
"""Pixels, and latents half of that."""

PROMPT = "a red ring on the sea"
NOISE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}
SD_UNET: dict[str, Any] = {
    "sample_size": SIZE // 2,
    "block_out_channels": (8, 16, 16, 16),
    "layers_per_block": 2,
    "cross_attention_dim": 16,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}
SDXL_UNET: dict[str, Any] = {
    **SD_UNET,
    "block_out_channels": (8, 16, 16),
    "down_block_types": (
        "DownBlock2D",
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
    ),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 1, 2),
    "use_linear_projection": True,
    "cross_attention_dim": 32,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 6 * 4 + 16,
}


@dataclass(frozen=True)
class Kind:
    """A kind of pipeline.

    Attributes:
        name: As the matrix has it.
        build: Returns a pipeline.
        given: Arguments of a call beside the prompt.
        steps: ``num_inference_steps`` of a call.
    """

    name: str
    build: Callable[[], Any]
    given: dict[str, Any] = field(default_factory=dict)
    steps: int = 4

    def call(self, pipe: Any) -> torch.Tensor:
        """Return the latents that a call makes."""
        given = {"guidance_scale": 3.0, **self.given}
        with torch.random.fork_rng():
            torch.manual_seed(0)  # some schedulers draw without a generator
            output = pipe(
                PROMPT,
                num_inference_steps=self.steps,
                generator=torch.Generator().manual_seed(0),
                output_type="latent",
                **given,
            )
        return output.images


@functools.cache
def _tokenizer() -> Any:
    return build_tokenizer([PROMPT, "a blue square"])


def _text(kind: type, width: int = 16) -> Any:
    tokenizer = _tokenizer()
    return kind(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=16,
            projection_dim=width,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    ).eval()


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        force_upcast=False,
    )


def _unet(**config: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(**config).eval()


def sd(
    kind: type = StableDiffusionPipeline,
    scheduler: Any = None,
    *,
    unet: dict[str, Any] | None = None,
    **more: Any,
) -> Any:
    """Return a pipeline around a UNet of SD 1.x's topology."""
    torch.manual_seed(4)
    made = kind(
        vae=_vae(),
        text_encoder=_text(CLIPTextModel),
        tokenizer=_tokenizer(),
        unet=_unet(**{**SD_UNET, **(unet or {})}),
        scheduler=scheduler or DPMSolverMultistepScheduler(**NOISE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        **more,
    )
    made.set_progress_bar_config(disable=True)
    return made


def sdxl(kind: type = StableDiffusionXLPipeline, **more: Any) -> Any:
    """Return a pipeline around a UNet of SDXL's topology."""
    torch.manual_seed(4)
    made = kind(
        vae=_vae(),
        text_encoder=_text(CLIPTextModel),
        text_encoder_2=_text(CLIPTextModelWithProjection),
        tokenizer=_tokenizer(),
        tokenizer_2=_tokenizer(),
        unet=_unet(**SDXL_UNET),
        scheduler=DPMSolverMultistepScheduler(**NOISE),
        add_watermarker=False,
        **more,
    )
    made.set_progress_bar_config(disable=True)
    return made


def _controlled(make: Callable[..., Any], kind: type, unet: dict[str, Any]) -> Any:
    torch.manual_seed(5)
    control = ControlNetModel.from_unet(
        _unet(**unet), conditioning_embedding_out_channels=(8, 16)
    )
    with torch.no_grad():
        # Untrained residuals are zero and would test nothing.
        for parameter in control.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return make(kind, controlnet=control.eval())


def with_ip_adapter() -> Any:
    """Return a pipeline with an IP-Adapter."""
    torch.manual_seed(6)
    encoder = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=16,
            projection_dim=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=SIZE,
            patch_size=16,
        )
    )
    pipe = sd(image_encoder=encoder)
    unet, width, weights, number = pipe.unet, 16, {}, 1
    for name in unet.attn_processors:
        if name.endswith("attn2.processor"):
            module = unet.get_submodule(name.removesuffix(".processor"))
            shape = (module.to_k.out_features, width)
            for part in ("to_k_ip", "to_v_ip"):
                weights[f"{number}.{part}.weight"] = 0.2 * torch.randn(shape)
            number += 2
    image_proj = {
        "proj.weight": 0.2 * torch.randn(4 * width, 16),
        "proj.bias": torch.zeros(4 * width),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }
    pipe.load_ip_adapter(
        {"image_proj": image_proj, "ip_adapter": weights}, subfolder="", weight_name=""
    )
    return pipe


def _picture() -> Image.Image:
    return Image.new("RGB", (SIZE, SIZE), (200, 40, 90))


def _mask() -> Image.Image:
    mask = Image.new("L", (SIZE, SIZE), 0)
    mask.paste(255, (8, 8, 24, 24))
    return mask


def _hint() -> torch.Tensor:
    return torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


IMAGE = {"image": _picture(), "strength": 0.8}
MASKED = {**IMAGE, "mask_image": _mask(), "height": SIZE, "width": SIZE}
FEW = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}

KINDS = (
    Kind("Stable Diffusion 1.x", sd),
    Kind(
        "Stable Diffusion 2.x (v-prediction, zero terminal SNR)",
        lambda: sd(
            unet={"use_linear_projection": True, "attention_head_dim": (1, 2, 2, 2)},
            scheduler=DDIMScheduler(**NOISE, **FEW, prediction_type="v_prediction"),
        ),
    ),
    Kind("image to image", lambda: sd(StableDiffusionImg2ImgPipeline), IMAGE, 5),
    Kind("inpainting", lambda: sd(StableDiffusionInpaintPipeline), MASKED, 5),
    Kind(
        "inpainting, nine channels",
        lambda: sd(StableDiffusionInpaintPipeline, unet={"in_channels": 9}),
        MASKED,
        5,
    ),
    Kind(
        "InstructPix2Pix",
        lambda: sd(StableDiffusionInstructPix2PixPipeline, unet={"in_channels": 8}),
        {"image": _picture(), "image_guidance_scale": 1.5},
    ),
    Kind(
        "ControlNet",
        lambda: _controlled(sd, StableDiffusionControlNetPipeline, SD_UNET),
        {"image": _hint()},
    ),
    Kind("IP-Adapter", with_ip_adapter, {"ip_adapter_image": _picture()}),
    Kind(
        "LCM",
        lambda: sd(
            LatentConsistencyModelPipeline,
            LCMScheduler(**NOISE),
            unet={"time_cond_proj_dim": 32},
        ),
    ),
    Kind(
        "Hyper-SD (TCD scheduler, no guidance)",
        lambda: sd(scheduler=TCDScheduler(**NOISE)),
        {"guidance_scale": 0.0},
    ),
    Kind("SDXL", sdxl),
    Kind(
        "SDXL, image to image", lambda: sdxl(StableDiffusionXLImg2ImgPipeline), IMAGE, 5
    ),
    Kind("SDXL, inpainting", lambda: sdxl(StableDiffusionXLInpaintPipeline), MASKED, 5),
    Kind(
        "SDXL, ControlNet",
        lambda: _controlled(sdxl, StableDiffusionXLControlNetPipeline, SDXL_UNET),
        {"image": _hint()},
    ),
    Kind(
        "T2I-Adapter",
        lambda: sd(
            StableDiffusionAdapterPipeline,
            adapter=T2IAdapter(
                channels=(8, 16, 16, 16), num_res_blocks=1, downscale_factor=2
            ),
        ),
        {"image": _picture()},
    ),
)
"""Every kind of pipeline that the support matrix has a row of."""
