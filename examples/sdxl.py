"""SDXL with a clock. By default a tiny SDXL with RANDOM weights: it shows noise.

python examples/sdxl.py
python examples/sdxl.py stabilityai/stable-diffusion-xl-base-1.0
"""

import argparse

import torch
import transformers
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)

from clockwork_diffusion import clockwork


def tiny():
    """Return an SDXL of the real topology, small and with random weights."""
    torch.manual_seed(0)
    mini = "resources/mini/stable-diffusion/tokenizer"
    words = transformers.AutoTokenizer.from_pretrained(mini)
    text = transformers.CLIPTextConfig(
        **dict.fromkeys(("hidden_size", "intermediate_size", "projection_dim"), 16),
        **dict.fromkeys(("num_hidden_layers", "num_attention_heads"), 2),
        vocab_size=len(words),
        **{key: getattr(words, key) for key in ("bos_token_id", "eos_token_id")},
    )
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(8, 16, 16),
        down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * 2),
        up_block_types=(*("CrossAttnUpBlock2D",) * 2, "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        cross_attention_dim=32,
        attention_head_dim=(2, 4, 4),
        norm_num_groups=4,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=64,
    )
    vae = AutoencoderKL(norm_num_groups=4, block_out_channels=(8,))
    one = transformers.CLIPTextModel(text)
    two = transformers.CLIPTextModelWithProjection(text)
    parts = vae, one, two, words, words, unet, EulerDiscreteScheduler()
    return StableDiffusionXLPipeline(*parts)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model", nargs="?")
args = parser.parse_args()
pipe = StableDiffusionXLPipeline.from_pretrained(args.model) if args.model else tiny()
pipe.to("cuda" if torch.cuda.is_available() else "cpu")
with clockwork(pipe, clock=2) as summary:
    image = pipe("a red ring on the sea", num_inference_steps=8).images[0]
image.save("sdxl.png")
print(summary)
