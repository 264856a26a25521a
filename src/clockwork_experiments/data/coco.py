"""Turn COCO's archives into folders that the paper scale reads.

A set of captions is ``prompts.txt`` and ``images/`` (`data.datasets`):
of each image the caption of the lowest id, in the order of the images' names. A set of
pairs is ``pairs.jsonl`` and ``inputs/`` (`data.pair_sets`), made of the
former; its images are not copied.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from clockwork_experiments.base import storage, texts
from clockwork_experiments.data import archives, captions, names

ANNOTATIONS = 1_000_000_000
"""Bytes that an archive's list of captions may have."""


@dataclass(frozen=True)
class CocoSpec:
    """What to make.

    Attributes:
        path: The folder to write.
        images: Archive of the images, ``<split>/*.jpg``.
        annotations: Archive with ``annotations/captions_<split>.json``.
        split: Such as ``val2017``.
        of: Instead, for pairs: a folder of captions and images.
        without: A folder whose images, by their ids, are left out of the pairs.
    """

    path: str
    images: str = ""
    annotations: str = ""
    split: str = ""
    of: str = ""
    without: str = ""

    def __post_init__(self) -> None:
        """Reject what is neither a set of captions nor one of pairs."""
        archived = (self.images, self.annotations, self.split)
        if bool(self.of) == any(archived) or (not self.of and not all(archived)):
            raise ValueError(
                "either images, annotations and split are needed, or of alone"
            )
        if self.without and not self.of:
            raise ValueError("without is for pairs, which have of")
        if self.split and not re.fullmatch(r"[a-z]+\d{4}", self.split):
            raise ValueError(f"split {self.split!r} is not like val2017")


def prepare(spec: CocoSpec) -> None:
    """Write the folder, all of it or nothing.

    Raises:
        ValueError: If an archive is damaged, unsafe, or not COCO's.
    """
    folder = Path(spec.path)
    archives.remove_unfinished(folder)
    with storage.atomic_path(folder) as partial:
        partial.mkdir()
        if spec.of:
            _write_pairs(spec, partial)
        else:
            _write_captions(spec, partial)


def _write_captions(spec: CocoSpec, folder: Path) -> None:
    found = read_captions(Path(spec.annotations), spec.split)
    prefix = f"{spec.split}/"

    def chosen(name: str) -> str | None:
        bare = name.removeprefix(prefix)
        return bare if name.startswith(prefix) and bare in found else None

    archive = Path(spec.images)
    archives.unpack(archive, folder / "images", chosen)
    there = [path.name for path in names.files_in(folder / "images")]
    if len(there) < len(found):
        lacking = min(set(found) - set(there))
        raise ValueError(
            f"{archive} holds {len(there)} of the {len(found)} images that have "
            f"captions; {lacking} is missing"
        )
    storage.write_text(
        folder / "prompts.txt", "".join(f"{found[name]}\n" for name in there)
    )


def read_captions(archive: Path, split: str) -> dict[str, str]:
    """Read the caption of the lowest id of each image, by the image's name.

    Raises:
        ValueError: If the archive has no such captions, or they are not COCO's.
    """
    member = f"annotations/captions_{split}.json"
    try:
        with zipfile.ZipFile(archive) as file:
            info = file.getinfo(member)
            if info.file_size > ANNOTATIONS:
                raise ValueError(
                    f"{archive}: {member} has {info.file_size} bytes, and at most "
                    f"{ANNOTATIONS} are allowed"
                )
            data = file.read(info)
    except KeyError as error:
        raise ValueError(f"{archive} holds no {member}") from error
    except archives.DAMAGE as error:
        raise ValueError(f"{archive} is damaged: {error}") from error
    where = f"{archive}: {member}"
    return captions.coco_captions(
        texts.parse_json(texts.decode(data, where), where), where
    )


def _write_pairs(spec: CocoSpec, folder: Path) -> None:
    of = Path(spec.of)
    found = captions.read(of)
    if not found.images:
        raise ValueError(f"{of} holds captions, and no images")
    left_out = set()
    if spec.without:
        without = captions.read(Path(spec.without))
        left_out = {_id(path.name) for path in without.images}
    lines = [
        json.dumps({"input": path.name, "prompt": text})
        for path, text in zip(found.images, found.captions, strict=True)
        if _id(path.name) not in left_out
    ]
    storage.write_text(folder / "pairs.jsonl", "\n".join(lines) + "\n")
    # From where the folder will be, which its name until then does not change.
    inputs = os.path.relpath(found.images[0].parent, Path(spec.path))
    (folder / "inputs").symlink_to(inputs, target_is_directory=True)


def _id(name: str) -> str:
    """Return COCO's id of an image, the digits at the end of its name, in any year."""
    found = re.search(r"(\d{12})\.\w+$", name)
    if found is None:
        raise ValueError(f"{name!r} is not the name of a COCO image")
    return found[1]
