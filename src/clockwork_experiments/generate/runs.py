"""Load what a run's clock needs: the split UNet, its adaptor, what the adaptor asks.

Apart from `loading`, so that steps without an adaptor do not depend on adaptors' code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import StableDiffusionPipeline

from clockwork_diffusion import adaptors, contract
from clockwork_diffusion.branches import deepcache
from clockwork_diffusion.clock import Clock
from clockwork_diffusion.encoding import Prompts
from clockwork_diffusion.made_for import check_made_for
from clockwork_diffusion.passes import Passes
from clockwork_diffusion.pipeline import clockwork
from clockwork_diffusion.unet import SplitUNet, check_cut
from clockwork_experiments.base import storage
from clockwork_experiments.generate.text import table_of
from clockwork_experiments.models import inspection


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
        loop: The kind of loop, a member of `contract.LOOPS`.
        kind: Kind of an adaptor without weights, or empty.
        adaptor: Folder of a learned adaptor, or None.
        clip: Folder of the CLIP that a learned adaptor asks.

    Raises:
        ValueError: If the adaptor is for something else, or a file is damaged.
    """
    if adaptors.is_learned(kind):
        raise ValueError(f"adaptor kind {kind!r} has weights; give its folder")
    if kind not in ("", *adaptors.KINDS):
        raise ValueError(
            f"adaptor kind {kind!r} is not one of {', '.join(adaptors.KINDS)}"
        )
    if adaptor is not None and clip is None and not kind:
        raise ValueError(f"{adaptor} asks CLIP, and no --clip is given")
    passes = split_passes(
        pipe.unet,
        cut,
        kind or adaptor or "",
        1,
        model=model,
        scheduler=scheduler,
        steps=steps,
        loop=loop,
    )
    if kind or adaptor is None or clip is None:
        return Loaded(passes, None, ())
    from clockwork_experiments.models import (
        encoders,  # for seconds, and learned adaptors alone
    )

    encoder = encoders.load_clip(clip, pipe.device)

    def pool(texts: Sequence[str]) -> torch.Tensor:
        return encoders.clip_text_features(encoder, list(texts))

    checksums = (storage.sha256_folder(adaptor), encoder.sha256)
    return Loaded(passes, pool, checksums)


def split_passes(
    unet: Any,
    cut: str,
    adaptor: str | Path,
    text_channels: int,
    *,
    model: Path,
    scheduler: str,
    steps: int | None,
    loop: str | None = contract.LOOPS[0],
) -> Passes:
    """Split a UNet, and build or load its adaptor.

    Args:
        unet: The UNet.
        cut: Where it is split; empty: where the adaptor says.
        adaptor: Folder of a learned adaptor; a key of `adaptors.KINDS`, with random
            weights if it has any; or empty.
        text_channels: Width of the pooled text embedding.
        model: Folder of the UNet's pipeline.
        scheduler: As for `load_passes`.
        steps: Likewise.
        loop: Likewise; None for either.

    Raises:
        ValueError: If the adaptor is for something else, or a file is damaged.
    """
    built: Any = None
    if cut:
        check_cut(unet, cut)  # Before an adaptor says that it is for another.
    if adaptor in adaptors.KINDS:
        cut = cut or "stage1"
        built = adaptors.build_adaptor(str(adaptor), unet, cut, text_channels)
    elif adaptor:
        folder = Path(adaptor)
        storage.check_weights(folder)
        built = adaptors.load_adaptor(folder, trust=True)
        inspection.check_finite(built, folder)
        cut = cut or built.config.cut
        check_made_for(
            built,
            folder,
            model=storage.sha256_folder(model),
            scheduler=scheduler,
            steps=steps,
            cut=cut,
            loop=loop,
        )
    if built is not None:
        built = built.to(unet.device, unet.dtype).eval()
    return Passes(SplitUNet(unet, cut or "stage1"), built)


def applied(
    pipe: Any,
    clock: Clock,
    adaptor: Any = None,
    *,
    branch: int | None = None,
    prompts: Prompts | None = None,
) -> AbstractContextManager[Any]:
    """Apply to a pipeline, within a block, what a run samples with.

    Args:
        pipe: The pipeline.
        clock: When the whole UNet runs.
        adaptor: φ of a Clockwork run, or None.
        branch: Of a DeepCache run, or None.
        prompts: All prompts to come, pooled, for an adaptor that looks at text.

    Raises:
        ValueError: If the clock needs an adaptor or a branch, and there is none.
    """
    if branch is not None:
        return deepcache(pipe, clock, branch=branch)
    if adaptor is not None:
        pool = None
        if prompts is not None and "text" in contract.inputs_of(adaptor):
            pool = table_of(prompts)
        return clockwork(pipe, clock, adaptor=adaptor, pool=pool)
    if clock.needs_adaptor:
        raise ValueError(f"{clock} needs an adaptor")
    return nullcontext()
