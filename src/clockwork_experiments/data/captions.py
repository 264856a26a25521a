"""Read folders of captions, and of images if there are any.

A text file is captions alone. A folder is read in place, in one of three layouts:

- ``prompts.txt`` with one caption per line, and, if images are wanted, ``images/`` with
  one file per caption in the order of their names;
- ``metadata.jsonl`` with ``file_name`` and ``text`` per line, the images beside it
  (the layout ``imagefolder`` of Hugging Face);
- COCO as it unpacks: ``annotations/captions_<split>.json`` and ``<split>/``. Of each
  image the caption of the lowest id counts, in the order of the images' names. Where
  several splits are there, the folder is that of the split's images.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from clockwork_experiments.base import texts
from clockwork_experiments.data import names, pictures

log = logging.getLogger(__name__)

HEADERS = ("caption", "captions", "prompt", "prompts", "text", "sentence")
"""What a first line says, in lower case, that is a column's name and no caption."""


@dataclass(frozen=True)
class Captioned:
    """Captions, and the images that they are of.

    Attributes:
        listed: The file that lists the captions.
        captions: The captions.
        images: The image of each caption; none if the folder has no images.
    """

    listed: Path
    captions: tuple[str, ...]
    images: tuple[Path, ...] = ()


def read(folder: Path) -> Captioned:
    """Read a folder or file of captions; images are found, and not opened.

    Raises:
        ValueError: In one line: what is wrong, and in which line or file.
    """
    plain, listed = folder / "prompts.txt", folder / "metadata.jsonl"
    if not (folder.is_dir() or folder.is_file()):
        raise ValueError(f"{folder} is not a folder, and no file of captions")
    if plain.is_file() and listed.is_file():
        raise ValueError(f"{folder} holds both {plain.name} and {listed.name}")
    if folder.is_file():
        # What lies beside it may be anything.
        found = dataclasses.replace(_read_plain(folder), images=())
    elif plain.is_file():
        found = _read_plain(plain)
    elif listed.is_file():
        found = _read_listed(listed)
    else:
        annotations = _coco_annotations(folder)
        if annotations is None:
            raise ValueError(f"{plain} does not exist")
        found = _read_coco(annotations)
    if not found.captions:
        raise ValueError(f"{found.listed} holds no caption")
    first: dict[str, int] = {}
    for text in found.captions:
        first[text] = first.get(text, 0) + 1
    again = len(found.captions) - len(first)
    if again:
        twice = next(text for text in found.captions if first[text] > 1)
        log.warning(
            "%s: %d of %d captions repeat an earlier one, such as %r",
            found.listed,
            again,
            len(found.captions),
            twice[:80],
        )
    return found


def check(folder: Path, count: int, opened: bool = False) -> tuple[int, int]:
    """Make sure that a folder is as `read` takes it.

    Args:
        folder: The folder.
        count: How many captions it must have at least.
        opened: Whether to read each image too.

    Returns:
        How many captions there are, and how many images.

    Raises:
        ValueError: In one line: what is wrong, and in which line or file.
    """
    found = read(folder)
    if len(found.captions) < count:
        raise ValueError(
            f"{found.listed} has {len(found.captions)} captions, and {count} are needed"
        )
    for file in tqdm(found.images, desc="images", disable=None) if opened else ():
        pictures.read(file)
    return len(found.captions), len(found.images)


def _read_plain(path: Path) -> Captioned:
    lines = texts.read_lines(path)
    for number, line in enumerate(lines, 1):
        if "\t" in line.strip():
            raise ValueError(
                f"{path}: line {number} has a tab; the file holds captions alone, and "
                "no columns"
            )
    if not any(line.strip() for line in lines):
        raise ValueError(f"{path} holds no caption")
    if lines[0].strip().lower() in HEADERS:
        raise ValueError(
            f"{path}: line 1 is {lines[0].strip()!r}, a header and no caption"
        )
    found = tuple(
        texts.caption(line, f"{path}: line {number}")
        for number, line in enumerate(lines, 1)
    )
    folder = path.with_name("images")
    if path.name != "prompts.txt" or not folder.is_dir():
        return Captioned(path, found)
    images = names.files_in(folder)
    if len(images) != len(found):
        raise ValueError(
            f"{folder} holds {len(images)} files, and {path} {len(found)} captions"
        )
    return Captioned(path, found, tuple(images))


def _read_listed(path: Path) -> Captioned:
    found, images = [], []
    for where, line in texts.read_json_lines(path):
        for key in ("file_name", "text"):
            if key not in line:
                raise ValueError(f"{where} lacks {key}")
        found.append(texts.caption(line["text"], f"{where}: text"))
        images.append(image_below(path.parent, line["file_name"], where))
    return Captioned(path, tuple(found), tuple(images))


