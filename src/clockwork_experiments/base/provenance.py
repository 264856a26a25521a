"""Say what a file was made with: code, commit, versions, device.

`code_of` reads the imports of a module without running it, so that it works without
torch. Which jobs an edit concerns is told definition by definition, by `uses`.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import platform
import subprocess
from functools import cache
from pathlib import Path

PACKAGE = "clockwork_experiments"
PACKAGES = ("clockwork_diffusion", PACKAGE)
"""What a step's code is looked for in: the library, and the experiments."""

ROOT = Path(__file__).parents[2]
"""The folder of both packages."""


def code_of(module: str) -> list[Path]:
    """Return the files of `PACKAGES` that a module imports, itself included, sorted.

    Args:
        module: Dotted name below the experiments, such as ``steps.train_adaptor``.

    Raises:
        ValueError: If there is no such module.
    """
    found: set[Path] = set()
    waiting = [file_of(f"{PACKAGE}.{module}")]
    if waiting[0] is None:
        raise ValueError(f"there is no module {PACKAGE}.{module}")
    while waiting:
        path = waiting.pop()
        if path is None or path in found:
            continue
        found.add(path)
        waiting.extend(file_of(name) for name in _imports(path))
    return sorted(found)


@cache
def _imports(path: Path) -> tuple[str, ...]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return tuple(name for name in names if name.split(".")[0] in PACKAGES)


@cache
def file_of(name: str) -> Path | None:
    """Return the file of a module of `PACKAGES`; None if there is none."""
    base = ROOT.joinpath(*name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        # A package's own __init__ holds its version, which must not rerun anything, and
        # the library's door, whose modules are imported by their own names here.
        if path.is_file() and path.parent.parent / path.name != ROOT / "__init__.py":
            return path
    return None


def code_sha256(module: str) -> str:
    """Return one SHA-256 for the code that a module runs."""
    total = hashlib.sha256()
    for path in code_of(module):
        total.update(path.relative_to(ROOT).as_posix().encode())
        total.update(path.read_bytes())
    return total.hexdigest()


def commit() -> str:
    """Return the short commit of the checkout, ``-dirty`` if edited, or ``unknown``."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude", "*"],
            cwd=ROOT,
            capture_output=True,
            check=True,
            text=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def versions(*packages: str) -> dict[str, str]:
    """Return installed versions by package name."""
    return {name: importlib.metadata.version(name) for name in packages}


def device_name() -> str:
    """Describe the device that torch computes on here."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)"
