"""Options that several commands share, and the workflow that they describe."""

from __future__ import annotations

import enum
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from clockwork_experiments.cli import checkout
from clockwork_experiments.cli.workflow import Workflow


class Scale(enum.StrEnum):
    """The scales that people ask for."""

    mini = "mini"
    study = "study"
    paper = "paper"
    pilot = "pilot"


ScaleOption = Annotated[
    Scale, typer.Option("--scale", help="Small shipped models, or the papers' own.")
]
Directory = Annotated[
    Path | None,
    typer.Option(
        "--directory",
        "-C",
        metavar="REPO",
        help="The checkout; by default the one that this folder is in.",
        show_default=False,
    ),
]
Cores = Annotated[
    int | None,
    typer.Option(
        "--cores",
        "-j",
        min=1,
        envvar="CORES",
        help="CPU cores to use; with a profile, it says. [default: 2]",
        show_default=False,
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", "-n", help="Say which jobs would run, and stop.")
]
Profile = Annotated[
    Path | None,
    typer.Option(
        "--profile",
        metavar="FOLDER",
        help="A profile of Snakemake, such as profiles/slurm.",
        show_default=False,
    ),
]
ConfigFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--configfile",
        metavar="FILE",
        help="Settings laid over config.yaml; may be repeated.",
        show_default=False,
    ),
]
More = Annotated[
    str,
    typer.Option(
        "--snakemake",
        metavar="WORDS",
        help="More words for Snakemake's own command line, in quotes.",
        show_default=False,
    ),
]
Listed = Annotated[bool, typer.Option("--list", help="List what there is, and stop.")]

_OF_WORKFLOW: dict[str, tuple[Any, Any]] = {
    "directory": (Directory, None),
    "cores": (Cores, None),
    "dry_run": (DryRun, False),
    "profile": (Profile, None),
    "configfile": (ConfigFiles, None),
    "more": (More, ""),
}
"""Options that say how the workflow runs, with their defaults."""


def with_workflow(
    *, without: tuple[str, ...] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options that say how the workflow runs, behind its own.

    The command takes the `Workflow` that they describe as its first argument.

    Args:
        without: Those that the command has no use for.
    """
    shared = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=option
        )
        for name, (option, default) in _OF_WORKFLOW.items()
        if name not in without
    ]

    def wrap(command: Callable[..., None]) -> Callable[..., None]:
        _, *own = inspect.signature(command, eval_str=True).parameters.values()
        both = [*own, *shared]

        @functools.wraps(command)
        def called(**given: Any) -> None:
            told = {
                name: given.pop(name, default)
                for name, (_, default) in _OF_WORKFLOW.items()
            }
            root = checkout.find(told.pop("directory"))
            found = checkout.configured(root, told.pop("configfile"))
            command(Workflow(found, **told), **given)

        # What typer reads options from.
        called.__signature__ = inspect.Signature(both)  # type: ignore[attr-defined]
        called.__annotations__ = {each.name: each.annotation for each in both}
        return called

    return wrap
