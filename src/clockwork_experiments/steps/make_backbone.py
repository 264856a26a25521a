"""Make a cheaper backbone out of a teacher by distillation, and save its pipeline."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.data import datasets, shards
from clockwork_experiments.run import new_parser, run


def main(args: Namespace) -> None:
    """Encode the images, distil, save."""
    import torch
    from diffusers import UNet2DConditionModel

    from clockwork_diffusion import encoding
    from clockwork_experiments.mini import card
    from clockwork_experiments.models import loading
    from clockwork_experiments.train import backbones

    spec = parse(backbones.BackboneSpec, args.spec)
    prompts = datasets.read_prompts(args.prompts)
    device = loading.default_device()
    pipe = loading.load_pipeline(args.teacher, device)
    images = shards.Rows(args.images, "images")
    if len(images) != len(prompts):
        raise ValueError(f"{len(images)} images do not match {len(prompts)} prompts")
    # Only their latents are kept, a fiftieth of the size.
    clean = torch.cat(
        [
            encoding.encode_images(pipe.vae, part)
            for part in images.blocks(shards.IMAGES)
        ]
    )

    @torch.no_grad()
    def encode(texts: Sequence[str]) -> torch.Tensor:
        return pipe.encode_prompt(list(texts), device, 1, False)[0]

    data = backbones.Data(clean, backbones.text_features(encode, prompts), encode([""]))
    work = [args.spec, provenance.code_sha256("steps.make_backbone")]
    work += [storage.sha256_folder(args.teacher), storage.sha256(args.prompts)]
    work += [storage.sha256(path) for path in args.images]
    trained = backbones.make_backbone(
        spec, pipe.unet, pipe.scheduler.config, data, args.state, "\n".join(work)
    )
    assert isinstance(trained.module, UNet2DConditionModel)
    pipe.register_modules(unet=trained.module)
    for part in (pipe, pipe.vae):
        # Where the teacher lay says nothing to whoever loads the student.
        part.register_to_config(_name_or_path="")
    with storage.atomic_path(args.output) as partial:
        for part in (pipe.vae, pipe.text_encoder, pipe.unet):
            part.half()
        pipe.save_pretrained(partial)
        storage.write_checksums(partial)
        made = card.Card(
            f"Stable Diffusion with the {spec.backbone} UNet",
            "Made from the teacher by distillation; every other part is the teacher's.",
            f"{len(prompts):,} images and their captions",
            trained,
            {"mean of the last training losses": trained.last_loss},
            args.quality or "",
        )
        card.write_card(partial, spec, made)


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="BackboneSpec as JSON")
    parser.add_argument("--teacher", required=True, type=Path, help="pipeline folder")
    parser.add_argument(
        "--images", required=True, nargs="+", type=Path, help="shards of images"
    )
    parser.add_argument("--prompts", required=True, type=Path, help="prompts as JSON")
    parser.add_argument("--quality", help="generated table that the card will show")
    parser.add_argument("--state", required=True, type=Path, help="resumable state")
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    run(parser, main)