def image_below(folder: Path, name: Any, where: str) -> Path:
    """Return the file below a folder that a list names.

    Raises:
        ValueError: If it is no name, leaves the folder, or is not there.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"{where}: {name!r} is not the name of a file")
    parts = PurePosixPath(name).parts
    if ".." in parts or parts[0] == "/":
        raise ValueError(f"{where}: {name!r} leaves its folder")
    path = names.find(folder, parts)
    if path is None:
        raise ValueError(f"{where}: {folder / name} does not exist")
    return path


# --- COCO -----------------------------------------------------------------------------


def _coco_annotations(folder: Path) -> Path | None:
    """Return the list of captions of an unpacked COCO; None if this is no COCO."""
    own = folder.parent / "annotations" / f"captions_{folder.name}.json"
    if own.is_file():
        return own
    found = sorted((folder / "annotations").glob("captions_*.json"))
    there = [path for path in found if _split_of(path).is_dir()]
    if found and not there:
        raise ValueError(f"{found[0]} is of images in {_split_of(found[0])}, not there")
    if len(there) > 1:
        each = ", ".join(str(_split_of(path)) for path in there)
        raise ValueError(f"{folder} holds several splits; give the path of one: {each}")
    return there[0] if there else None


def _split_of(annotations: Path) -> Path:
    name = annotations.stem.removeprefix("captions_")
    return annotations.parent.parent / name


def _read_coco(path: Path) -> Captioned:
    found = coco_captions(texts.read_json(path), str(path))
    folder = _split_of(path)
    there = {file.name for file in folder.iterdir()}
    missing = sorted(set(found) - there)
    if missing:
        raise ValueError(
            f"{folder} lacks {len(missing)} of the {len(found)} images that have "
            f"captions, such as {missing[0]}"
        )
    order = sorted(found)
    images = tuple(folder / name for name in order)
    return Captioned(path, tuple(found[name] for name in order), images)


def coco_captions(data: Any, where: str) -> dict[str, str]:
    """Return the caption of the lowest id of each image, by the image's name.

    Captions of images that the list does not have are left out, and said so.

    Args:
        data: What COCO's ``captions_<split>.json`` says.
        where: The file, for messages.

    Raises:
        ValueError: In one line that names the entry that is not COCO's.
    """
    if not isinstance(data, dict):
        raise ValueError(f"{where} is not a list of captions, but no mapping")
    images, captions = (
        _entries(data, "images", where),
        _entries(data, "annotations", where),
    )
    file_names: dict[int, str] = {}
    for entry, item in images:
        key = _id(item, "id", entry)
        name = item.get("file_name")
        if not isinstance(name, str) or not name or PurePosixPath(name).name != name:
            raise ValueError(f"{entry}: file_name {name!r} is not the name of a file")
        if key in file_names:
            raise ValueError(f"{entry}: id {key} is of an earlier image too")
        file_names[key] = name
    first: dict[str, tuple[int, str]] = {}
    orphans: list[tuple[int, int]] = []
    for entry, item in captions:
        key, image = _id(item, "id", entry), _id(item, "image_id", entry)
        if image not in file_names:
            orphans.append((key, image))
            continue
        # Some captions are empty; some have line breaks in them or behind them.
        given = item.get("caption")
        if isinstance(given, str) and not given.strip():
            continue
        name = file_names[image]
        if name not in first or key < first[name][0]:
            first[name] = (key, texts.caption(given, f"{entry}: caption"))
    if orphans:
        log.warning(
            "%s: %d captions are of images that it does not list, and are left out, "
            "such as annotation %d of image %d",
            where,
            len(orphans),
            *orphans[0],
        )
    if not first:
        raise ValueError(f"{where} holds no caption of its images")
    return {name: " ".join(text.split()) for name, (_, text) in first.items()}


def _entries(
    data: dict[str, Any], key: str, where: str
) -> Sequence[tuple[str, dict[str, Any]]]:
    listed = data.get(key)
    if not isinstance(listed, list):
        raise ValueError(
            f"{where} is not a list of captions: it lacks the list {key!r}"
        )
    for number, item in enumerate(listed):
        if not isinstance(item, dict):
            raise ValueError(f"{where}: {key}[{number}] is not a mapping")
    return [(f"{where}: {key}[{n}]", item) for n, item in enumerate(listed)]


def _id(item: dict[str, Any], key: str, where: str) -> int:
    value = item.get(key)
    if type(value) is not int:
        raise ValueError(f"{where}: {key} {value!r} is not a whole number")
    return value
