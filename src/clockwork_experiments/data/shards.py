"""Read and write rows of images and features, in one file or in several shards.

A few rows at a time, so that memory does not grow with their number. Blocks end at the
same rows however the files are cut: what is summed over blocks is the same, bit by bit,
for one shard and for many.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clockwork_experiments.base import storage

IMAGES = 64
"""Images per block: 50 MB of 512×512 pixels."""

FEATURES = 2048
"""Rows of features per block."""

_BYTES = 1 << 21
"""Bytes that are hashed at once."""


TYPES = {
    **{"U8": "u1", "I32": "<i4", "I64": "<i8"},
    **{"F16": "<f2", "F32": "<f4", "F64": "<f8", "BOOL": "?"},
}
"""Types of rows, as safetensors and as numpy name them."""


class Rows:
    """Rows of a tensor that one file holds, or several in turn."""

    def __init__(self, paths: Sequence[Path], name: str, framework: str = "pt") -> None:
        """Look at the files' heads, and compare their content with its checksum.

        Args:
            paths: The shards in order.
            name: The tensor's name in each of them.
            framework: ``pt`` for torch, or ``np`` for numpy.

        Raises:
            ValueError: If a file is missing or damaged, lacks the tensor, or holds rows
                of another shape or type than the others.
        """
        if not paths:
            raise ValueError(f"there are no files with the tensor {name!r}")
        self.name, self.framework = name, framework
        self.paths = tuple(paths)
        self.ends: list[int] = []
        kinds = []
        for path in paths:
            tensors = _head(path)
            if name not in tensors:
                raise ValueError(f"{path} lacks the tensor {name!r}")
            kind, shape, _ = tensors[name]
            if kind not in TYPES or not shape:
                raise ValueError(f"{path}: {name}, {kind} {shape}, has no rows to read")
            kinds.append((kind, shape[1:]))
            if kinds[0] != kinds[-1]:
                raise ValueError(
                    f"{path}: rows of {name} are {kind} {shape[1:]}, not "
                    f"{kinds[0][0]} {kinds[0][1]}, as in {paths[0]}"
                )
            self.ends.append(shape[0] + (self.ends[-1] if self.ends else 0))
        self.kind, self.row_shape = kinds[0]

    def __len__(self) -> int:
        """Return the number of rows in all files."""
        return self.ends[-1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of all rows together."""
        return (len(self), *self.row_shape)

    def __getitem__(self, wanted: slice | int) -> Any:
        """Read some consecutive rows, or one, as a tensor or an array."""
        if isinstance(wanted, int):
            if not 0 <= wanted < len(self):
                raise IndexError(f"row {wanted} of {len(self)} does not exist")
            return self[wanted : wanted + 1][0]
        first, last, step = wanted.indices(len(self))
        if step != 1:
            raise ValueError(f"rows are read one after the other, not by {step}")
        size = math.prod(self.row_shape) * np.dtype(TYPES[self.kind]).itemsize
        content = bytearray(max(last - first, 0) * size)
        left, start = memoryview(content), 0
        for path, end in zip(self.paths, self.ends, strict=True):
            if first < end and start < last:
                place = _head(path)[self.name].data_offsets[0]
                from_row, to_row = max(first - start, 0), min(last, end) - start
                # Not mapped: what is mapped counts as memory.
                with path.open("rb") as file:
                    file.seek(place + from_row * size)
                    read = file.readinto(left[: (to_row - from_row) * size])
                left = left[read:]
            start = end
        if len(left) or not content:
            raise ValueError(f"rows {first} to {last} of {len(self)} do not exist")
        array = np.frombuffer(content, TYPES[self.kind]).reshape(-1, *self.row_shape)
        if self.framework == "np":
            return array
        import torch

        return torch.from_numpy(array)

    def blocks(self, size: int) -> Iterator[Any]:
        """Read all rows, ``size`` at a time; the last block may be shorter."""
        for start in range(0, len(self), size):
            yield self[start : start + size]


def paired(*rows: Rows, size: int) -> Iterator[tuple[Any, ...]]:
    """Read rows of several tensors side by side.

    Raises:
        ValueError: If they differ in number.
    """
    for other in rows[1:]:
        if len(other) != len(rows[0]):
            raise ValueError(
                f"{len(rows[0])} rows of {rows[0].paths[0]} and {len(other)} of "
                f"{other.paths[0]} make no pairs"
            )
    return zip(*(each.blocks(size) for each in rows), strict=True)


