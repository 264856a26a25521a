"""Read and write files so that none is ever half-written or silently damaged.

A file appears under its name complete or not at all: it is written beside its place
and renamed. Whatever cannot be read is reported with its path.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clockwork_experiments.base import lease
from clockwork_experiments.base.texts import existing as existing
from clockwork_experiments.base.texts import read_json as read_json
from clockwork_experiments.base.texts import read_lines

if TYPE_CHECKING:
    import numpy as np
    import torch


CONTENT = "content"
"""Name of the checksum in a file's metadata."""

_HOST = socket.gethostname()
_DAY = 86400.0


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a path to write to, which becomes ``path`` when the block succeeds.

    Works for a file and for a folder; an existing folder is replaced. What is put in
    place is on the disk, and readable by whom the umask lets read it. What killed
    processes have left beside it is removed; those of other hosts count as killed when
    they have written nothing for a day.

    Raises:
        OSError: If the disk is full, or fails otherwise; it names ``path``, whatever
            library wrote.
        BlockingIOError: If this process has lost the lease of its state.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    partial = path.with_name(f".{path.name}.{_HOST}.{os.getpid()}.partial")
    try:
        with _naming(path):
            yield partial
            _settle(partial)
        lease.confirm()
        if partial.is_dir() and path.is_dir():
            shutil.rmtree(path)
        os.replace(partial, path)
    finally:
        _remove(partial)


def _sweep(path: Path) -> None:
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        host, _, pid = left.name[len(path.name) + 2 : -len(".partial")].rpartition(".")
        if _dead(int(pid)) if host == _HOST and pid.isdigit() else _silent(left):
            _remove(left)


def _dead(pid: int) -> bool:
    return Path("/proc").exists() and not Path(f"/proc/{pid}").exists()


def _silent(left: Path) -> bool:
    """Return whether nobody has written to a file for a day."""
    try:
        return lease.clock_of(left.parent) - left.stat().st_mtime > _DAY
    except FileNotFoundError:
        return False


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _settle(path: Path) -> None:
    """Give files the modes that the umask asks for, and bring them to the disk.

    safetensors writes for its owner alone.
    """
    mask = os.umask(0)
    os.umask(mask)
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file() and not file.is_symlink():
            file.chmod(0o666 & ~mask)
            with file.open("rb") as opened:
                os.fsync(opened.fileno())


def write_text(path: Path, text: str) -> None:
    """Write a text file in one piece."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write indented JSON with a final newline."""
    write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")


