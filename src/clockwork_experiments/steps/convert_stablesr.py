"""Turn StableSR's published checkpoints into a pipeline folder."""

from __future__ import annotations

from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.run import run


def convert_stablesr(
    checkpoint: Path,
    tokenizer: Path,
    output: Path,
    cfw: Path | None = None,
) -> None:
    """Read, check names and shapes, save as fp16 safetensors.

    Args:
        checkpoint: ``stablesr_000117.ckpt``.
        tokenizer: SD 2.1's tokenizer folder.
        output: Folder to write.
        cfw: ``vqgan_cfw_00011.ckpt``.
    """
    from clockwork_diffusion.stablesr.checkpoint import convert_stablesr as convert
    from clockwork_experiments.models import inspection

    pipe = convert(checkpoint, tokenizer, cfw)
    for part in (pipe.unet, pipe.structure_encoder, pipe.vae, pipe.text_encoder):
        part.half()
        inspection.check_finite(part, checkpoint)
    with storage.atomic_path(output) as folder:
        pipe.save_pretrained(folder)
        storage.write_checksums(folder)


if __name__ == "__main__":
    run(convert_stablesr)
