"""Edit the sources of a set by Plug-and-Play, from their inverted latents.

One job may do so at several numbers of steps, with the pipeline loaded once.
"""

from __future__ import annotations

from pathlib import Path

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.data import edit_sets
from clockwork_experiments.generate import editing
from clockwork_experiments.random import marks as random_weights
from clockwork_experiments.run import run


def edit_images(
    spec: str,
    model: Path,
    set: Path,
    inversion: list[Path],
    state: Path,
    output: list[Path],
    adaptor: Path | None = None,
    clip: Path | None = None,
) -> None:
    """Edit batch by batch; batches of a killed run are kept.

    Args:
        spec: An `EditSpec` as JSON.
        model: Pipeline folder.
        set: Prepared set, JSON.
        inversion: ``index.json`` of the inversion that each generation starts from.
        state: Resumable state.
        output: Images per generation.
        adaptor: Folder of a learned adaptor.
        clip: Folder of open_clip; for an adaptor.
    """
    chosen = parse(editing.EditSpec, spec)
    counts = {len(chosen.generations), len(inversion), len(output)}
    if len(counts) > 1:
        raise ValueError(
            f"{len(chosen.generations)} generations do not fit {len(inversion)} "
            f"inversions and {len(output)} outputs"
        )
    edits = edit_sets.read_set(set)

    from clockwork_diffusion.plug_and_play import loops
    from clockwork_experiments.base import chunks
    from clockwork_experiments.generate import runs
    from clockwork_experiments.models import loading

    generations = [
        parse(loops.GenerationSpec, each, f"spec.generations[{index}]")
        for index, each in enumerate(chosen.generations)
    ]
    pipe = loading.load_pipeline(model, loading.default_device())
    loaded = runs.load_passes(
        pipe,
        model,
        chosen.cut,
        scheduler="ddim",
        steps=None,
        kind=chosen.kind,
        adaptor=adaptor,
        clip=clip,
    )
    marks = [*loaded.checksums, storage.sha256_folder(model), spec]
    marks += [storage.sha256(set), provenance.code_sha256("steps.edit_images")]
    for generation, index, images in zip(generations, inversion, output, strict=True):
        edited = editing.edit(
            pipe,
            loaded,
            edits,
            generation,
            chosen,
            storage.existing(index),
            state / images.stem,
            marks,
        )
        notes = {"spec": spec, **random_weights.notes([model, clip])}
        storage.write_tensors(images, {"images": edited}, notes)
    # A job that is killed loses its outputs, so the batches of all stay until the end.
    chunks.discard(state)


if __name__ == "__main__":
    run(edit_images)
