"""Give a folder of state, or a file of it, one owner at a time.

A lease is a file beside what is leased. It names host, process and job, and its owner
touches it while it works. It is taken over when its owner is provably gone: dead, on
this host; of a Slurm job that has ended, or has been requeued as this one, on another;
or silent for `EXPIRES` seconds. Whoever has lost a lease in
this way, and still runs, is refused when it next puts a file in its place: what the new
owner makes stays its own.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

log = logging.getLogger(__name__)

EXPIRES = 600.0
"""Seconds of silence after which an owner on another host counts as gone."""

_BEAT = 30.0
_LOOK = 2.0
_held: dict[Path, Owner] = {}


@dataclass(frozen=True)
class Owner:
    """Who holds a lease.

    Attributes:
        host: Its machine.
        pid: Its process there.
        started: When that process was started, in the kernel's ticks: a number that a
            later process of the same pid does not share; 0 where it is not known.
        job: Its Slurm job, or empty.
        token: Its own name, which no other owner has.
    """

    host: str
    pid: int
    started: int
    job: str
    token: str

    def __str__(self) -> str:
        """Name it as a person would look for it."""
        job = f", Slurm job {self.job}" if self.job else ""
        return f"process {self.pid} on {self.host}{job}"


@contextmanager
def held(state: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lease of a folder or file within a block.

    Of several processes that train together, the first one holds it for all.

    Args:
        state: What is leased; need not exist. The lease is ``<state>.lease``.
        wait: Wait until it is free, instead of refusing.

    Raises:
        BlockingIOError: If another process holds it; the message says which.
    """
    path = state.with_name(f"{state.name}.lease").absolute()
    if int(os.environ.get("RANK", "0")) or path in _held:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = _myself()
    while not _take(path, owner):
        other = _owner(path)
        if other is not None and not wait:
            raise BlockingIOError(
                f"{state} is in use by {other}; wait for it to end, or end it "
                f"(if it is gone for sure, remove {path})"
            )
        log.info("%s is in use by %s; waiting", state, other)
        time.sleep(_LOOK)
    _held[path] = owner
    done = threading.Event()
    beating = threading.Thread(target=_beat, args=(path, done), daemon=True)
    beating.start()
    try:
        yield
    finally:
        done.set()
        beating.join()
        del _held[path]
        if _owner(path) == owner:
            path.unlink(missing_ok=True)


def confirm() -> None:
    """Make sure that this process still holds what it took.

    Raises:
        BlockingIOError: If another one has taken over a lease of it.
    """
    for path, owner in _held.items():
        other = _owner(path)
        if other != owner:
            raise BlockingIOError(
                f"{path.with_suffix('')} was taken over by "
                f"{other or 'another process'}; nothing more is written"
            )


def _myself() -> Owner:
    pid = os.getpid()
    job = os.environ.get("SLURM_JOB_ID", "")
    return Owner(socket.gethostname(), pid, _started(pid), job, uuid.uuid4().hex)


def _started(pid: int) -> int:
    try:
        # The command's name, in parentheses, may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        # A zombie has ended, though nobody has asked for its exit code.
        return 0 if fields[0] == "Z" else int(fields[19])
    except (OSError, ValueError, IndexError):
        return 0


def _take(path: Path, owner: Owner) -> bool:
    """Take a lease if it is free or its owner is gone."""
    if _gone(path):
        # Of several that see it, one succeeds in moving it away.
        grave = path.with_name(f"{path.name}.{owner.token}")
        with contextlib.suppress(FileNotFoundError):
            path.rename(grave)
            log.info("%s: its owner is gone; taking over", path)
            grave.unlink(missing_ok=True)
    own = path.with_name(f"{path.name}.{owner.token}")
    own.write_text(json.dumps(asdict(owner)), encoding="utf-8")
    try:
        # A link appears whole or not at all, on shared file systems as well.
        os.link(own, path)
    except FileExistsError:
        return False
    finally:
        own.unlink()
    return True


def _owner(path: Path) -> Owner | None:
    try:
        return Owner(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        # Of a disk that was full, or of somebody else's making.
        return Owner("an unknown host", 0, 0, "", "")


def _gone(path: Path) -> bool:
    owner = _owner(path)
    if owner is None:
        return False
    if owner.host == socket.gethostname() and owner.pid:
        now = _started(owner.pid)
        if Path("/proc/self/stat").exists():
            return now == 0 or (owner.started != 0 and now != owner.started)
    if owner.job and _ended(owner.job):
        return True
    try:
        return clock_of(path.parent) - path.stat().st_mtime > EXPIRES
    except FileNotFoundError:
        return False


def clock_of(folder: Path) -> float:
    """Return the time by the clock that dates files there, not this host's."""
    with tempfile.TemporaryFile(dir=folder) as probe:
        return os.fstat(probe.fileno()).st_mtime


def _ended(job: str) -> bool:
    """Tell whether a Slurm job is known to have left the node where it was."""
    if job == os.environ.get("SLURM_JOB_ID"):
        # Requeued: Slurm ends a job before it starts it elsewhere.
        return True
    try:
        asked = subprocess.run(
            ["squeue", "--noheader", "--jobs", job],
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    # A job that Slurm has forgotten is an invalid one; any other failure says nothing.
    forgotten = "Invalid job id" in asked.stderr
    return forgotten or (asked.returncode == 0 and not asked.stdout.strip())


def _beat(path: Path, done: threading.Event) -> None:
    while not done.wait(_BEAT):
        with contextlib.suppress(OSError):
            os.utime(path)
