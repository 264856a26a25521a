"""Stop long work where it can go on later, when its machine is taken away.

Slurm sends SIGTERM before it kills: ahead of the time limit, and when another job
preempts this one. Work that is in pieces ends with the piece at hand, and says where.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def noticing_sigterm() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether SIGTERM has come; it ends nothing meanwhile.

    Only the main thread may handle signals; in another one, nothing changes.
    """
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.set())
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGTERM, before)


def stopped(name: str, done: int, total: int) -> InterruptedError:
    """Return what to raise once the state of such work is saved."""
    return InterruptedError(
        f"{name}: stopped by SIGTERM after {done} of {total}; "
        "the state is saved, and the same command goes on from there"
    )
