"""Invert the sources of an editing set by DDIM, and keep their latents."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clockwork_experiments.base import storage

if TYPE_CHECKING:
    import torch
    from diffusers import StableDiffusionPipeline

    from clockwork_diffusion.plug_and_play.loops import InversionSpec
    from clockwork_experiments.data.edit_sets import EditSet
    from clockwork_experiments.generate.runs import Loaded

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class InvertSpec:
    """How sources are inverted.

    Attributes:
        inversions: Each a `plug_and_play.loops.InversionSpec`, as plain data.
        generations: Numbers of steps of the generations to come, one for each
            inversion, whose timesteps it must visit.
        batch_size: Sources per batch; has no influence on the latents.
        cut: Where the UNet is split.
        kind: Kind of an adaptor without weights, which has no file.
    """

    inversions: tuple[dict[str, object], ...]
    generations: tuple[int, ...]
    batch_size: int
    cut: str = "stage1"
    kind: str = ""

    def __post_init__(self) -> None:
        """Reject lists that do not belong together."""
        if len(self.inversions) != len(self.generations):
            raise ValueError(
                f"{len(self.inversions)} inversions and {len(self.generations)} "
                "generations do not belong together"
            )


def invert(
    pipe: StableDiffusionPipeline,
    loaded: Loaded,
    edits: EditSet,
    sources: torch.Tensor,
    inversion: InversionSpec,
    batch_size: int,
    output: Path,
    marks: list[str],
) -> None:
    """Write a file for each source that has none yet, and the index of all."""
    import torch
    from tqdm import tqdm

    from clockwork_diffusion import encoding
    from clockwork_diffusion.finite import NotFiniteError
    from clockwork_diffusion.plug_and_play import loops

    folder, waiting, fingerprints = output.parent, [], []
    for row, name in enumerate(edits.ids):
        # A file answers for itself: a set may have gained sources since.
        content = storage.sha256_bytes(sources[row].numpy().tobytes())
        own = [str(inversion), edits.source_prompts[row], content]
        fingerprints.append("\n".join([*marks, *own]))
        if not _is_done(folder / f"{name}.safetensors", fingerprints[row]):
            waiting.append(row)
    if len(waiting) < len(edits.ids):
        log.info("%d sources were inverted before", len(edits.ids) - len(waiting))
    starts = range(0, len(waiting), batch_size)
    for start in tqdm(starts, desc="inversion", unit="batch", disable=None):
        rows = waiting[start : start + batch_size]
        prompts = [edits.source_prompts[row] for row in rows]
        try:
            inverted = loops.invert(
                loaded.passes,
                pipe.scheduler.config,
                encoding.encode_images(pipe.vae, sources[rows]),
                encoding.encode_prompts(pipe, prompts, loaded.pool),
                inversion,
            )
        except NotFiniteError as error:
            name = edits.ids[rows[error.rows[0]]]
            raise ValueError(f"{name}: {error.what} are not finite") from error
        for row, kept in zip(rows, inverted.latents.cpu(), strict=True):
            storage.write_tensors(
                folder / f"{edits.ids[row]}.safetensors",
                {"latents": kept, "timesteps": torch.tensor(inverted.timesteps)},
                {"fingerprint": fingerprints[row]},
            )
            log.info("%s inverted in %d steps", edits.ids[row], inversion.steps)
    storage.write_json(
        output,
        {
            "inversion": dataclasses.asdict(inversion),
            "files": {
                name: storage.sha256(folder / f"{name}.safetensors")
                for name in edits.ids
            },
        },
    )


def _is_done(path: Path, fingerprint: str) -> bool:
    """Tell whether a file holds what an inversion would write."""
    if not path.is_file():
        return False
    try:
        _, notes = storage.read_tensors(path)
    except ValueError as error:
        log.info("%s", error)
        return False
    return notes.get("fingerprint") == fingerprint
