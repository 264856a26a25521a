"""Run a step from the command line, and report bad input in one line."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path

from clockwork_experiments.base import interruption, lease

log = logging.getLogger(__name__)


def new_parser(description: str | None) -> ArgumentParser:
    """Return a parser with the options that every step has."""
    parser = ArgumentParser(description=description)
    parser.add_argument("--log", type=Path, help="file for the log")
    parser.add_argument(
        "--threads", type=int, default=0, help="CPU threads of torch; 0: its default"
    )
    return parser


def run(parser: ArgumentParser, main: Callable[[Namespace], None]) -> None:
    """Parse the command line and run a step.

    Bad input (`ValueError`) and failures of the system (`OSError`) end in one line on
    stderr and exit code 1; anything else is a defect, and shows its traceback.
    """
    arguments = parser.parse_args()
    _set_up_logging(arguments.log)
    # For torch and for every library below it, before any is imported.
    if arguments.threads:
        os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    _quieten_libraries()
    # Every weight is a local file; a typo must not become a request to a hub.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    interruption.tidy_at_sigterm()
    state = getattr(arguments, "state", None)
    try:
        with lease.held(state) if state is not None else contextlib.nullcontext():
            main(arguments)
    except (ValueError, OSError) as error:
        message = " ".join(str(error).split())
        if isinstance(error, OSError) and error.filename is not None:
            message = f"{error.strerror}: {error.filename}"
        log.debug("traceback", exc_info=True)
        print(f"error: {message}", file=sys.stderr)
        log.debug("error: %s", message)
        raise SystemExit(1) from None
    except Exception:
        log.debug("traceback", exc_info=True)
        raise


def _quieten_libraries() -> None:
    """Keep the libraries' own bars and notices off the terminal; errors stay.

    By environment, since importing the libraries only to say so would cost seconds.
    """
    for name, value in {
        "DIFFUSERS_VERBOSITY": "error",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    }.items():
        os.environ.setdefault(name, value)
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)


def _set_up_logging(path: Path | None) -> None:
    # A log on a full disk must not hide the one line that says so.
    logging.raiseExceptions = False
    handlers: list[logging.Handler] = []
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(path, mode="w", encoding="utf-8"))
        handlers[0].setLevel(logging.DEBUG)
    else:
        handlers.append(logging.StreamHandler())
        handlers[0].setLevel(logging.INFO)
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(name)s %(message)s",
        handlers=handlers,
    )
    for package in ("clockwork_diffusion", "clockwork_experiments"):
        logging.getLogger(package).setLevel(logging.DEBUG)
