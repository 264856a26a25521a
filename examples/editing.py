"""Edit a picture in two ways, both cheaper: Plug-and-Play and InstructPix2Pix.

python examples/editing.py
python examples/editing.py stable-diffusion-v1-5/stable-diffusion-v1-5 \
        timbrooks/instruct-pix2pix
"""

import argparse

import torch
from diffusers import (
    DDIMScheduler,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
)

from clockwork_diffusion import at_timesteps, depth_skipped, edit_image
from clockwork_diffusion.plug_and_play.loops import GenerationSpec, InversionSpec
from clockwork_diffusion.timesteps import gamma_timesteps

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model", nargs="?", default="resources/mini/stable-diffusion")
parser.add_argument("editor", nargs="?", default="resources/mini/instruct-pix2pix")
args = parser.parse_args()
device = "cuda" if torch.cuda.is_available() else "cpu"

pipe = StableDiffusionPipeline.from_pretrained(args.model, dtype=torch.float32)
pipe.to(device)
source = "a red ring on the sea"
picture = pipe(source, num_inference_steps=20).images[0]
picture.save("source.png")

# Plug-and-Play needs a text-to-image model alone; the clock is in both of its loops.
(edited,) = edit_image(
    pipe,
    picture,
    source,
    ["a blue ring on the sea"],
    InversionSpec(25, clock=2),
    GenerationSpec(25, guidance=7.5, tau_f=0.8, tau_a=0.5, clock=2),
)
edited.save("plug_and_play.png")

# InstructPix2Pix without its deepest levels, at few steps, where they do most.
editor = StableDiffusionInstructPix2PixPipeline.from_pretrained(
    args.editor, dtype=torch.float32
).to(device)
editor.scheduler = DDIMScheduler.from_config(editor.scheduler.config, clip_sample=False)
with depth_skipped(editor, 9), at_timesteps(editor, gamma_timesteps(10, 1 / 1.8)):
    blue = editor("make the red ring blue", image=picture, num_inference_steps=10)
blue.images[0].save("instructed.png")