def images_by_run(paths: Sequence[Path]) -> dict[str, Rows]:
    """Return images of runs, ``<run>/<shard>.safetensors``, as numpy's arrays."""
    shards: dict[str, list[Path]] = {}
    for path in sorted(paths, key=lambda path: path.stem):
        shards.setdefault(path.parent.name, []).append(path)
    return {name: Rows(files, "images", "np") for name, files in shards.items()}


class Parts(NamedTuple):
    """A tensor that is made, and written, some rows at a time.

    Attributes:
        kind: Type of its values, a key of `TYPES`.
        shape: Of all rows together.
        parts: Consecutive rows, as tensors or arrays.
    """

    kind: str
    shape: tuple[int, ...]
    parts: Iterable[Any]


def write_rows(
    path: Path, tensors: Mapping[str, Parts], metadata: Mapping[str, str] | None = None
) -> None:
    """Write what `base.storage.write_tensors` does, a part at a time.

    The parts of one tensor are taken after those of another, in the order of names.

    Raises:
        ValueError: If parts are of another type or shape than said, or are too few or
            too many; nothing is left of the file then.
    """
    head: dict[str, Any] = {}
    place = 0
    for name in sorted(tensors):
        kind, shape, _ = tensors[name]
        end = place + math.prod(shape) * np.dtype(TYPES[kind]).itemsize
        head[name] = {"dtype": kind, "shape": shape, "data_offsets": (place, end)}
        place = end
    total = hashlib.sha256()
    notes = {**(metadata or {}), storage.CONTENT: total.hexdigest()}
    with storage.atomic_path(path) as partial, partial.open("wb") as file:
        file.write(_encoded(head, notes))
        for name in sorted(tensors):
            kind, shape, parts = tensors[name]
            total.update(storage.described(name, kind, shape))
            count = 0
            for part in parts:
                array = np.ascontiguousarray(part)
                count += len(array)
                fits = array.shape[1:] == shape[1:] and count <= shape[0]
                if array.dtype != TYPES[kind] or not fits:
                    raise ValueError(
                        f"{path}: rows up to {count} of {name} are {array.dtype} "
                        f"{array.shape[1:]}, not {kind} of {shape}"
                    )
                total.update(array.data)
                file.write(array.data)
            if count != shape[0]:
                raise ValueError(f"{path}: {count} rows of {name}, not {shape[0]}")
        # As long as before: the checksum is known only now.
        file.seek(0)
        file.write(_encoded(head, {**notes, storage.CONTENT: total.hexdigest()}))


def _encoded(head: Mapping[str, Any], notes: Mapping[str, str]) -> bytes:
    """Return the head of a safetensors file, its length in front."""
    text = json.dumps({"__metadata__": dict(sorted(notes.items())), **head}).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


class _Tensor(NamedTuple):
    """Where a tensor lies in its file."""

    kind: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def _head(path: Path) -> dict[str, _Tensor]:
    """Return a file's tensors, once it is known to be whole."""
    found = storage.existing(path).stat()
    return _checked(path, found.st_mtime_ns, found.st_size)


@cache
def _checked(path: Path, changed: int, size: int) -> dict[str, _Tensor]:
    """Compare a file with its checksum, once per process, a piece at a time.

    Raises:
        ValueError: If it is missing, truncated or corrupt, naming it.
    """
    with storage.opened(path, "np") as opened:  # checks that the head is sound
        notes = opened.metadata() or {}
    total = hashlib.sha256()
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        head = json.loads(file.read(length))
        head.pop("__metadata__", None)
        tensors = {}
        for name in sorted(head):
            start, end = (8 + length + offset for offset in head[name]["data_offsets"])
            shape = tuple(head[name]["shape"])
            tensors[name] = _Tensor(head[name]["dtype"], shape, (start, end))
            total.update(storage.described(name, head[name]["dtype"], shape))
            file.seek(start)
            while start < end:
                piece = file.read(min(_BYTES, end - start))
                assert piece, f"{path} was cut while it was read"
                total.update(piece)
                start += len(piece)
    storage.compare(path, notes, total.hexdigest())
    return tensors
