"""Do long work in chunks that survive a killed process."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from tqdm import tqdm

from clockwork_diffusion.finite import NotFiniteError
from clockwork_experiments.base import interruption, storage

log = logging.getLogger(__name__)


def in_chunks(
    total: int,
    size: int,
    work: Callable[[slice], dict[str, torch.Tensor]],
    state: Path,
    fingerprint: str,
    name: str,
    describe: Callable[[int], str] = str,
) -> dict[str, torch.Tensor]:
    """Compute rows ``0 … total - 1`` a chunk at a time, and keep each chunk on disk.

    Chunks that an earlier, killed process left are not computed again, provided that
    it did the same work.

    Args:
        total: Number of rows.
        size: Rows per chunk.
        work: Computes the tensors of some rows; their first dimension counts rows.
        state: Folder of the chunks; `discard` removes it when all is saved elsewhere.
        fingerprint: Says what the work is: settings, weights, code.
        name: What the progress bar calls the work.
        describe: Says what a row is, such as its prompt and seed.

    Returns:
        The tensors of all rows.

    Raises:
        InterruptedError: If SIGTERM came, once the chunk at hand is kept.
        ValueError: If the work finds rows that are not finite, describing the first.
    """
    parts = list(each_chunk(total, size, work, state, fingerprint, name, describe))
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def each_chunk(
    total: int,
    size: int,
    work: Callable[[slice], dict[str, torch.Tensor]],
    state: Path,
    fingerprint: str,
    name: str,
    describe: Callable[[int], str] = str,
) -> Iterator[dict[str, torch.Tensor]]:
    """Yield the chunks of `in_chunks` one by one, so that memory holds few."""
    open_state(state, fingerprint, name)
    notes = {"work": storage.sha256_bytes(f"{fingerprint}\n{total} {size}".encode())}
    with interruption.noticing_sigterm() as terminated:
        starts = range(0, total, size)
        hidden = True if len(starts) == 1 else None
        for start in tqdm(starts, desc=name, unit="chunk", disable=hidden):
            rows = slice(start, min(start + size, total))
            path = state / f"{start:08d}.safetensors"
            part = _kept(path, notes)
            if part is not None:
                log.info("%s: rows from %d on were done before", name, start)
            else:
                part = _worked(work, rows, name, describe)
                storage.write_tensors(path, part, notes)
                log.info("%s: rows %d to %d done", name, rows.start, rows.stop - 1)
            yield part
            if terminated() and rows.stop < total:
                raise interruption.stopped(name, rows.stop, total)


def _worked(
    work: Callable[[slice], dict[str, torch.Tensor]],
    rows: slice,
    name: str,
    describe: Callable[[int], str],
) -> dict[str, torch.Tensor]:
    try:
        return work(rows)
    except NotFiniteError as error:
        first = rows.start + error.rows[0]
        raise ValueError(
            f"{name}: {error.what} are not finite in {len(error.rows)} of {error.of} "
            f"rows; the first is {describe(first)}"
        ) from error


def _kept(path: Path, notes: dict[str, str]) -> dict[str, torch.Tensor] | None:
    """Return a chunk that is there and of this work."""
    if not path.is_file():
        return None
    part, found = storage.read_tensors(path)
    return part if found.get("work") == notes["work"] else None


def open_state(state: Path, fingerprint: str, name: str) -> None:
    """Start a folder of results, or go on with it if it is of the same work."""
    marker = state / "fingerprint.txt"
    if state.is_dir() and (
        not marker.is_file() or marker.read_text(encoding="utf-8") != fingerprint
    ):
        log.info("%s: the chunks in %s are of other work; starting over", name, state)
        shutil.rmtree(state)
    storage.write_text(marker, fingerprint)


def discard(state: Path) -> None:
    """Remove the chunks."""
    shutil.rmtree(state, ignore_errors=True)
