"""Stable Diffusion with and without a clock: two pictures, and what it saved.

python examples/stable_diffusion.py
python examples/stable_diffusion.py stable-diffusion-v1-5/stable-diffusion-v1-5
"""

import argparse

import torch
from diffusers import StableDiffusionPipeline

from clockwork_diffusion import clockwork

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model", nargs="?", default="resources/mini/stable-diffusion")
parser.add_argument("--prompt", default="a red ring on the sea")
parser.add_argument("--steps", type=int, default=8)
parser.add_argument("--clock", type=int, default=2)
args = parser.parse_args()

device = "cuda" if torch.cuda.is_available() else "cpu"
pipe = StableDiffusionPipeline.from_pretrained(
    args.model, dtype=torch.float16 if device == "cuda" else torch.float32
).to(device)


def sample():
    """Return the picture of one seed, the same with and without the clock."""
    return pipe(
        args.prompt,
        num_inference_steps=args.steps,
        generator=torch.Generator().manual_seed(0),
    ).images[0]


sample().save("without.png")
with clockwork(pipe, args.clock) as summary:
    sample().save("with.png")
print(summary)
