"""Release the lock that a killed run of Snakemake left, unless a run is still alive.

Sees the processes of this machine only; on a shared file system make sure yourself that
nobody runs the workflow in the same folder from another one.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import psutil

from clockwork_experiments.run import run

log = logging.getLogger(__name__)
STEPS = "clockwork_experiments.steps."


def works_on_results(command: Sequence[str]) -> bool:
    """Tell whether a command line is Snakemake's, or that of one of the steps."""
    names = [Path(part).name for part in command[:4]]
    if names and not names[0].lower().startswith("python"):
        names = names[:1]  # any other program may have such an argument
    return "snakemake" in names or any(
        name.startswith(STEPS) and name != f"{STEPS}release_lock" for name in names
    )


def live_runs(folder: Path) -> list[psutil.Process]:
    """Return the processes that run the workflow in a folder, orphaned steps included.

    A step can outlive a killed Snakemake, and goes on writing.
    """
    found = []
    for process in psutil.process_iter():
        try:
            if works_on_results(process.cmdline()) and folder.samefile(process.cwd()):
                found.append(process)
        except (psutil.Error, OSError):
            continue  # it ended meanwhile, or is another user's
    return found


def release_lock(folder: Path, /) -> None:
    """Release the lock, and say so; without a lock, do and say nothing.

    Args:
        folder: The workflow's working directory.

    Raises:
        ValueError: If a run is alive in it.
    """
    locks = folder / ".snakemake" / "locks"
    alive = live_runs(folder)
    if alive:
        listed = ", ".join(str(process.pid) for process in alive)
        raise ValueError(
            f"another run is alive in {folder} (process {listed}); "
            "wait for it, or end it"
        )
    if locks.is_dir() and any(locks.iterdir()):
        shutil.rmtree(locks)
        log.info("released the lock that a killed run left in %s", folder)


if __name__ == "__main__":
    run(release_lock)
