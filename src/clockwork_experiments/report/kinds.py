"""Kinds of figures and tables: each is a class, and is found by its name.

A kind is a dataclass with the settings of one figure or table, a ``kind`` that the
papers' registries call it by, and two methods: ``needs`` says which results it shows,
``make`` makes it of them. Those of this project lie in `report.figures` and
`report.tables`; one from elsewhere is called ``my_package.my_module:MyFigure``.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from clockwork_experiments.base import classes, storage

Needs = dict[str, list[str]]
"""Paths of results, relative to the working folder, by what they are."""


class Known(Protocol):
    """What a kind may ask of one scale's configuration."""

    @property
    def base(self) -> str:
        """The folder of the scale's results."""

    @property
    def measured(self) -> bool:
        """Whether what takes weights is waited for."""

    def entry(self, section: str, name: str) -> dict[str, Any]:
        """Return an entry, or say which there are."""

    def entries(self, section: str) -> Mapping[str, Any]:
        """Return a section, ids to settings."""

    def run(self, name: str) -> dict[str, Any]:
        """Return what decides the FLOPs of a run, edited or translated ones too."""

    def searched(self, name: str) -> dict[str, Any]:
        """Return the same of what a search of time steps is about."""

    def scores(self, names: Iterable[str]) -> list[str]:
        """Return the score files of such runs."""

    def shards(self, kind: str, dataset: str, names: Iterable[str]) -> list[str]:
        """Return the ``images`` or ``features`` of runs on a data set."""

    def translated(self, names: Iterable[str]) -> list[str]:
        """Return the images of translations."""


@dataclass(frozen=True)
class Given:
    """What a kind is made of.

    Attributes:
        files: The files that it needs, by what they are.
        runs: What decides the FLOPs of its runs, by id.
    """

    files: Mapping[str, Sequence[Path]]
    runs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def paths(self, name: str) -> Sequence[Path]:
        """Return the files of a name; none if there are none."""
        return self.files.get(name, ())

    def path(self, name: str) -> Path:
        """Return the first file of a name."""
        return self.files[name][0]

    def one(self, name: str) -> Any:
        """Return the JSON of the only file; nothing if there is none."""
        return storage.read_json(self.path(name)) if self.paths(name) else {}

    def each(self, name: str) -> dict[str, Any]:
        """Return the JSON of each file, by its id."""
        return {path.stem: storage.read_json(path) for path in self.paths(name)}


@dataclass(frozen=True)
class Kind:
    """A figure or a table at one scale.

    Attributes:
        title: Heading.
        caption: What the reader must know.
    """

    title: str
    caption: str

    def needs(self, known: Known) -> Needs:
        """Return which results it shows."""
        return {}

    def wishes(self, known: Known) -> Needs:
        """Return results that it shows if there are such, and does not wait for."""
        return {}

    def run_settings(self, known: Known) -> dict[str, dict[str, Any]]:
        """Return what decides the FLOPs of its runs, by id."""
        return {}

    def make(self, given: Given) -> Any:
        """Make it: a Matplotlib figure, or a `report.tables.table.Table`."""
        raise NotImplementedError


FIGURES = "clockwork_experiments.report.figures"
TABLES = "clockwork_experiments.report.tables"


@cache
def names(package: str) -> dict[str, str]:
    """Return the kinds in a package's modules, name to ``module:Class``.

    Read without being run, so that asking for one imports no other.
    """
    found = {}
    folder = Path(__file__).parent / package.rpartition(".")[2]
    for path in sorted(folder.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in (each for each in tree.body if isinstance(each, ast.ClassDef)):
            for line in map(ast.unparse, node.body):
                start, _, name = line.partition(" = ")
                if start == "kind: ClassVar[str]":
                    found[ast.literal_eval(name)] = f"{package}.{path.stem}:{node.name}"
    return found


def place(package: str, name: str) -> tuple[str, str]:
    """Return the module and the class of a kind.

    Raises:
        ValueError: If there is none of this name, and it is no ``module:Class``.
    """
    module, colon, found = names(package).get(name, name).partition(":")
    if not colon:
        raise ValueError(
            f"kind {name!r} is not one of {', '.join(names(package))}, "
            "nor of the form my_package.my_module:MyClass"
        )
    return module, found


def find(package: str, name: str) -> type[Kind]:
    """Return a kind.

    Raises:
        ValueError: If there is none of this name.
    """
    module, wanted = place(package, name)
    found: type[Kind] = classes.found_at(module, wanted, Kind, f"kind {name!r}")
    return found


def source(package: str, name: str) -> tuple[str, str]:
    """Return the module of a kind, and its file where it is not of this project."""
    module, _ = place(package, name)
    if module.startswith(package):
        return module, ""
    find(package, name)
    file = sys.modules[module].__file__
    assert file is not None
    return module, file
