"""Two packages: a library that needs little, and experiments that may import it."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
LIBRARY, EXPERIMENTS = "clockwork_diffusion", "clockwork_experiments"
NEEDED = ("torch", "diffusers", "transformers", "safetensors", "numpy")


def modules(package: str) -> Iterator[tuple[Path, str]]:
    for path in sorted((SOURCE / package).rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        yield path, ".".join(part for part in parts if part != "__init__")


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Yield module and name of each import, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from ((node.module or "", alias.name) for alias in node.names)


def test_the_library_knows_nothing_of_the_experiments():
    found = {
        module
        for path, module in modules(LIBRARY)
        for name, _ in imports(path)
        if name.split(".")[0] == EXPERIMENTS
    }
    assert not found


def test_experiments_name_the_module_that_they_take_something_from():
    """Else an edit of it would not rerun them: see `provenance.code_of`."""
    known = {module for _, module in modules(LIBRARY)}
    for path, _ in modules(EXPERIMENTS):
        for module, name in imports(path):
            if module == LIBRARY:
                assert f"{module}.{name}" in known, f"{path}: {name}"


FEW = """
import importlib.metadata as metadata, sys
from importlib.machinery import PathFinder
from packaging.requirements import Requirement

def closure(names):
    done, waiting = set(), list(names)
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in done:
            continue
        try:
            listed = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        done.add(name)
        for each in map(Requirement, listed):
            if each.marker is None or each.marker.evaluate({"extra": ""}):
                waiting.append(each.name)
    return done

wanted = closure(sys.argv[2:])
owners = metadata.packages_distributions()
hidden = {
    name
    for name, found in owners.items()
    if not wanted & {each.lower().replace("_", "-") for each in found}
} - {sys.argv[1]} | {"clockwork_experiments"}

class Few(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.split(".")[0] in hidden:
            return None
        return PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Few
"""
"""Makes a process see nothing but a package's own dependencies."""

DOCTESTS = """
import doctest, importlib, pkgutil, sys
before = list(sys.meta_path)
package = importlib.import_module(sys.argv[1])
assert sys.meta_path == before, sys.meta_path
assert importlib.util.find_spec("snakemake") is None
failed = []
names = [package.__name__]
names += [each.name for each in pkgutil.walk_packages(package.__path__, names[0] + ".")]
for name in names:
    module = importlib.import_module(name)
    if doctest.testmod(module).failed:
        failed.append(name)
# What is made by a call is no function of its module's to doctest.
for name in package.__all__:
    function = getattr(package, name)
    if hasattr(function, "__wrapped__"):
        home = vars(sys.modules[function.__module__])
        runner = doctest.DocTestRunner()
        for test in doctest.DocTestFinder().find(function, name, False, dict(home)):
            assert test.examples and not runner.run(test).failed, name
assert not failed, failed
print(len(names))
"""


def test_the_library_runs_with_what_it_depends_on_alone():
    """All of its modules, and all of their doctests."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FEW + DOCTESTS, LIBRARY, *NEEDED],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert int(done.stdout) == len(list(modules(LIBRARY)))


def blocks(path: Path) -> str:
    """Return the Python of a page, in the order in which a reader would type it."""
    found = re.findall(r"```python\n(.*?)```", path.read_text("utf-8"), re.DOTALL)
    return "\n".join(found)


PAGES = [
    path
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if blocks(path)
]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_python_block_of_a_page_runs_as_it_stands(page, tmp_path):
    """In a fresh interpreter that has what the library needs and nothing more."""
    (tmp_path / "resources").symlink_to(ROOT / "resources")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FEW + blocks(page), LIBRARY, *NEEDED],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("module", ["", ".clock", ".timesteps"])
def test_what_needs_no_torch_imports_none(module):
    """The workflow asks these; it should not wait for torch."""
    code = f"import sys, {LIBRARY}{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
