"""Edit the sources of a set by Plug-and-Play, from their inverted latents."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clockwork_experiments.base import storage

if TYPE_CHECKING:
    import torch
    from diffusers import StableDiffusionPipeline

    from clockwork_diffusion.plug_and_play.loops import (
        GenerationSpec,
        Inverted,
    )
    from clockwork_experiments.data.edit_sets import EditSet
    from clockwork_experiments.generate.runs import Loaded


@dataclass(frozen=True)
class EditSpec:
    """How a set is edited.

    Attributes:
        generations: Each a `plug_and_play.loops.GenerationSpec`, as plain data.
        batch_size: Pairs per batch; has no influence on the images.
        cut: Where the UNet is split.
        kind: Kind of an adaptor without weights, which has no file.
        spill: Keep activations in files beside the state, a batch at a time, where
            memory does not hold them.
        target: ``target`` generates towards the target prompts; ``source`` towards the
            source's own, once for each source: a reconstruction.
    """

    generations: tuple[dict[str, object], ...]
    batch_size: int
    cut: str = "stage1"
    kind: str = ""
    target: str = "target"
    spill: bool = False

    def __post_init__(self) -> None:
        """Reject unknown targets."""
        if self.target not in ("target", "source"):
            raise ValueError(f"target {self.target!r} is not target or source")


def edit(
    pipe: StableDiffusionPipeline,
    loaded: Loaded,
    edits: EditSet,
    generation: GenerationSpec,
    spec: EditSpec,
    inversion: Path,
    state: Path,
    marks: list[str],
) -> torch.Tensor:
    """Return the edited images, uint8 ``(P, 3, S, S)``, one per pair."""
    import torch

    from clockwork_diffusion import encoding
    from clockwork_diffusion.plug_and_play import loops
    from clockwork_experiments.base import chunks

    owners, targets = edits.pair_sources, edits.target_prompts
    if spec.target == "source":
        owners, targets = tuple(range(len(edits.ids))), edits.source_prompts
    # By source, so that a batch shares the features that are kept of one.
    order = sorted(range(len(owners)), key=lambda row: owners[row])
    prompts = loops.encode_edits(
        pipe, [targets[row] for row in order], generation.negative_prompt, loaded.pool
    )
    files = storage.read_json(inversion)["files"]
    spilled = state.with_name(f"{state.name}.features")

    def edit(part: slice) -> dict[str, torch.Tensor]:
        sought = [owners[row] for row in order[part]]
        unique = list(dict.fromkeys(sought))
        rows = [unique.index(owner) for owner in sought]
        read = [_read(inversion, edits.ids[owner], files) for owner in unique]
        latents = torch.cat([each.latents for each in read])
        edited = loops.edit(
            loaded.passes,
            pipe.scheduler.config,
            loops.Inverted(latents, read[0].timesteps),
            prompts.part(part),
            generation,
            rows,
            spilled if spec.spill else None,
        )
        chunks.discard(spilled)
        return {"images": encoding.decode_latents(pipe, edited)}

    fingerprint = "\n".join([*marks, str(generation), storage.sha256(inversion)])
    tensors = chunks.in_chunks(
        len(order),
        spec.batch_size,
        edit,
        state,
        fingerprint,
        "edits",
        lambda row: f"{edits.ids[owners[order[row]]]} to {targets[order[row]]!r}",
    )
    images = tensors["images"][torch.tensor(order).argsort()]
    return images[list(edits.pair_sources)] if spec.target == "source" else images


def _read(index: Path, name: str, files: dict[str, str]) -> Inverted:
    """Read a source's latents, which must be those that the index lists."""
    from clockwork_diffusion.plug_and_play.loops import Inverted

    path = index.parent / f"{name}.safetensors"
    try:
        tensors, _ = storage.read_tensors(path)
        if files.get(name) != storage.sha256(path):
            raise ValueError(f"{path} is not the file that {index.name} lists")
    except ValueError as error:
        raise ValueError(
            f"{error}: snakemake --forcerun {index} inverts it again, and keeps the "
            "files that are whole"
        ) from error
    timesteps = tuple(tensors["timesteps"].tolist())
    return Inverted(tensors["latents"][None], timesteps)
