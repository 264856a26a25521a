"""Run a step from the command line, and report bad input in one line."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import logging
import os
import re
import resource
import sys
import types
import typing
from argparse import Action, ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from clockwork_experiments.base import failures, forkserver, interruption, lease
from clockwork_experiments.config.parse import parse

log = logging.getLogger(__name__)


def options_of(
    step: Callable[..., None],
) -> tuple[ArgumentParser, Callable[[Namespace], None]]:
    """Return the command line of a step, and how to call the step with it.

    Each parameter is an option, required without a default; its ``Args`` entry in the
    docstring is the help. A dataclass and a mapping are given as JSON, a mapping to
    paths, or lists of them, as ``name=path …``, a sequence as several values, and a
    flag as nothing. What the function takes by position alone has no name here either.

    Args:
        step: A function; each argument is annotated with a type that its module has
            at run time.
    """
    text = inspect.getdoc(step) or ""
    parser = ArgumentParser(description=text.partition("\n")[0])
    parser.add_argument("--log", type=Path, help="file for the log")
    parser.add_argument(
        "--threads", type=int, default=0, help="CPU threads of torch; 0: its default"
    )
    helps = dict(re.findall(r"^    (\w+): ((?:.|\n     )+)", text, re.MULTILINE))
    hints = typing.get_type_hints(step)
    parameters = inspect.signature(step).parameters
    placed = [name for name, each in parameters.items() if each.kind is _PLACED]
    for name, parameter in parameters.items():
        required = parameter.default is inspect.Parameter.empty
        reading = _reading(hints[name], required)
        about = " ".join(helps.get(name, "").split()).replace("%", "%%")
        if name in placed:
            parser.add_argument(name, help=about, **reading)
            continue
        parser.add_argument(
            *dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}")),
            dest=name,
            help=about,
            **({"required": True} if required else {"default": parameter.default}),
            **reading,
        )

    def call(arguments: Namespace) -> None:
        # Parsed here, not by argparse, whose messages drop what is wrong.
        given = {
            name: _parsed(hints[name], getattr(arguments, name), name)
            for name in parameters
        }
        by_place = [given.pop(name) for name in placed]
        step(*by_place, **given)

    return parser, call


_PLACED = inspect.Parameter.POSITIONAL_ONLY


def _parsed(hint: Any, value: Any, where: str) -> Any:
    """Return a value with its JSON as the dataclass, or dataclasses by name."""
    if isinstance(value, str) and dataclasses.is_dataclass(hint):
        return parse(typing.cast(type, hint), value, where)
    if typing.get_origin(hint) is dict and value is not None:
        kind = typing.get_args(hint)[1]
        if dataclasses.is_dataclass(kind):
            return {
                name: parse(typing.cast(type, kind), each, f"{where}.{name}")
                for name, each in value.items()
            }
    return value


def _reading(hint: Any, required: bool) -> dict[str, Any]:
    """Return what argparse is told of a type."""
    inner = [kind for kind in typing.get_args(hint) if kind is not type(None)]
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _reading(inner[0], True)
    if origin is typing.Literal:
        return {"choices": inner}
    if origin is dict and inner[1] is Path:
        return {"nargs": "*", "action": _Named}
    if origin is dict and inner[1] == list[Path]:
        return {"nargs": "*", "action": _NamedLists}
    if origin is dict:
        return {"type": json.loads}
    if origin in (list, tuple, Sequence):
        return {"nargs": "+" if required else "*", **_reading(inner[0], True)}
    if hint is bool:
        return {"action": "store_true"}
    return {"type": hint} if hint in (int, float, Path) else {}


class _Named(Action):
    """Reads ``name=path …`` as a mapping."""

    def __call__(
        self, parser: ArgumentParser, namespace: Namespace, values: Any, option: Any = 0
    ) -> None:
        read: dict[str, Any] = {}
        for name, _, path in (str(value).partition("=") for value in values):
            self.add(read, name, Path(path))
        setattr(namespace, self.dest, read)

    def add(self, read: dict[str, Any], name: str, path: Path) -> None:
        """Take one value."""
        read[name] = path


class _NamedLists(_Named):
    """The same, where a name may have several."""

    def add(self, read: dict[str, Any], name: str, path: Path) -> None:
        """Take one value."""
        read.setdefault(name, []).append(path)


def run(step: Callable[..., None]) -> None:
    """Parse the command line and run a step.

    A step is a function from whose types and docstring its options are made
    (`options_of`). What it fails of is told by the exit code, a `failures.Kind`, and by
    one line on stderr; a defect shows its traceback.
    """
    # Not if this process is another's, as a test's is.
    if step.__module__ == "__main__":
        done = forkserver.run_there()
        if done is not None:
            raise SystemExit(done)
    parser, call = options_of(step)
    arguments = parser.parse_args()
    line = failures.remembered(arguments.log)
    if line:
        print(line, file=sys.stderr)
        raise SystemExit(failures.Kind.PERMANENT)
    _set_up_logging(arguments.log)
    # For torch and for every library below it, before any is imported.
    if arguments.threads:
        os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(arguments.threads)
    for name, value in forkserver.SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    interruption.leave_at_signals()
    state = getattr(arguments, "state", None)
    try:
        with lease.held(state) if state is not None else contextlib.nullcontext():
            try:
                call(arguments)
            finally:
                log.debug("%s", used())
    except (Exception, KeyboardInterrupt) as error:
        # Where a signal met it says nothing, and Snakemake shows failed jobs' logs.
        if not isinstance(error, (KeyboardInterrupt, InterruptedError)):
            log.debug("traceback", exc_info=True)
        kind = failures.kind_of(error)
        if kind == failures.Kind.DEFECT:
            raise
        line = failures.line_of(error)
        print(line, file=sys.stderr)
        log.debug("%s", line)
        if kind == failures.Kind.PERMANENT:
            failures.remember(arguments.log, line)
        raise SystemExit(kind) from None


def used() -> str:
    """Return what this process has used; `steps.list_costs` reads it from the log.

    Snakemake measures the processes that it has started, and a step may be another's
    fork.
    """
    parts = [
        resource.getrusage(who)
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    seconds = sum(part.ru_utime + part.ru_stime for part in parts)
    megabytes = max(part.ru_maxrss for part in parts) / 1024
    return f"used {seconds:.2f} CPU seconds and {megabytes:.0f} MB"


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
