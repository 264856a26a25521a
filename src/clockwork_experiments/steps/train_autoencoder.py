"""Train the mini autoencoder and save it as the pipeline's ``vae`` folder."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.run import new_parser, run


def main(args: Namespace) -> None:
    """Train, measure, save."""
    import torch

    from clockwork_experiments.mini import autoencoder, card
    from clockwork_experiments.mini.data import scene_images

    spec = parse(autoencoder.AutoencoderSpec, args.spec)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trained = autoencoder.train(spec, args.state, device)
    model: Any = trained.module.half().float()  # what the shipped fp16 file will hold
    quality = autoencoder.reconstruction_psnr(model, scene_images("validation", 512))
    with storage.atomic_path(args.output) as partial:
        model.half().save_pretrained(partial)
        card.write_card(
            partial,
            "Mini autoencoder",
            "AutoencoderKL, 64×64 RGB ↔ 4×16×16 latents (f = 4).",
            f"{spec.images:,} scenes of the training split",
            spec,
            trained,
            {"PSNR on 512 validation scenes (dB)": quality},
        )


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="AutoencoderSpec as JSON")
    parser.add_argument("--state", required=True, type=Path, help="resumable state")
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    run(parser, main)
