"""ControlNet along the edges of a picture, its UNet without the deep levels.

python examples/controlnet.py
python examples/controlnet.py lllyasviel/control_v11p_sd15_canny photo.png
"""

import argparse

import numpy as np
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
from PIL import Image, ImageFilter

from clockwork_diffusion import clockwork, depth_skipped

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("controlnet", nargs="?")
parser.add_argument("picture", nargs="?", help="a ring, if left out")
parser.add_argument("--prompt", default="a red ring on the sea")
args = parser.parse_args()

base, size = "stable-diffusion-v1-5/stable-diffusion-v1-5", 512
if args.controlnet is None:
    args.controlnet = "resources/mini/controlnet"
    base, size = "resources/mini/stable-diffusion", 64
pipe = StableDiffusionControlNetPipeline.from_pretrained(
    base,
    controlnet=ControlNetModel.from_pretrained(args.controlnet, dtype=torch.float32),
    dtype=torch.float32,
).to("cuda" if torch.cuda.is_available() else "cpu")

if args.picture:
    picture = Image.open(args.picture).convert("L").resize((size, size))
else:
    y, x = np.mgrid[:size, :size] / size - 0.5
    distance = np.hypot(x, y)
    ring = ((distance > 0.15) & (distance < 0.3)) * np.uint8(255)
    picture = Image.fromarray(ring)
edges = picture.filter(ImageFilter.FIND_EDGES).point(lambda grey: 255 * (grey > 60))
edges.save("edges.png")

with depth_skipped(pipe, 9), clockwork(pipe, clock=2) as summary:  # D9 of 13
    image = pipe(args.prompt, image=edges.convert("RGB"), num_inference_steps=8).images[
        0
    ]
image.save("controlled.png")
print(summary)
