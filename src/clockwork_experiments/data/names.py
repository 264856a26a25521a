"""Find files by the names that people give them, and put them in order.

One name can be written in two ways, é as one character or as e with an accent (Macs
write the latter), and some file systems do not tell case apart. Names are taken for
equal wherever a person takes them so; where two files are equally meant, or two orders,
both are named and none is taken.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

LEFT_BEHIND = ("thumbs.db", "desktop.ini", "icon\r")
"""Files, in lower case, that a system leaves in folders; it hides its others (``.``).
"""


def composed(name: str) -> str:
    """Return a name in the form in which é is one character (NFC)."""
    return unicodedata.normalize("NFC", name)


def _folded(name: str) -> str:
    return composed(composed(name).casefold())


def files_in(folder: Path) -> list[Path]:
    """Return a folder's files in the order of their names; not what a system left.

    Raises:
        ValueError: If there is no such folder, it holds another one, or the order of
            its files is not plain: two names are written alike, or sort otherwise by
            their numbers (2 before 10), or regardless of case.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    files = []
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name.lower() in LEFT_BEHIND:
            continue
        if not path.is_file():
            raise ValueError(f"{path} is not a file, and {folder} holds files alone")
        files.append(path)
    files.sort(key=lambda path: composed(path.name))
    for one, other in zip(files, files[1:], strict=False):
        if composed(one.name) == composed(other.name):
            raise ValueError(
                f"{folder}: two files are named {composed(one.name)!r}, in two forms "
                "of Unicode; rename one"
            )
    for what, key in (("by number", _natural), ("regardless of case", _folded)):
        others = sorted(files, key=lambda path: key(composed(path.name)))
        for one, other in zip(files, others, strict=True):
            if one != other:
                raise ValueError(
                    f"{folder}: {one.name!r} is before {other.name!r} by character and "
                    f"after it {what}; rename the files (001, 002, …) so that their "
                    "order is plain"
                )
    return files


def _natural(name: str) -> list[tuple[int, str, int]]:
    """Return what sorts 2 before 10, and otherwise by character."""
    return [
        (0, "", int(part)) if part.isdecimal() else (1, part, 0)
        for part in re.split(r"(\d+)", name)
        if part
    ]


def find(folder: Path, parts: Sequence[str]) -> Path | None:
    """Find a file below a folder by the parts of its path, in any form and case.

    Raises:
        ValueError: If several files are equally meant.
    """
    place: Path | None = folder
    for part in parts:
        place = _child(place, part) if place is not None else None
    return place if place is not None and place.is_file() else None


def _child(folder: Path, name: str) -> Path | None:
    if (folder / name).exists():
        return folder / name
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    for key in (composed, _folded):
        alike = [item for item in inside if key(item.name) == key(name)]
        if len(alike) > 1:
            raise ValueError(
                f"{folder} holds no {name!r}, and {len(alike)} files that it may mean: "
                + ", ".join(repr(item.name) for item in alike)
            )
        if alike:
            return alike[0]
    return None