def write_tensors(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write named tensors and string metadata as one safetensors file.

    The checksum of names, types, shapes and values goes into the metadata, and
    `read_tensors` compares it. Equal content is equal bytes.
    """
    from safetensors.torch import save_file

    contiguous = {name: value.detach().contiguous() for name, value in tensors.items()}
    notes = {**(metadata or {}), CONTENT: _content_sha256(contiguous)}
    with atomic_path(path) as partial:
        save_file(contiguous, str(partial), notes)
        _sort_metadata(partial)


def _sort_metadata(path: Path) -> None:
    """Put the metadata of a safetensors file, which come in any order, in theirs."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        notes = header.pop("__metadata__", {})
        header = {"__metadata__": dict(sorted(notes.items())), **header}
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        assert len(text) <= length, "the header has grown"
        file.seek(8)
        file.write(text.ljust(length))


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read a safetensors file.

    Returns:
        Its tensors by name, and its metadata.

    Raises:
        ValueError: If the file is missing, truncated or corrupt, naming it.
    """
    tensors, metadata = _read(path, "pt")
    compare(path, metadata, _content_sha256(tensors))
    return tensors, metadata


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read a safetensors file as numpy arrays, without importing torch.

    Raises:
        ValueError: If the file is missing, truncated or corrupt, naming it.
    """
    arrays, metadata = _read(path, "np")
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        total.update(described(name, str(array.dtype), array.shape))
        total.update(array.tobytes())
    compare(path, metadata, total.hexdigest())
    return arrays


def _read(path: Path, framework: str) -> tuple[dict[str, Any], dict[str, str]]:
    with opened(path, framework) as file:
        values = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return values, file.metadata() or {}


@contextmanager
def opened(path: Path, framework: str = "pt") -> Iterator[Any]:
    """Open a safetensors file, to read parts of it.

    Raises:
        ValueError: If the file is missing, truncated or corrupt, naming it.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(existing(path)), framework=framework) as file:
            yield file
    except SafetensorError as error:
        raise ValueError(_damaged(path, str(error))) from error


def compare(path: Path, metadata: Mapping[str, str], actual: str) -> None:
    """Refuse a file whose content is not what its metadata say.

    Raises:
        ValueError: If the checksums differ, naming the file.
    """
    if metadata.get(CONTENT, actual) != actual:
        raise ValueError(_damaged(path, "its content does not match its checksum"))


def _content_sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    import torch

    total = hashlib.sha256()
    for name in sorted(tensors):
        kind = str(tensors[name].dtype).removeprefix("torch.")
        total.update(described(name, kind, tensors[name].shape))
        flat = tensors[name].cpu().contiguous().flatten().view(torch.uint8)
        total.update(flat.numpy().tobytes())
    return total.hexdigest()


_KINDS = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}


def described(name: str, kind: str, shape: Sequence[int]) -> bytes:
    """Return what a checksum says of a tensor before its values.

    Args:
        name: The tensor's.
        kind: Its type, as safetensors, torch or numpy call it.
        shape: Its shape.
    """
    return f"{name} {_KINDS.get(kind, kind)} {list(shape)}\n".encode()


def _damaged(path: Path, why: str) -> str:
    return f"{path} is corrupt or truncated ({why}); delete it to make it again"


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn a failure of the disk into an `OSError` that names the file."""
    try:
        yield
    except Exception as error:
        number = _system_error(error)
        if number is None:
            raise
        what = f"{os.strerror(number)} while writing"
        raise OSError(number, what, str(path)) from error


def _system_error(error: BaseException | None) -> int | None:
    """Return the errno behind a writer's error, unless it names its file already.

    safetensors mentions it in the text of an error of its own; torch raises that of its
    archive's consistency while it handles the system's.
    """
    while error is not None:
        if isinstance(error, OSError):
            return error.errno if error.filename is None else None
        mentioned = re.search(r"\(os error (\d+)\)", str(error))
        if mentioned:
            return int(mentioned[1])
        error = error.__cause__ or error.__context__
    return None


CHECKSUMS = "SHA256SUMS"
"""File in a model's folder with the checksums of its weights."""


def write_checksums(folder: Path) -> None:
    """Record the checksum of each weight file under a model's folder."""
    lines = [
        f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n"
        for path in sorted(folder.rglob("*.safetensors"))
    ]
    write_text(folder / CHECKSUMS, "".join(lines))


def check_weights(folder: Path) -> None:
    """Make sure that every weight file of a model's folder is whole.

    Compares with `CHECKSUMS` where the folder has one; otherwise with the lengths in
    each file's own header.

    Raises:
        ValueError: If a file is missing, truncated or corrupt, naming it.
    """
    from safetensors import SafetensorError, safe_open

    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    sums = folder / CHECKSUMS
    for line in read_lines(sums) if sums.is_file() else ():
        expected, _, name = line.partition("  ")
        if sha256(existing(folder / name)) != expected:
            raise ValueError(
                f"{folder / name} is corrupt or truncated: "
                f"its checksum differs from {sums}"
            )
    paths = list(folder.rglob("*.safetensors"))
    if not paths:
        raise ValueError(f"{folder} holds no weights (*.safetensors)")
    for path in paths:
        try:
            with safe_open(str(path), framework="pt"):
                pass
        except SafetensorError as error:
            raise ValueError(f"{path} is corrupt or truncated ({error})") from error


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of bytes in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_folder(folder: Path) -> str:
    """Return one SHA-256 for the weights (``*.safetensors``) under a folder."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        total.update(path.relative_to(folder).as_posix().encode())
        total.update(sha256(path).encode())
    return total.hexdigest()
