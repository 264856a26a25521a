"""What is installed: a wheel that works outside the checkout, and what it needs."""

import ast
import importlib.metadata
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
BUILD = "from setuptools.build_meta import build_wheel; print(build_wheel({!r}))"
NAMES = {
    "cv2": "opencv_python_headless",
    "markdown_it": "markdown_it_py",
    "open_clip": "open_clip_torch",
    "PIL": "pillow",
    "yaml": "pyyaml",
}
BROUGHT = {"griffe", "huggingface_hub", "pillow", "tokenizers", "tqdm"}
"""What comes with diffusers, transformers and mkdocstrings."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """Return the folder of an unpacked wheel, built without the network."""
    version = importlib.metadata.version("setuptools")
    if int(version.split(".")[0]) < 77:
        pytest.skip(f"setuptools {version} is too old to build a wheel offline")
    source, folder = (tmp_path_factory.mktemp(name) for name in ("source", "wheel"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", source / "src", ignore=ignored)
    code = BUILD.format(str(folder))
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder / "site")
    return folder / "site"


@pytest.fixture(scope="module")
def metadata(installed):
    (found,) = importlib.metadata.distributions(path=[str(installed)])
    return found


def test_the_library_is_imported_from_the_wheel(installed, tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "sys.modules['torchvision'] = None\n"  # no need of the library's
        "from clockwork_diffusion import clockwork, load_adaptor\n"
        "print({m.__file__ for n, m in sys.modules.items() if 'clockwork' in n})"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(installed)],
        cwd=tmp_path,
        env={},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    files = ast.literal_eval(done.stdout)
    assert all(file.startswith(str(installed)) for file in files)


def test_every_module_is_in_the_wheel(installed):
    for package in ("clockwork_diffusion", "clockwork_experiments"):
        for path in (ROOT / "src" / package).rglob("*.py"):
            assert (installed / path.relative_to(ROOT / "src")).is_file(), path
        assert (installed / package / "py.typed").is_file()


def needed(metadata, extra: str = "") -> set[str]:
    """Return what an extra needs, as imports spell it, with what it takes in."""
    found = set()
    for each in map(Requirement, metadata.requires):
        if each.marker is None or each.marker.evaluate({"extra": extra}):
            if each.name == metadata.name:
                found |= set().union(*(needed(metadata, e) for e in each.extras))
            else:
                found.add(each.name.replace("-", "_").lower())
    return found


def imported(package: str) -> set[str]:
    """Return the distributions that a package imports."""
    names = set()
    for path in (ROOT / "src" / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add((node.module or "").split(".")[0])
    names -= {*sys.stdlib_module_names, "clockwork_diffusion", "clockwork_experiments"}
    return {NAMES.get(name, name).lower() for name in names}


def test_the_library_alone_needs_five_packages(metadata):
    five = {"diffusers", "numpy", "safetensors", "torch", "transformers"}
    assert needed(metadata) == five
    assert imported("clockwork_diffusion") <= five | BROUGHT


def test_the_extras_hold_what_is_imported(metadata):
    extras = metadata.metadata.get_all("Provides-Extra")
    assert set(extras) == {"train", "experiments", "slurm", "docs", "dev"}
    known = needed(metadata, "experiments") | BROUGHT
    assert imported("clockwork_experiments") <= known
    assert needed(metadata, "train") < needed(metadata, "experiments")
    assert needed(metadata, "experiments") < needed(metadata, "slurm")
    assert needed(metadata, "slurm") < needed(metadata, "dev")
