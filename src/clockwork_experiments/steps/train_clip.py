"""Train the mini CLIP and save it as a folder that open_clip loads."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.run import new_parser, run


def main(args: Namespace) -> None:
    """Train, measure, save."""
    import torch

    from clockwork_experiments.mini import card, clip

    spec = parse(clip.ClipSpec, args.spec)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trained, tokenizer = clip.train(spec, args.state, device)
    model = trained.module.half().float()  # what the shipped fp16 file will hold
    quality = clip.measure(model, tokenizer)
    with storage.atomic_path(args.output) as partial:
        clip.save(model, spec, tokenizer, partial)
        storage.write_checksums(partial)
        card.write_card(
            partial,
            "Mini CLIP",
            "An open_clip model of scenes and captions, for the CLIP score at mini "
            "scale; open_clip loads it as `local-dir:`.",
            f"{spec.images:,} scenes of the training split from number "
            f"{spec.offset:,} on, {clip.PHRASINGS} captions each",
            spec,
            trained,
            {f"{name}, 1,000 validation scenes": v for name, v in quality.items()},
        )


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="ClipSpec as JSON")
    parser.add_argument("--state", required=True, type=Path, help="resumable state")
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    run(parser, main)
