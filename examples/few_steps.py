"""A model distilled to few steps, with a clock on top.

By default the shipped one; with a real one, its LoRA for four steps and its scheduler:

    python examples/few_steps.py
    python examples/few_steps.py latent-consistency/lcm-lora-sdv1-5
"""

import argparse
from pathlib import Path

import torch
from diffusers import LCMScheduler, StableDiffusionPipeline

from clockwork_diffusion import clockwork

MINI = "resources/mini/distilled"  # fewer steps, and no guidance
BASE = "stable-diffusion-v1-5/stable-diffusion-v1-5"

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("lora", nargs="?", help="a LoRA of SD v1.5 for few steps")
args = parser.parse_args()

if args.lora:
    pipe = StableDiffusionPipeline.from_pretrained(BASE, dtype=torch.float32)
    pipe.load_lora_weights(args.lora)
    pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
else:  # of the shipped one only what its teacher has not is stored
    from clockwork_experiments.models.loading import load_pipeline

    pipe = load_pipeline(Path(MINI))
pipe.to("cuda" if torch.cuda.is_available() else "cpu")

for clock in (1, 2):  # 1 is no clock: every step is full
    with clockwork(pipe, clock) as summary:
        image = pipe(
            "a red ring on the sea",
            num_inference_steps=4,
            guidance_scale=1.0,
            generator=torch.Generator().manual_seed(0),
        ).images[0]
    image.save(f"clock{clock}.png")
    print(summary)
