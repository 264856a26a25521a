"""The ways in which a step fails: an exit code and one line for each.

What is wrong with the input stays wrong; what was interrupted goes on from its state;
what ran out of memory needs more of it. Snakemake asks none of that: it retries every
failure, as often as ``retries`` says, and no rule or profile can tell it otherwise. So
a step that fails for good leaves a note beside its log. When the same run of Snakemake
starts the same command again, it ends at once with the same line: a retry costs a
second and no state, and the log, which Snakemake removes before each attempt, is put
back. Another run of Snakemake tries anew.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import sys
from enum import IntEnum
from pathlib import Path

from clockwork_experiments.base import interruption

RUN = "CLOCKWORK_RUN"
"""Variable of the environment that names the run of Snakemake; its jobs inherit it."""


class Kind(IntEnum):
    """A class of failures; its value is the exit code.

    Attributes:
        DEFECT: Of the program. Shows its traceback.
        PERMANENT: The same command fails again: bad input, a loss that is not finite.
        INTERRUPTED: By a signal, a full disk, a network, another job on the same state;
            the same command goes on from what is saved.
        MEMORY: There was too little; Slurm's own kill ends with the same code.
    """

    DEFECT = 1
    PERMANENT = 65
    INTERRUPTED = 75
    MEMORY = 137


_FOR_GOOD = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError)

# torch's, whose type for the CPU is a plain RuntimeError.
_NO_MEMORY = re.compile(
    r"out of memory|can't allocate memory|not enough memory|ALLOC_FAILED"
)


def kind_of(error: BaseException) -> Kind:
    """Return the class of a failure."""
    if isinstance(error, KeyboardInterrupt) or interruption.signalled():
        return Kind.INTERRUPTED
    if isinstance(error, MemoryError) or _memory_of_torch(error):
        return Kind.MEMORY
    if isinstance(error, OSError):
        if error.errno == errno.ENOMEM:
            return Kind.MEMORY
        return Kind.PERMANENT if isinstance(error, _FOR_GOOD) else Kind.INTERRUPTED
    return Kind.PERMANENT if isinstance(error, ValueError) else Kind.DEFECT


def _memory_of_torch(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and bool(_NO_MEMORY.search(str(error)))


def line_of(error: BaseException) -> str:
    """Return the line that a failure ends in."""
    message = " ".join(str(error).split())
    if isinstance(error, OSError) and error.filename is not None:
        message = f"{error.strerror}: {error.filename}"
    match kind_of(error):
        case Kind.INTERRUPTED if not isinstance(error, OSError):
            message = f"stopped by {interruption.signalled() or 'SIGINT'}; the same "
            message += "command goes on from what is saved"
        case Kind.MEMORY:
            asked = f" ({message.partition('. ')[0]})" if message else ""
            message = f"out of memory{asked}; give it more, or a smaller batch_size"
    return f"error: {message}"


def remember(log: Path | None, line: str) -> None:
    """Leave a note that this command has failed for good in this run of Snakemake."""
    if log is not None and RUN in os.environ:
        note = {"run": os.environ[RUN], "command": _command(), "line": line}
        # A note that cannot be left costs a retry; it hides no failure.
        with contextlib.suppress(OSError):
            note["log"] = log.read_text(encoding="utf-8", errors="replace")
            _note(log).write_text(json.dumps(note), encoding="utf-8")


def remembered(log: Path | None) -> str:
    """Return the line of such a note, and put its log back; or return nothing.

    The note of another run or command is removed.
    """
    if log is None or not _note(log).is_file():
        return ""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        note = json.loads(_note(log).read_text(encoding="utf-8"))
        if (note["run"], note["command"]) == (os.environ.get(RUN), _command()):
            log.write_text(note["log"], encoding="utf-8")
            return str(note["line"])
    _note(log).unlink(missing_ok=True)
    return ""


def _note(log: Path) -> Path:
    return log.with_suffix(".failed")


def _command() -> str:
    return hashlib.sha256("\0".join(sys.argv).encode()).hexdigest()


def set_aside(state: Path) -> str:
    """Keep the state of what failed for good, out of the way of the next attempt.

    Returns:
        Where it is, to end a message with; empty if there was none.
    """
    kept = state.with_name(f"{state.name}.failed")
    try:
        state.replace(kept)
    except FileNotFoundError:
        return ""
    return f"; what was saved last is {kept}"
