"""Train one of the open world's models: autoencoder, teacher or judge."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.run import new_parser, run


def main(args: Namespace) -> None:
    """Train, measure, save."""
    with storage.atomic_path(args.output) as partial:
        {"autoencoder": _autoencoder, "teacher": _teacher, "judge": _judge}[args.part](
            args, partial
        )


def _autoencoder(args: Namespace, folder: Path) -> None:
    from diffusers import AutoencoderKL

    from clockwork_experiments.mini import card
    from clockwork_experiments.models.loading import default_device
    from clockwork_experiments.world import autoencoder
    from clockwork_experiments.world.data import scene_images

    spec = parse(autoencoder.AutoencoderSpec, args.spec)
    trained = autoencoder.train(spec, args.state, default_device())
    vae = trained.module.half()
    assert isinstance(vae, AutoencoderKL)
    vae.save_pretrained(folder)
    validation = scene_images("validation", 512)
    card.write_card(
        folder,
        "Mini autoencoder",
        "AutoencoderKL for 64×64 scenes of the open world; latents are 4×16×16.",
        f"{spec.images:,} renderings of the training split",
        spec,
        trained,
        {
            "PSNR on 512 validation scenes (dB)": autoencoder.reconstruction_psnr(
                vae.float(), validation
            )
        },
    )


def _teacher(args: Namespace, folder: Path) -> None:
    from diffusers import AutoencoderKL

    from clockwork_experiments.mini import card
    from clockwork_experiments.models.loading import default_device, load_network
    from clockwork_experiments.world import teacher

    spec = parse(teacher.TeacherSpec, args.spec)
    vae = load_network(AutoencoderKL, args.vae)
    vae.register_to_config(_name_or_path="")  # the path is nobody else's business
    trained, tokenizer = teacher.train(spec, vae, args.state, default_device())
    loss = [value for _, value in trained.history[-10:]]
    pipe = teacher.to_pipeline(trained.module, tokenizer, vae)
    for part in (pipe.vae, pipe.text_encoder, pipe.unet):
        part.half()
    pipe.save_pretrained(folder)
    storage.write_checksums(folder)
    card.write_card(
        folder,
        "Mini Stable Diffusion",
        "Text encoder and UNet with SD v1.5's topology, for 64×64 scenes.",
        f"{spec.images:,} scenes of the training split, {teacher.PHRASINGS} captions "
        "each",
        spec,
        trained,
        {"mean of the last training losses": sum(loss) / len(loss)},
    )


def _judge(args: Namespace, folder: Path) -> None:
    from clockwork_experiments.mini import card
    from clockwork_experiments.models.loading import default_device
    from clockwork_experiments.world import judge

    spec = parse(judge.JudgeSpec, args.spec)
    trained = judge.train(spec, args.state, default_device())
    model = trained.module.half().float()  # what the shipped fp16 file will hold
    assert isinstance(model, judge.Judge)
    judge.save(model, folder)
    card.write_card(
        folder,
        "Judge of the open world",
        "Finds and names the objects of a scene, its ground, hour and light. Only for "
        "judging: no guidance and no training uses it.",
        f"{spec.images:,} renderings of the training split from number "
        f"{spec.offset:,} on, every other one with each object lit from a side of its "
        "own, mildly blurred, relit and noised",
        spec,
        trained,
        {
            f"{name}, share right of 2,000 validation renderings": share
            for name, share in judge.measure(model, 2000).items()
        },
    )


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument(
        "--part", required=True, choices=("autoencoder", "teacher", "judge")
    )
    parser.add_argument("--spec", required=True, help="its spec as JSON")
    parser.add_argument(
        "--vae", type=Path, help="autoencoder's folder, for the teacher"
    )
    parser.add_argument("--state", required=True, type=Path, help="resumable state")
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    run(parser, main)
