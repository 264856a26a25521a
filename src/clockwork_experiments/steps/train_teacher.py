"""Train the mini teacher, and save the whole Stable Diffusion pipeline."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.run import new_parser, run


def main(args: Namespace) -> None:
    """Train, save."""
    from diffusers import AutoencoderKL

    from clockwork_experiments.mini import card, teacher
    from clockwork_experiments.models import loading

    spec = parse(teacher.TeacherSpec, args.spec)
    storage.check_weights(args.vae)
    vae = loading.load_network(AutoencoderKL, args.vae)
    vae.register_to_config(_name_or_path="")  # the path is nobody else's business
    device = loading.default_device()
    trained, tokenizer = teacher.train(spec, vae, args.state, device)
    loss = [value for _, value in trained.history[-10:]]
    with storage.atomic_path(args.output) as partial:
        pipe = teacher.to_pipeline(trained.module, tokenizer, vae)
        for part in (pipe.vae, pipe.text_encoder, pipe.unet):
            part.half()
        pipe.save_pretrained(partial)
        storage.write_text(
            partial / "vae" / "README.md", (args.vae / "README.md").read_text("utf-8")
        )
        storage.write_checksums(partial)
        card.write_card(
            partial,
            "Mini Stable Diffusion",
            "Text encoder and UNet with SD v1.5's topology, for 64×64 scenes.",
            f"{spec.images:,} scenes of the training split, one caption each",
            spec,
            trained,
            {"mean of the last training losses": sum(loss) / len(loss)},
            "docs/reference/mini/quality/teacher.md",
        )


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="TeacherSpec as JSON")
    parser.add_argument("--vae", required=True, type=Path, help="autoencoder's folder")
    parser.add_argument("--state", required=True, type=Path, help="resumable state")
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    run(parser, main)
