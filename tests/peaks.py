"""How much memory a step takes, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peaks are read from /proc"
)

_PROGRAM = """
import importlib, sys
from pathlib import Path

import torch
from clockwork_experiments import run as runner
from clockwork_experiments.data import edit_sets, pair_sets
from clockwork_experiments.score import metrics

def kilobytes(name):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])

torch.set_num_threads(1)
step = importlib.import_module("clockwork_experiments.steps." + sys.argv[1])
parser, call = runner.options_of(vars(step)[sys.argv[1]])
args = parser.parse_args(sys.argv[2:])
Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
before = kilobytes("VmRSS")
call(args)
print(kilobytes("VmHWM") - before)
"""


def peak_mb(step: str, *words: str) -> float:
    """Return how much memory a step with a command line adds at its peak, in MB."""
    # What is freed goes back at once, so that peaks are the same each time.
    steady = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "100000"}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, step, *words],
        env={**os.environ, **steady},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1]) / 1024
