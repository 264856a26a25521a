"""The checkout that a command works in, and what its configuration knows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from clockwork_experiments.base import texts
from clockwork_experiments.config.check import checked
from clockwork_experiments.config.experiments import Settings, laid_over, one_of
from clockwork_experiments.config.load import read_config
from clockwork_experiments.config.registry import Registry, read_papers

MARKS = ("Snakefile", "workflow/scales.yaml")
"""Files that tell a checkout from any other folder."""


def find(directory: Path | None, start: Path | None = None) -> Path:
    """Return the folder of the checkout.

    Args:
        directory: The folder that the user names; none looks upwards.
        start: Where to start looking; the working folder by default.

    Raises:
        ValueError: If there is none.
    """
    first = (directory or start or Path.cwd()).expanduser().resolve()
    for folder in [first] if directory else [first, *first.parents]:
        if all((folder / mark).is_file() for mark in MARKS):
            return folder
    where = f"{first} is no" if directory else f"neither {first} nor one above it is a"
    raise ValueError(
        f"{where} checkout of this project (with a Snakefile and workflow/); go to "
        "one, or name it with --directory"
    )


@dataclass(frozen=True)
class Checkout:
    """A checkout, and what is laid over its configuration.

    Attributes:
        root: Its folder.
        configfiles: Files of settings that are laid over config.yaml, in this order.
        given: Settings laid over these.
    """

    root: Path
    configfiles: Sequence[Path] = ()
    given: Settings = field(default_factory=dict)

    @cached_property
    def config(self) -> Settings:
        """The resolved configuration, not checked.

        Raises:
            ValueError: If a file cannot be read, or an entry refers to none.
        """
        given: Settings = {}
        for path in self.configfiles:
            read = texts.read_yaml(path)
            if not isinstance(read, dict):
                raise ValueError(f"{path} must be a mapping, not {texts.short(read)}")
            given = laid_over(given, read)
        with contextlib.chdir(self.root):  # whose config.yaml is meant
            return read_config(laid_over(given, self.given), self.root)

    @cached_property
    def papers(self) -> Settings:
        """What each paper shows and claims, not checked."""
        return read_papers(self.root / "workflow" / "papers")

    def check(self) -> Registry:
        """Return all of it, checked as the workflow does before anything runs.

        Raises:
            ValueError: If something is wrong: the first of it, in one line.
        """
        # pandas comes with them, and most commands do without.
        from clockwork_experiments.report.tables import results, timesteps

        return checked(
            self.config,
            self.papers,
            self.root / "workflow" / "schemas",
            results.COLUMN_SOURCES,
            timesteps.STEP_TABLES,
        )

    def entries(self, scale: str, section: str) -> Settings:
        """Return the entries of a section, ids to settings."""
        return Registry(self.config, self.papers).entries(scale, section)

    def entry(self, scale: str, section: str, name: str) -> Settings:
        """Return one entry.

        Raises:
            ValueError: If it is not there; says which are, and which was meant.
        """
        return Registry(self.config, self.papers).entry(scale, section, name)

    def items(self, scale: str, kind: str) -> dict[str, Mapping[str, Any]]:
        """Return the ``tables`` or ``figures`` of a scale by ``<paper>/<id>``."""
        found = Registry(self.config, self.papers).items(scale, kind)
        return {f"{paper}/{name}": settings for paper, name, settings in found}


def chosen_item(name: str, known: Iterable[str], kind: str) -> str:
    """Return the ``<paper>/<id>`` that a name means: itself, or the id alone.

    Raises:
        ValueError: If there is none, or both papers have one.
    """
    known = list(known)
    if name in known:
        return name
    same = [each for each in known if each.partition("/")[2] == name]
    if len(same) == 1:
        return same[0]
    if same:
        raise ValueError(f"both papers have a {name}: say {' or '.join(same)}")
    # Bare, where that is enough: what was meant is found by what people type.
    bare = [each.partition("/")[2] for each in known]
    shown = [
        each if "/" in name or bare.count(one) > 1 else one
        for each, one in zip(known, bare, strict=True)
    ]
    raise ValueError(one_of(name, shown, kind))


def configured(root: Path, files: Sequence[Path] | None) -> Checkout:
    """Return the checkout in a folder with files of settings, relative to this one."""
    return Checkout(root, [path.expanduser().resolve() for path in files or ()])
