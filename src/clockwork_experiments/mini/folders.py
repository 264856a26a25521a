"""Captions with images, pairs for a task, or edits, as a user's folder.

Scenes of the mini world, enlarged, stand in for photographs where only sizes count.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clockwork_experiments.base import storage
from clockwork_experiments.generate.tasks import TASKS

if TYPE_CHECKING:
    import torch

CAPTIONED = {"train": ("train", 0), "heldout": ("train", 1000), "test": ("test", 0)}
"""Sets of captions with images: split and first scene."""

EDITED: dict[str, dict[str, Any]] = {
    "real": {},
    "fake": {"sampled": True, "guidance": 7.5, "steps": 2},
}
"""Editing sets: how their sources are sampled, if they are."""


@dataclass(frozen=True)
class RandomDataSpec:
    """What to write.

    Attributes:
        of: A key of `CAPTIONED` or `EDITED`, or a task.
        count: Number of captions, pairs, or sources to edit.
        size: Side of the images in pixels; those to edit are as small as scenes are.
    """

    of: str
    count: int
    size: int

    def __post_init__(self) -> None:
        """Reject sets of nothing, and unknown ones."""
        if self.of not in (*CAPTIONED, *EDITED, *TASKS):
            known = ", ".join((*CAPTIONED, *EDITED, *TASKS))
            raise ValueError(f"data {self.of!r} are not one of {known}")
        if self.count < 1 or self.size < 1:
            raise ValueError(f"count {self.count} or size {self.size} is below 1")


def write(spec: RandomDataSpec, output: Path) -> None:
    """Render a set and write it as a folder."""
    if spec.of in EDITED:
        from clockwork_experiments.world import edit_sets

        chosen = edit_sets.SceneEditsSpec(
            spec.count, kinds=("recolour",), **EDITED[spec.of]
        )
        edit_sets.write_layout(chosen, output)
        return
    with storage.atomic_path(output) as folder:
        if spec.of in CAPTIONED:
            _write_captions(spec, folder)
        else:
            _write_pairs(spec, folder)


def _write_captions(spec: RandomDataSpec, folder: Path) -> None:
    from clockwork_experiments.world.captions import captions
    from clockwork_experiments.world.data import scene_images

    split, offset = CAPTIONED[spec.of]
    _write_images(scene_images(split, spec.count, offset), folder / "images", spec.size)
    said = captions(split, spec.count, offset)
    storage.write_text(folder / "prompts.txt", "".join(f"{c}\n" for c in said))


def _write_pairs(spec: RandomDataSpec, folder: Path) -> None:
    from clockwork_experiments.data import pair_sets
    from clockwork_experiments.world import pairs

    # Synthesis starts from blurred scenes: what would restore them is of no account.
    restorer = (lambda images: images) if spec.of == "synthesis" else None
    made = pairs.scene_pairs(spec.of, "test", spec.count, restorer=restorer)
    # Edges are found when the set is read.
    given = made.targets if spec.of == "control" else made.inputs
    names = _write_images(given, folder / "inputs", spec.size)
    _write_images(made.targets, folder / "targets", spec.size)
    lines = []
    for row, name in enumerate(names):
        line = {
            "input": name,
            "target": name,
            "prompt": made.prompts[row],
            "source_caption": made.source_captions[row],
            "target_caption": made.target_captions[row],
        }
        lines.append(json.dumps(line) + "\n")
    storage.write_text(folder / pair_sets.LIST, "".join(lines))


def _write_images(images: torch.Tensor, folder: Path, size: int) -> list[str]:
    """Write images at another size, and return their names."""
    from PIL import Image
    from torchvision.transforms.functional import to_pil_image

    folder.mkdir(parents=True)
    names = []
    for row, image in enumerate(images):
        names.append(f"{row:03d}.png")
        large = to_pil_image(image).resize((size, size), Image.Resampling.BICUBIC)
        large.save(folder / names[-1])
    return names
