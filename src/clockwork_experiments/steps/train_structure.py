"""Train the mini structure network, the mini scale's DINO ViT."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.run import new_parser, run


def main(args: Namespace) -> None:
    """Train, measure, save."""
    import torch
    from transformers import ViTImageProcessor, ViTModel

    from clockwork_experiments.mini import card, structure

    spec = parse(structure.StructureSpec, args.spec)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trained = structure.train(spec, args.state, device)
    model = trained.module.half().float()  # what the shipped fp16 file will hold
    assert isinstance(model, ViTModel)
    quality = structure.measure(model)
    half = [0.5, 0.5, 0.5]
    processor = ViTImageProcessor(
        size={"height": 64, "width": 64}, image_mean=half, image_std=half
    )
    with storage.atomic_path(args.output) as partial:
        model.half().save_pretrained(partial)
        processor.save_pretrained(partial)
        storage.write_checksums(partial)
        card.write_card(
            partial,
            "Mini structure network",
            "ViTModel whose last layer's keys measure layout, in place of DINO's ViT. "
            "Not self-supervised as DINO is: its patches learned to predict the "
            "generator's masks, under exchanged colours.",
            f"{spec.images:,} scenes of the training split from number "
            f"{spec.offset:,} on, with object masks and outlines",
            spec,
            trained,
            quality,
        )


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="StructureSpec as JSON")
    parser.add_argument("--state", required=True, type=Path, help="resumable state")
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    run(parser, main)
