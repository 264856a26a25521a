"""The commands, and what they have in common: errors in one line, exit codes."""

from __future__ import annotations

import logging
import sys
from typing import NoReturn

import typer

from clockwork_experiments.cli import doctor, planning, results, runs, sources

BAD_INPUT, FAILED = 2, 1

app = typer.Typer(
    name="clockwork",
    help="Make the tables, figures and claims of two papers on cheap diffusion models, "
    "and runs of your own beside theirs.\n\n"
    "Each command but plan makes targets of the Snakemake workflow in a checkout of "
    "the project: what is there already is not made again, and what was broken off "
    "goes on.\n\n"
    "Start with: clockwork doctor",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for module in (runs, planning, results, sources, doctor):
    for command in module.COMMANDS:
        app.command()(command)


def main() -> NoReturn:
    """Run the command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        code = app(standalone_mode=False)
    except (ValueError, OSError) as error:
        fail(str(error), BAD_INPUT if isinstance(error, ValueError) else FAILED)
    except typer.Abort:
        raise SystemExit(130) from None
    except Exception as error:
        # What typer itself refuses: an unknown command or option, a wrong value.
        if not hasattr(error, "format_message"):
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(error.format_message())
            raise SystemExit(0) from None
        fail(error.format_message(), BAD_INPUT)
    raise SystemExit(code or 0)


def fail(message: str, code: int) -> NoReturn:
    """Say in one line what is wrong, and end."""
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    raise SystemExit(code) from None
