"""What this machine has, as plain facts; `doctor` says what they mean."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DISTRIBUTION = "clockwork-diffusion"
PATIENCE = 60
"""Seconds that importing torch may take, on a slow file system."""

# In a process of its own: it costs seconds and may crash; and without this package,
# which repairs torchvision when it is imported.
PROBE = """
import json, torch
told = {"torch": torch.__version__, "cuda": torch.version.cuda, "gpus": []}
for index in range(torch.cuda.device_count()):
    gpu = torch.cuda.get_device_properties(index)
    told["gpus"].append([gpu.name, gpu.total_memory, [gpu.major, gpu.minor]])
told["mps"] = torch.backends.mps.is_available()
try:
    import torchvision
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    torchvision.ops.nms(boxes, torch.ones(1), 0.5)
    told["operators"] = ""
except Exception as error:
    told["operators"] = f"{type(error).__name__}: {error}".splitlines()[0]
print(json.dumps(told))
"""


@dataclass(frozen=True)
class Facts:
    """What a machine has.

    Attributes:
        python: Python's version.
        required: What the experiments need of packages, as ``name>=version``.
        installed: Versions of installed packages, by their normalised names.
        pins: Versions that constraints.txt pins, likewise.
        torch: What torch said of itself, of torchvision and of GPUs; ``error`` if it
            cannot be imported.
        seen: GPUs that the driver has, whatever torch thinks of them.
        cores: CPU cores that this process may use.
        memory_gb: Memory.
        free_gb: Free disk where results are written.
        slurm: Slurm's version; empty if it is not there.
    """

    python: str
    required: Sequence[str] = ()
    installed: Mapping[str, str] = field(default_factory=dict)
    pins: Mapping[str, str] = field(default_factory=dict)
    torch: Mapping[str, Any] = field(default_factory=dict)
    seen: Sequence[str] = ()
    cores: int = 1
    memory_gb: float = 0.0
    free_gb: float = 0.0
    slurm: str = ""


def gather(root: Path) -> Facts:
    """Return the facts of this machine; takes as long as importing torch once."""
    import psutil

    torch = subprocess.Popen(
        [sys.executable, "-c", PROBE],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    packages = importlib.metadata.distributions()
    installed = {normal(each.metadata["Name"]): each.version for each in packages}
    available = getattr(os, "sched_getaffinity", None)  # macOS has none
    cores = len(available(0)) if available else os.cpu_count() or 1
    return Facts(
        python=platform.python_version(),
        required=_required(),
        installed=installed,
        pins=read_pins(root / "constraints.txt"),
        seen=_said("nvidia-smi", "--query-gpu=name", "--format=csv,noheader"),
        cores=cores,
        memory_gb=psutil.virtual_memory().total / 1e9,
        free_gb=shutil.disk_usage(root).free / 1e9,
        slurm=" ".join(_said("sbatch", "--version")),
        torch=_answer(torch),
    )


def normal(name: str) -> str:
    """Return a package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_pins(path: Path) -> dict[str, str]:
    """Return the versions that a file of constraints pins; none without the file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    pins = (line.partition("==") for line in lines)
    return {normal(name): version for name, equal, version in pins if equal}


def _required() -> list[str]:
    """Return what the library and the experiments need, by the package's metadata."""
    from packaging.requirements import Requirement

    try:
        listed = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    found = []
    for each in map(Requirement, listed):
        extras = ({"extra": name} for name in ("experiments", "train", ""))
        ours = normal(each.name) == DISTRIBUTION
        if not ours and (each.marker is None or any(map(each.marker.evaluate, extras))):
            found.append(f"{normal(each.name)}{each.specifier}")
    return found


def _said(*command: str) -> list[str]:
    """Return what a program says, line by line; nothing if there is none."""
    if shutil.which(command[0]) is None:
        return []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.split("\n")[:-1] if done.returncode == 0 else []


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    try:
        out, error = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return {"error": f"to import it took more than {PATIENCE} s"}
    if process.returncode:
        lines = error.strip().splitlines() or [f"exit code {process.returncode}"]
        return {"error": lines[-1]}
    told: dict[str, Any] = json.loads(out.splitlines()[-1])
    return told
