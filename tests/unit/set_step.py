"""The steps that set tables, draw figures and judge claims, called from Python."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

from clockwork_experiments.claims.registry import ClaimsSpec
from clockwork_experiments.config.parse import parse
from clockwork_experiments.steps import draw_figure, judge_claims, set_table


def set_and_list(given: dict[str, Any]) -> dict[str, Any]:
    """Return arguments whose files are under ``inputs``, each in a list."""
    own = {key: given.pop(key) for key in ("kind", "spec", "output") if key in given}
    runs = given.pop("runs", {})
    own["runs"] = json.loads(runs) if isinstance(runs, str) else runs
    own["inputs"] = {
        name: [paths] if isinstance(paths, Path) else list(paths)
        for name, paths in given.items()
        if paths
    }
    return own


def table(**given: Any) -> None:
    """Set a table."""
    set_table.set_table(**set_and_list(given))


def figure(given: Namespace) -> None:
    """Draw a figure."""
    draw_figure.draw_figure(**set_and_list(dict(vars(given))))


def claims(given: Namespace) -> None:
    """Judge claims."""
    files = dict(vars(given))
    spec = parse(ClaimsSpec, files.pop("spec"))
    settings, output = json.loads(files.pop("settings")), files.pop("output")
    inputs = set_and_list(files)["inputs"]
    judge_claims.judge_claims(spec, settings, inputs, output)
