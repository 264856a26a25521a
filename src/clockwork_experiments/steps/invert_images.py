"""Invert the sources of an editing set by DDIM, and keep their latents.

One job may do so at several numbers of steps, with the pipeline loaded once.
"""

from __future__ import annotations

from pathlib import Path

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.data import edit_sets
from clockwork_experiments.generate import inverting
from clockwork_experiments.run import run


def invert_images(
    spec: inverting.InvertSpec,
    model: Path,
    set: Path,
    sources: Path,
    output: list[Path],
    adaptor: Path | None = None,
    clip: Path | None = None,
) -> None:
    """Invert batch by batch; the files of a killed run are kept.

    Args:
        spec: What to invert, and how.
        model: Pipeline folder.
        set: Prepared set, JSON.
        sources: Its images, safetensors.
        output: Index to write per inversion; latents beside it, one file per source.
        adaptor: Folder of a learned adaptor.
        clip: Folder of open_clip; for an adaptor.
    """
    if len(output) != len(spec.inversions):
        raise ValueError(
            f"{len(spec.inversions)} inversions do not fit {len(output)} outputs"
        )
    edits = edit_sets.read_set(set)
    images, _ = edit_sets.read_images(sources, edits)

    from clockwork_diffusion.plug_and_play import loops
    from clockwork_experiments.generate import runs
    from clockwork_experiments.models import loading

    inversions = [
        parse(loops.InversionSpec, each, f"spec.inversions[{index}]")
        for index, each in enumerate(spec.inversions)
    ]
    pipe = loading.load_pipeline(model, loading.default_device())
    for inversion, steps in zip(inversions, spec.generations, strict=True):
        loops.check_timesteps(
            loops.ddim_timesteps(pipe.scheduler.config, inversion.steps),
            loops.ddim_timesteps(pipe.scheduler.config, steps),
        )
    size = pipe.unet.config.sample_size * pipe.vae_scale_factor
    if images.shape[-1] != size:
        raise ValueError(
            f"{sources}: images have {images.shape[-1]} pixels a side, and "
            f"{model} wants {size}"
        )
    loaded = runs.load_passes(
        pipe,
        model,
        spec.cut,
        scheduler="ddim",
        steps=None,
        loop="inversion",
        kind=spec.kind,
        adaptor=adaptor,
        clip=clip,
    )
    marks = [*loaded.checksums, storage.sha256_folder(model), spec.cut, spec.kind]
    marks.append(provenance.code_sha256("steps.invert_images"))
    for inversion, index in zip(inversions, output, strict=True):
        inverting.invert(
            pipe, loaded, edits, images, inversion, spec.batch_size, index, marks
        )


if __name__ == "__main__":
    run(invert_images)
