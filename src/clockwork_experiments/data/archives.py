"""Unpack zip and tar archives that nobody vouches for.

Nothing leaves the folder that it is unpacked to: absolute paths, ``..``, links and
special files are refused. What an archive says it holds must fit a limit, before memory
is taken for it, and what comes out of it must be no more than it says. Checksums are
read to the end. Only complete results appear.
"""

from __future__ import annotations

import gzip
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from tqdm import tqdm

from clockwork_experiments.base import storage

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
"""Names of archives that can be unpacked."""

GROWTH = 20
"""How many times its own size an archive may hold, unless a limit is given."""

COUNT = 300_000
"""How many files an archive may hold; the largest of COCO's has 123,403."""

HEADER = 1 << 16
"""Bytes that a name or another note of a tar archive may take."""

CHUNK = 1 << 20
"""Bytes that are copied at a time."""

DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
)
"""What the libraries raise for damaged archives, and for ways to pack of their own."""


@dataclass(frozen=True)
class _Member:
    """A file in an archive.

    Attributes:
        name: Its path, as the archive has it.
        size: Its length as the archive says, in bytes.
        open: Opens it.
    """

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def unpack(
    archive: Path,
    folder: Path,
    choose: Callable[[str], str | None] = lambda name: name,
    limit: int = 0,
) -> int:
    """Unpack an archive's files into a new folder, and return how many there are.

    Args:
        archive: A file whose name ends in one of `SUFFIXES`.
        folder: Where to; an existing folder is replaced once all is there.
        choose: Says under which path a file is wanted, or None if it is not.
        limit: How many bytes the chosen files may have together; `GROWTH` times the
            archive's own size if 0.

    Raises:
        ValueError: If the archive is damaged, or a file in it would leave the folder,
            is a link or special, or is too large; the message names it.
    """
    most = limit or GROWTH * archive.stat().st_size
    with _members(archive) as members, storage.atomic_path(folder) as partial:
        partial.mkdir()
        chosen: dict[str, _Member] = {}
        for member in members:
            name = choose(_checked(archive, member.name))
            if name is not None:
                if name in chosen:
                    raise ValueError(f"{archive} holds {name!r} twice")
                chosen[name] = member
        total = sum(member.size for member in chosen.values())
        if total > most or len(chosen) > COUNT:
            raise ValueError(
                f"{archive} holds {len(chosen)} files of {total} bytes, and at most "
                f"{COUNT} files of {most} bytes are allowed"
            )
        for name, member in tqdm(chosen.items(), desc=archive.name, disable=None):
            place = partial / _checked(archive, name)
            place.parent.mkdir(parents=True, exist_ok=True)
            _copy(archive, member, place)
        if archive.suffix != ".zip":
            _read_to_end(archive, most)
    return len(chosen)


def _read_to_end(archive: Path, most: int) -> None:
    """Read what lies behind the last file, and so the checksum of a packed tar."""
    packed = archive.suffix in (".gz", ".tgz")
    with gzip.open(archive) if packed else archive.open("rb") as file:
        left = most + COUNT * 2 * tarfile.BLOCKSIZE
        while chunk := file.read(CHUNK):
            left -= len(chunk)
            if left < 0:
                raise ValueError(f"{archive} holds far more than its files")


def _copy(archive: Path, member: _Member, place: Path) -> None:
    left = member.size
    try:
        with member.open() as source, place.open("xb") as target:
            while chunk := source.read(CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise ValueError(
                        f"{archive}: {member.name!r} is larger than the archive says"
                    )
                target.write(chunk)
    except DAMAGE as error:
        raise ValueError(f"{archive} is damaged at {member.name!r}: {error}") from error
    if left:
        raise ValueError(f"{archive}: {member.name!r} is shorter than the archive says")


def _checked(archive: Path, name: str) -> str:
    """Return a member's path if it stays in the folder."""
    parts = PurePosixPath(name).parts
    if (
        not parts
        or parts[0] == "/"
        or ".." in parts
        or "\\" in name
        or re.match("[A-Za-z]:", name)
        or "\0" in name
    ):
        raise ValueError(f"{archive}: {name!r} leaves the folder")
    return "/".join(parts)


@contextmanager
def _members(archive: Path) -> Iterator[list[_Member]]:
    """Yield an archive's files; folders are left out, anything else is refused."""
    if not archive.name.endswith(SUFFIXES):
        raise ValueError(f"{archive} is not one of {', '.join(SUFFIXES)}")
    try:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as file:
                yield [
                    _zipped(archive, file, info)
                    for info in file.infolist()
                    if not info.is_dir()
                ]
        else:
            # By its name: guessing would list what no other format makes of it.
            plain = archive.suffix == ".tar"
            read = tarfile.TarFile.taropen if plain else tarfile.TarFile.gzopen
            with read(str(archive), tarinfo=_ShortNotes) as packed:
                yield _all_tarred(archive, packed)
    except DAMAGE as error:
        raise ValueError(f"{archive} is damaged: {error}") from error


def _zipped(archive: Path, file: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise ValueError(f"{archive}: {info.filename!r} is a link or special file")
    if info.flag_bits & 1:
        raise ValueError(f"{archive}: {info.filename!r} is encrypted")
    return _Member(info.filename, info.file_size, lambda: file.open(info))


class _ShortNotes(tarfile.TarInfo):
    """A header; before a long name or other notes are read, they must be short."""

    def _short(self) -> None:
        if not 0 <= self.size <= HEADER:
            raise tarfile.ReadError(
                f"a note of {self.size} bytes, and at most {HEADER} are allowed"
            )

    def _proc_gnulong(self, tarfile: tarfile.TarFile) -> Any:
        self._short()
        return super()._proc_gnulong(tarfile)  # type: ignore[misc]

    def _proc_pax(self, tarfile: tarfile.TarFile) -> Any:
        self._short()
        return super()._proc_pax(tarfile)  # type: ignore[misc]


def _all_tarred(archive: Path, packed: tarfile.TarFile) -> list[_Member]:
    members = []
    for count, info in enumerate(packed):
        if count >= COUNT:
            raise ValueError(f"{archive} holds more than {COUNT} files")
        # Otherwise the library keeps a kilobyte of every file that it has met.
        packed.members = []  # type: ignore[attr-defined]
        if not info.isdir():
            members.append(_tarred(archive, packed, info))
    return members


def _tarred(archive: Path, packed: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    if not info.isreg():
        raise ValueError(f"{archive}: {info.name!r} is a link or special file")

    def opened() -> IO[bytes]:
        source = packed.extractfile(info)
        if source is None:
            raise AssertionError("a regular file can be read")
        return source

    return _Member(info.name, info.size, opened)


def unpack_beside(folder: Path) -> Path | None:
    """Unpack the archive of a folder's name that lies beside it, if there is one.

    A single folder at the archive's top, as browsers and services add one, is left out.

    Raises:
        ValueError: As `unpack`.
    """
    for suffix in SUFFIXES:
        archive = folder.with_name(folder.name + suffix)
        if not archive.is_file():
            continue
        with _members(archive) as members:
            names = [_checked(archive, member.name) for member in members]
        tops = {name.partition("/")[0] if "/" in name else "" for name in names}
        top = tops.pop() if len(tops) == 1 else ""
        top = f"{top}/" if top else ""
        unpack(archive, folder, lambda name, top=top: name.removeprefix(top))  # type: ignore[misc]
        return archive
    return None


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed process left of unpacking to a folder."""
    for path in folder.parent.glob(f".{folder.name}.*.partial"):
        shutil.rmtree(path, ignore_errors=True)
