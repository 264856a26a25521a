"""Turn StableSR's published checkpoints into a pipeline folder."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.run import new_parser, run


def main(args: Namespace) -> None:
    """Read, check names and shapes, save as fp16 safetensors."""
    from clockwork_diffusion.stablesr import checkpoint
    from clockwork_experiments.models import inspection

    pipe = checkpoint.convert_stablesr(args.checkpoint, args.tokenizer, args.cfw)
    for part in (pipe.unet, pipe.structure_encoder, pipe.vae, pipe.text_encoder):
        part.half()
        inspection.check_finite(part, args.checkpoint)
    with storage.atomic_path(args.output) as folder:
        pipe.save_pretrained(folder)
        storage.write_checksums(folder)


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument(
        "--checkpoint", required=True, type=Path, help="stablesr_000117.ckpt"
    )
    parser.add_argument("--cfw", type=Path, help="vqgan_cfw_00011.ckpt")
    parser.add_argument(
        "--tokenizer", required=True, type=Path, help="SD 2.1's tokenizer folder"
    )
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    run(parser, main)
