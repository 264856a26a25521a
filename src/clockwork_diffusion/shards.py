"""Read rows of images and features that lie in one file or in several shards.

A few rows at a time, so that memory does not grow with their number. Blocks end at the
same rows however the files are cut: what is summed over blocks is the same, bit by bit,
for one shard and for many.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from clockwork_diffusion import storage

IMAGES = 64
"""Images per block: 50 MB of 512×512 pixels."""

FEATURES = 2048
"""Rows of features per block."""

_BYTES = 1 << 21
"""Bytes that are hashed at once."""


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
            shape, kind = _head(path, name)
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
        parts, start = [], 0
        for path, end in zip(self.paths, self.ends, strict=True):
            if first < end and start < last:
                # Opened anew each time: what is mapped counts as memory while it is.
                with storage.opened(path, self.framework) as file:
                    rows = file.get_slice(self.name)
                    part = rows[max(first - start, 0) : min(last, end) - start]
                    parts.append(part.copy() if self.numpy else part.clone())
            start = end
        if not parts:
            raise ValueError(f"rows {first} to {last} of {len(self)} do not exist")
        return parts[0] if len(parts) == 1 else self._joined(parts)

    @property
    def numpy(self) -> bool:
        """Tell whether rows come as numpy's arrays."""
        return self.framework == "np"

    def _joined(self, parts: list[Any]) -> Any:
        if self.numpy:
            import numpy as np

            return np.concatenate(parts)
        import torch

        return torch.cat(parts)

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


def _head(path: Path, name: str) -> tuple[tuple[int, ...], str]:
    """Return a tensor's shape and type, once the file is known to be whole."""
    check(path)
    with storage.opened(path) as file:
        if name not in file.keys():  # noqa: SIM118
            raise ValueError(f"{path} lacks the tensor {name!r}")
        rows = file.get_slice(name)
        shape = tuple(rows.get_shape())
    if not shape:
        raise ValueError(f"{path}: {name} has no rows")
    return shape, rows.get_dtype()


def check(path: Path) -> None:
    """Compare a file with its checksum, once per process, a piece at a time.

    Raises:
        ValueError: If it is missing, truncated or corrupt, naming it.
    """
    found = storage.existing(path).stat()
    _check(path, found.st_mtime_ns, found.st_size)


@cache
def _check(path: Path, changed: int, size: int) -> None:
    total = hashlib.sha256()
    # As numpy's arrays: drawing a figure needs no torch.
    with storage.opened(path, "np") as file:
        names, notes = sorted(file.keys()), file.metadata() or {}
        shapes = {name: file.get_slice(name).get_shape() for name in names}
    for name in names:
        total.update(name.encode())
        if not shapes[name]:
            with storage.opened(path, "np") as file:
                total.update(file.get_tensor(name).tobytes())
            continue
        step, start = 1, 0
        while start < shapes[name][0]:
            with storage.opened(path, "np") as file:
                rows = file.get_slice(name)[start : min(start + step, shapes[name][0])]
                total.update(rows.tobytes())
            start += step
            # After the first row it is known how many fit.
            step = max(1, _BYTES // max(rows[:1].nbytes, 1))
    storage.compare(path, notes, total.hexdigest())
