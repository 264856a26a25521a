"""Folders with what one pipeline's weights differ in from another's, and nothing else.

Image-to-image models and cheaper backbones are made from a teacher, and share many of
its tensors to the bit; those are not stored twice. Such a folder has all the small
files of a pipeline, and one file of weights, `WEIGHTS`, that names the folder beside it
which has the others, and knows that one's weights by checksum; and which of the other's
tensors it goes without, where a backbone has fewer layers.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from clockwork_experiments.base import storage, texts

if TYPE_CHECKING:
    import torch

WEIGHTS = "overlay.safetensors"
"""The file with the weights; its tensors are called ``<part>.<name>``."""


def is_over(folder: Path) -> bool:
    """Return whether a pipeline's folder lies over another."""
    return (folder / WEIGHTS).is_file()


def pack(whole: Path, base: Path, folder: Path) -> None:
    """Write what a pipeline differs in from another, of the folder beside it.

    Args:
        whole: Folder of the pipeline.
        base: Folder of the other; it may lie over a third.
        folder: What to write, beside ``base``.

    Raises:
        ValueError: If ``folder`` would not lie beside ``base``.
    """
    import torch

    if folder.parent.resolve() != base.parent.resolve():
        raise ValueError(f"{folder} does not lie beside {base}, which it would need")
    changed, without = {}, []
    for part in _parts(whole):
        there = tensors_of(base, part) if part in _parts(base) else {}
        here = tensors_of(whole, part)
        without += [f"{part}.{name}" for name in there if name not in here]
        for name, tensor in here.items():
            if name not in there or not torch.equal(there[name], tensor):
                changed[f"{part}.{name}"] = tensor
    with storage.atomic_path(folder) as partial:
        shutil.copytree(
            whole,
            partial,
            ignore=shutil.ignore_patterns("*.safetensors", storage.CHECKSUMS),
        )
        notes = {"base": base.name, "base_sha256": storage.sha256_folder(base)}
        notes["without"] = " ".join(without)
        storage.write_tensors(partial / WEIGHTS, changed, notes)
        storage.write_checksums(partial)


def unpack(folder: Path, whole: Path) -> None:
    """Write a pipeline that lies over another as diffusers' own loaders read it.

    Args:
        folder: What `pack` wrote.
        whole: What to write; there is nothing yet.
    """
    with storage.atomic_path(whole) as partial:
        shutil.copytree(
            folder, partial, ignore=shutil.ignore_patterns(WEIGHTS, storage.CHECKSUMS)
        )
        for part in _parts(folder):
            # As diffusers and transformers name the weights of their models.
            own = "_class_name" in texts.read_json(folder / part / "config.json")
            name = "diffusion_pytorch_model" if own else "model"
            storage.write_tensors(
                partial / part / f"{name}.safetensors",
                tensors_of(folder, part),
                {"format": "pt"},
            )
        storage.write_checksums(partial)


def tensors_of(folder: Path, part: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a part of a pipeline, whether it lies over another or not.

    Args:
        folder: The pipeline's.
        part: The part's name, as ``unet``.

    Raises:
        ValueError: In one line, if a file is missing or damaged, or the folder was made
            over other weights than lie beneath it now.
    """
    if not is_over(folder):
        tensors: dict[str, torch.Tensor] = {}
        for path in sorted((folder / part).glob("*.safetensors")):
            tensors |= storage.read_tensors(path)[0]
        return tensors
    own, notes = storage.read_tensors(folder / WEIGHTS)
    base = folder.parent / Path(notes.get("base", "")).name
    if base == folder.parent or not base.is_dir():
        raise ValueError(f"{folder} lies over {base}, which does not exist")
    if notes.get("base_sha256") != storage.sha256_folder(base):
        raise ValueError(f"{folder} does not lie over {base}: it was made from another")
    beneath = tensors_of(base, part) if part in _parts(base) else {}
    start = f"{part}."
    for name in notes.get("without", "").split():
        if name.startswith(start):
            del beneath[name.removeprefix(start)]
    mine = {k.removeprefix(start): v for k, v in own.items() if k.startswith(start)}
    return {**beneath, **mine}


def _parts(folder: Path) -> list[str]:
    """Return the names of a pipeline's networks."""
    return sorted(path.parent.name for path in folder.glob("*/config.json"))
