"""Train the paper's adaptor from captions alone, and sample with it.

    python examples/train_adaptor.py
    python examples/train_adaptor.py stable-diffusion-v1-5/stable-diffusion-v1-5 \
        --captions captions.txt --updates 2000

Stopped, it goes on where it was. Needs the extra "train".
"""

import argparse
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from clockwork_diffusion import clockwork, load_adaptor, train_adaptor

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model", nargs="?", default="resources/mini/stable-diffusion")
parser.add_argument("--captions", type=Path, help="a text file, one per line")
parser.add_argument("--updates", type=int, default=20)
parser.add_argument("--steps", type=int, default=8)
args = parser.parse_args()

device = "cuda" if torch.cuda.is_available() else "cpu"
pipe = StableDiffusionPipeline.from_pretrained(args.model, dtype=torch.float32)
pipe.to(device)
if args.captions:
    captions = args.captions.read_text(encoding="utf-8").splitlines()
else:  # enough to see it run, far too few to learn much
    colours = ("red", "blue", "green", "yellow", "pink", "purple")
    captions = [f"a {colour} ring on the sea" for colour in colours]

train_adaptor(
    pipe,
    captions,
    "my-adaptor",
    steps=args.steps,
    updates=args.updates,
    batch_size=8,
    held_out=max(1, len(captions) // 20),
)
with clockwork(pipe, clock=2, adaptor=load_adaptor("my-adaptor")) as summary:
    image = pipe(captions[0], num_inference_steps=args.steps).images[0]
image.save("adapted.png")
print(summary)
