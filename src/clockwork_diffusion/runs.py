"""Load what a run's clock needs: the split UNet, its adaptor, what the adaptor asks.

Apart from `loading`, so that steps without an adaptor do not depend on adaptors' code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import StableDiffusionPipeline

from clockwork_diffusion import adaptors, storage
from clockwork_diffusion.sampling import Passes
from clockwork_diffusion.split import SplitUNet


class Loaded(NamedTuple):
    """What a run's clock needs.

    Attributes:
        passes: The UNet's passes.
        pool: Maps texts to pooled embeddings for a learned adaptor, ``(N, P)``.
        checksums: Of the adaptor's and CLIP's weights, if there are any.
    """

    passes: Passes
    pool: Callable[[Sequence[str]], torch.Tensor] | None
    checksums: tuple[str, ...]


def load_passes(
    pipe: StableDiffusionPipeline,
    model: Path,
    cut: str,
    *,
    scheduler: str,
    steps: int | None,
    loop: str = "sampling",
    kind: str = "",
    adaptor: Path | None = None,
    clip: Path | None = None,
) -> Loaded:
    """Split a pipeline's UNet and load the adaptor that goes with it.

    Args:
        pipe: The pipeline.
        model: Its folder.
        cut: Where the UNet is split.
        scheduler: Key of the run's scheduler.
        steps: Its number of steps, which a learned adaptor must be made for; None for
            any, as in editing, where the paper does not say which.
        loop: The kind of loop, a member of `adaptors.LOOPS`.
        kind: Kind of an adaptor without weights, or empty.
        adaptor: Folder of a learned adaptor, or None.
        clip: Folder of the CLIP that a learned adaptor asks.

    Raises:
        ValueError: If the adaptor is for something else, or a file is damaged.
    """
    split = SplitUNet(pipe.unet, cut)
    if kind:
        if adaptors.is_learned(kind):
            raise ValueError(f"adaptor kind {kind!r} has weights; give its folder")
        built = adaptors.build_adaptor(kind, pipe.unet, cut, 1)
        return Loaded(Passes(split, built), None, ())
    if adaptor is None:
        return Loaded(Passes(split), None, ())
    if clip is None:
        raise ValueError(f"{adaptor} asks CLIP, and no --clip is given")
    learned = adaptors.load_adaptor(adaptor).to(pipe.device, pipe.unet.dtype)
    adaptors.check_made_for(
        learned,
        adaptor,
        model=storage.sha256_folder(model),
        scheduler=scheduler,
        steps=steps,
        cut=cut,
        loop=loop,
    )
    from clockwork_diffusion import encoders  # for seconds, and learned adaptors alone

    encoder = encoders.load_clip(clip, pipe.device)

    def pool(texts: Sequence[str]) -> torch.Tensor:
        return encoders.clip_text_features(encoder, list(texts))

    checksums = (storage.sha256_folder(adaptor), encoder.sha256)
    return Loaded(Passes(split, learned), pool, checksums)
