"""Stop long work where it can go on later, when its machine is taken away.

Slurm sends SIGTERM before it kills: ahead of the time limit, and when another job
preempts this one. Work that is in pieces ends with the piece at hand, and says where.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_noticing: threading.Event | None = None
"""What SIGTERM sets in the outermost block that notices it."""


@contextmanager
def noticing_sigterm() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether SIGTERM has come; it ends nothing meanwhile.

    Within another such block it tells the same as there. Only the main thread may
    handle signals; in another one, nothing changes.
    """
    global _noticing
    if _noticing is not None:
        yield _noticing.is_set
        return
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.set())
    _noticing = came
    try:
        yield came.is_set
    finally:
        _noticing = None
        signal.signal(signal.SIGTERM, before)


def tidy_at_sigterm() -> None:
    """Have SIGTERM end this process as an exit does: half-written files are removed."""

    def leave(number: int, frame: object) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)


def stopped(name: str, done: int, total: int) -> InterruptedError:
    """Return what to raise once the state of such work is saved."""
    return InterruptedError(
        f"{name}: stopped by SIGTERM after {done} of {total}; "
        "the state is saved, and the same command goes on from there"
    )
