"""Options that several commands share."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer


class Scale(enum.StrEnum):
    """The scales that people ask for."""

    mini = "mini"
    paper = "paper"


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
