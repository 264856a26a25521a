"""Set one table as CSV, Markdown, LaTeX and HTML."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.random import marks
from clockwork_experiments.report import pages
from clockwork_experiments.report.tables import joint, levels, results, timesteps
from clockwork_experiments.report.tables.table import Results, Spec
from clockwork_experiments.run import new_parser, run

SPECS: dict[str, type[Spec]] = {
    "results": results.TableSpec,
    "settings": results.SettingsSpec,
    "levels": levels.LevelTableSpec,
    "level_costs": levels.CostTableSpec,
    "multi_depth": levels.MultiTableSpec,
    "step_gammas": timesteps.GammaTableSpec,
    "step_scores": timesteps.ScoreTableSpec,
    "joint": joint.JointTableSpec,
}
"""Kinds of tables."""

BY_ID = {
    "flops": "counts, <model>.json",
    "profiles": "profiles, <model>.json",
    "levels": "counts of levels, <translator>.json",
    "level_latency": "timings of levels, <translator>.json",
    "step_searches": "searches of time steps, <step_search>.json",
}
"""Options that take a file for each id."""

SINGLE = {
    "latency": "timings",
    "edit_latency": "timings of edits, and bytes that they keep",
    "search": "search of levels, <search>.json",
}
"""Options that take one file."""


def main(args: Namespace) -> None:
    """Gather results and write the files."""
    if args.kind not in SPECS:
        raise ValueError(f"kind {args.kind!r} is not one of {', '.join(SPECS)}")
    found = Results(
        runs=json.loads(args.runs),
        scores=_scores(args.scores),
        **{
            name: {path.stem: storage.read_json(path) for path in getattr(args, name)}
            for name in BY_ID
        },
        **{
            name: storage.read_json(path)
            for name in SINGLE
            if (path := getattr(args, name)) is not None
        },
    )
    table = parse(SPECS[args.kind], args.spec).make(found)
    label = args.output.stem
    files = table.files(label)
    files[".html"] = pages.to_page(files[".md"], label)
    for suffix, text in files.items():
        storage.write_text(args.output.with_suffix(suffix), text)


def _scores(paths: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Return the scores of sampled and of edited runs, and of translations, by run.

    Args:
        paths: Files of sampled runs, and ``<edit_set>/<setting>.json`` of edited ones.
    """
    scores = {}
    for path in paths:
        scored = storage.read_json(path)
        if "edits" not in scored:
            scores[scored.get("translation") or scored["run"]] = scored
            continue
        for edit, values in scored["edits"].items():
            name = f"{path.parent.name}/{edit}/{path.stem}"
            mark = {marks.KEY: marks.marks(scored)}
            scores[name] = {"scores": values, **mark}
    return scores


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--kind", default="results", help=f"one of {', '.join(SPECS)}")
    parser.add_argument("--spec", required=True, help="the kind's spec as JSON")
    parser.add_argument("--runs", required=True, help="settings of the runs as JSON")
    parser.add_argument(
        "--scores", nargs="*", default=[], type=Path, help="scores of the runs"
    )
    for name, text in BY_ID.items():
        parser.add_argument(f"--{name}", nargs="*", default=[], type=Path, help=text)
    for name, text in SINGLE.items():
        parser.add_argument(f"--{name}", type=Path, help=text)
    parser.add_argument(
        "--output", required=True, type=Path, help="path; the suffix is replaced"
    )
    run(parser, main)
