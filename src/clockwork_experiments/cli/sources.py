"""The paper scale's weights and data: where they are, and fetching them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from clockwork_experiments.cli import checkout
from clockwork_experiments.cli.options import (
    Listed,
    with_workflow,
)
from clockwork_experiments.cli.workflow import Workflow
from clockwork_experiments.config.experiments import one_of
from clockwork_experiments.config.needs.fetching import LOCK, listed_bytes, manifest
from clockwork_experiments.config.parse import parse

OK, WARNING, MISSING = "OK", "warning", "missing"


@dataclass(frozen=True)
class State:
    """What there is of a source, or of anything else that is needed.

    Attributes:
        level: `OK`, `WARNING` or `MISSING`.
        name: What it is.
        said: What there is of it.
        todo: What to do about it, in one line; empty if nothing is.
        needed: Whether nothing works without it.
    """

    level: str
    name: str
    said: str
    todo: str = ""
    needed: bool = False

    def line(self, width: int) -> str:
        """Return it as one line."""
        todo = f" → {self.todo}" if self.todo else ""
        text = f"{self.level:<7}  {self.name:<{width}}  {self.said}{todo}"
        return " ".join(text.split("\n")).rstrip()


def states(found: checkout.Checkout) -> list[State]:
    """Return the state of every source of the paper scale, and of what is made."""
    known = found.entries("paper", "sources")
    with contextlib.chdir(found.root):  # their paths are relative to it
        return [
            *(_source(name, each) for name, each in known.items()),
            *(
                _made(name, each)
                for name, each in found.entries("paper", "coco").items()
            ),
        ]


def _source(name: str, settings: Mapping[str, Any]) -> State:
    from clockwork_experiments.data.sources import SourceSpec, at_hand

    listed = _listed(name, settings["path"])
    if listed is not None:
        return listed
    spec = parse(SourceSpec, dict(settings), name)
    places = at_hand(name, spec, Path(LOCK))
    lacking = [place for place, origin in places.items() if not origin]
    if not lacking:
        origins = ", ".join(dict.fromkeys(places.values()))
        return State(OK, name, f"{spec.path}: usable from {origins}; not yet verified")
    some = f"{len(places) - len(lacking)} of {len(places)} files of {spec.path}"
    level = WARNING if len(lacking) < len(places) else MISSING
    if spec.by_hand:
        hand = " ".join(spec.by_hand.split())
        return State(level, name, some, f"place by hand in {spec.path}: {hand}")
    licence = f"; licence: https://huggingface.co/{spec.hub}" if spec.hub else ""
    return State(level, name, some, f"clockwork fetch {name}{licence}")


def _made(name: str, settings: Mapping[str, Any]) -> State:
    """Return the state of a set that is made of COCO, or that a user placed."""
    path = settings["path"]
    listed = _listed(name, path)
    if listed is not None:
        return listed
    if Path(path).exists():
        return State(OK, name, f"{path}: placed; usable as it is, not yet verified")
    origin = settings.get("archives") or settings.get("of")
    return State(
        MISSING, name, f"{path}, which is made of {origin}", f"clockwork fetch {name}"
    )


def _listed(name: str, path: str) -> State | None:
    """Return the state of what a manifest lists; None without one."""
    file = manifest(name)
    if not Path(file).is_file():
        return None
    try:
        size = listed_bytes(file) / 1e9
    except ValueError as error:
        changed = str(error).partition(";")[0]
        said = f"{path} is gone, or has changed since it was verified: {changed}"
        return State(WARNING, name, said, f"delete {file}, then clockwork fetch {name}")
    return State(OK, name, f"{path}: verified, {size:.1f} GB")


@with_workflow(without=("profile",))
def fetch(
    workflow: Workflow,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SOURCE...]",
            help="By default all that can be fetched.",
            show_default=False,
        ),
    ] = None,
    listed: Listed = False,
) -> None:
    """Fetch and verify the paper scale's weights and data.

    All of it is tens of GB. What lies in its place, or in the hub's cache, is used from
    there. What is to be placed by hand is verified where you put it.

    Example: clockwork fetch stable_diffusion coco2017
    """
    found = workflow.checkout
    places = {
        name: each["path"]
        for section in ("sources", "coco")
        for name, each in found.entries("paper", section).items()
    }
    if listed:
        width = max(map(len, places))
        typer.echo("\n".join(each.line(width) for each in states(found)))
        return
    for name in names or ():
        if name not in places:
            raise ValueError(one_of(name, places, "sources"))
    workflow.make([manifest(name) for name in names or ()] or ["fetched"])
    workflow.tell([places[name] for name in names or ()] or ["resources/paper"])


COMMANDS = (fetch,)
"""The commands of this module."""
