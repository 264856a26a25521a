"""Each class of failure: its exit code, its one line, and what a retry of it does."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import pytest
import torch

from clockwork_experiments.base import failures
from clockwork_experiments.base.failures import Kind

STEP = """
import os, signal
from pathlib import Path
import torch
from clockwork_experiments.base import chunks
from clockwork_experiments.run import run

def step(how: str, state: Path, output: Path) -> None:
    'Work through 4 chunks; in the second one something happens, the first time.'

    def work(rows):
        with Path("done.txt").open("a") as file:
            file.write(f"{rows.start} ")
        if rows.start == 2 and not Path("again").exists():
            if how == "no memory":
                torch.empty(10**16)
            elif how == "not finite":
                raise ValueError("latents are not finite")
            elif how == "a defect":
                raise AssertionError("cannot be")
            else:
                os.kill(os.getpid(), getattr(signal, how))
        return {"x": torch.arange(rows.start, rows.stop)}

    rows = chunks.in_chunks(8, 2, work, state, "work", "rows")["x"]
    output.write_text(str(rows.tolist()))
    chunks.discard(state)

run(step)
"""


@pytest.fixture
def start(tmp_path):
    """Return a function that starts the step, and returns exit code and last lines."""
    (tmp_path / "step.py").write_text(STEP)

    def started(how: str, run: str = "one") -> tuple[int, list[str]]:
        done = subprocess.run(
            [sys.executable, "step.py", "--how", how, "--state", "state"]
            + ["--output", "out", "--log", "logs/step.log"],
            cwd=tmp_path,
            env={**os.environ, failures.RUN: run},
            stderr=subprocess.PIPE,
            text=True,
        )
        shown = done.stderr.replace("\r", "\n").splitlines()
        return done.returncode, [line for line in shown if "chunk/s" not in line]

    return started


def left(folder: Path) -> list[str]:
    """Return the files that there are beside the test's own."""
    own = {"step.py", "done.txt", "again"}
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(str(path) for path in found if str(path) not in own)


def test_what_fails_for_good_is_not_tried_again(start, tmp_path):
    error = "error: latents are not finite"
    code, lines = start("not finite")
    assert (code, lines[-1]) == (Kind.PERMANENT, error)
    assert "Traceback" not in "".join(lines)
    log, done = (tmp_path / name for name in ("logs/step.log", "done.txt"))
    evidence = log.read_text()
    assert "latents are not finite" in evidence and done.read_text() == "0 2 "
    # Even if it would pass now: a retry is of the same run. Snakemake removes the log.
    (tmp_path / "again").touch()
    log.unlink()
    assert start("not finite") == (Kind.PERMANENT, [error])
    assert (log.read_text(), done.read_text()) == (evidence, "0 2 ")
    assert start("not finite", run="another")[0] == 0
    assert done.read_text() == "0 2 2 4 6 "
    assert left(tmp_path) == ["logs/step.log", "out"]


@pytest.mark.parametrize(
    ("how", "kind", "line", "resumed"),
    [
        (
            "SIGTERM",
            Kind.INTERRUPTED,
            "error: rows: stopped by SIGTERM after 4 of 8;",
            4,
        ),
        ("SIGINT", Kind.INTERRUPTED, "error: stopped by SIGINT; the same command", 2),
        ("no memory", Kind.MEMORY, "error: out of memory (", 2),
    ],
)
def test_what_may_pass_is_tried_again_and_goes_on(
    start, tmp_path, how, kind, line, resumed
):
    code, lines = start(how)
    assert code == kind
    assert lines[-1].startswith(line) and "Traceback" not in "".join(lines)
    logged = (tmp_path / "logs/step.log").read_text()
    assert ("Traceback" in logged) == (kind == Kind.MEMORY)
    (tmp_path / "again").touch()
    (tmp_path / "done.txt").unlink()
    assert start(how)[0] == 0
    rest = "".join(f"{row} " for row in range(resumed, 8, 2))
    assert (tmp_path / "done.txt").read_text() == rest
    assert (tmp_path / "out").read_text() == str(list(range(8)))
    assert left(tmp_path) == ["logs/step.log", "out"]


def test_a_defect_shows_its_traceback(start):
    code, lines = start("a defect")
    assert code == Kind.DEFECT
    assert "Traceback" in "".join(lines) and lines[-1] == "AssertionError: cannot be"


@pytest.mark.parametrize(
    ("error", "kind", "line"),
    [
        (MemoryError(), Kind.MEMORY, "error: out of memory; give it more"),
        (OSError(errno.ENOMEM, "no"), Kind.MEMORY, "error: out of memory (["),
        (
            torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2 GiB. GPU 0"
            ),
            Kind.MEMORY,
            "error: out of memory (CUDA out of memory); give",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "a"),
            Kind.INTERRUPTED,
            "error: No space left on device: a",
        ),
        (URLError("timed out"), Kind.INTERRUPTED, "error: <urlopen error timed out>"),
        (BlockingIOError("x is in use"), Kind.INTERRUPTED, "error: x is in use"),
        (KeyboardInterrupt(), Kind.INTERRUPTED, "error: stopped by SIGINT"),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "a"),
            Kind.PERMANENT,
            "error: No such file or directory: a",
        ),
        (RuntimeError("shapes differ"), Kind.DEFECT, "error: shapes differ"),
    ],
)
def test_errors_have_their_class(error, kind, line):
    assert failures.kind_of(error) == kind
    assert failures.line_of(error).startswith(line)
