"""Stop long work where it can go on later, when its machine is taken away.

Slurm sends SIGTERM before it kills: ahead of the time limit, and when another job
preempts this one. Work that is in pieces ends with the piece at hand, and says where.
"""

from __future__ import annotations

import signal
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


_signalled = ""


def leave_at_signals() -> None:
    """Have SIGTERM and SIGINT end this process like an exception: files are tidied."""

    def leave(number: int, frame: object) -> None:
        global _signalled
        _signalled = signal.Signals(number).name
        raise KeyboardInterrupt(_signalled)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)


def signalled() -> str:
    """Return the signal that is ending this process, or nothing.

    A library that was interrupted may raise an error of its own instead.
    """
    return _signalled


def stopped(name: str, done: int, total: int) -> InterruptedError:
    """Return what to raise once the state of such work is saved."""
    return InterruptedError(
        f"{name}: stopped by SIGTERM after {done} of {total}; "
        "the state is saved, and the same command goes on from there"
    )
