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
from clockwork_experiments.report import (
    joint_tables,
    level_tables,
    pages,
    schedule_tables,
    step_tables,
    tables,
)
from clockwork_experiments.run import new_parser, run

SPECS: dict[str, type] = {
    "results": tables.TableSpec,
    "settings": tables.SettingsSpec,
    "levels": level_tables.LevelTableSpec,
    "level_costs": level_tables.CostTableSpec,
    "multi_depth": schedule_tables.MultiTableSpec,
    "step_gammas": step_tables.GammaTableSpec,
    "step_scores": step_tables.ScoreTableSpec,
    "joint": joint_tables.JointTableSpec,
}
"""Kinds of tables."""


def main(args: Namespace) -> None:
    """Gather results and write the files."""
    if args.kind not in SPECS:
        raise ValueError(f"kind {args.kind!r} is not one of {', '.join(SPECS)}")
    spec: Any = parse(SPECS[args.kind], args.spec)
    runs = json.loads(args.runs)
    label = args.output.stem
    if args.kind == "settings":
        frame = tables.fill_settings(spec, runs)
        csv = frame.to_csv(index=False)
        markdown = tables.settings_to_markdown(spec, frame)
        latex = tables.settings_to_latex(spec, frame, label)
    elif args.kind in ("levels", "level_costs"):
        csv, markdown, latex = _levels(spec, args)
    elif args.kind == "multi_depth":
        found = storage.read_json(args.search) if args.search else {}
        cells_of = schedule_tables.fill(spec, found)
        text = schedule_tables.to_text(cells_of)
        shown = (spec.title, spec.caption, schedule_tables.COLUMNS, text)
        csv = schedule_tables.to_csv(cells_of)
        markdown = level_tables.to_markdown(*shown)
        latex = level_tables.to_latex(*shown, label)
    elif args.kind in ("step_gammas", "step_scores"):
        csv, markdown, latex = _steps(spec, args)
    elif args.kind == "joint":
        csv, markdown, latex = _joint(spec, args)
    else:
        results = tables.Results(
            runs=runs,
            scores=_scores(args.scores),
            flops={path.stem: storage.read_json(path) for path in args.flops},
            latency=storage.read_json(args.latency) if args.latency else {},
            profiles={path.stem: storage.read_json(path) for path in args.profiles},
            edit_latency=(
                storage.read_json(args.edit_latency) if args.edit_latency else {}
            ),
            levels={path.stem: storage.read_json(path) for path in args.levels},
        )
        cells = tables.fill(spec, results)
        csv = tables.to_frame(spec, cells).to_csv(index=False)
        markdown = tables.to_markdown(spec, cells)
        latex = tables.to_latex(spec, cells, label)
    storage.write_text(args.output.with_suffix(".csv"), csv)
    storage.write_text(args.output.with_suffix(".md"), markdown)
    storage.write_text(args.output.with_suffix(".tex"), latex)
    page = pages.to_page(markdown, label)
    storage.write_text(args.output.with_suffix(".html"), page)


def _levels(
    spec: level_tables.LevelTableSpec | level_tables.CostTableSpec, args: Namespace
) -> tuple[str, str, str]:
    """Return a table of levels, or of what they cost, as CSV, Markdown and LaTeX."""
    counts = {path.stem: storage.read_json(path) for path in args.levels}
    timings = {path.stem: storage.read_json(path) for path in args.level_latency}
    caption = spec.caption
    devices = {timed["device"]: timed["dtype"] for timed in timings.values()}
    if devices:
        named = ", ".join(f"{name}, {dtype}" for name, dtype in devices.items())
        caption += f" Timed on: {named}."
    if isinstance(spec, level_tables.LevelTableSpec):
        if list(counts) != [spec.translator]:
            given = ", ".join(counts) or "none"
            raise ValueError(f"the table shows {spec.translator!r}, not {given}")
        columns = level_tables.LEVEL_COLUMNS
        timed = timings.get(spec.translator, {})
        rows = level_tables.fill_levels(spec, counts[spec.translator], timed)
    else:
        columns = level_tables.COST_COLUMNS
        rows = level_tables.fill_costs(spec, counts, timings)
    text = (spec.title, caption, columns, rows)
    return (
        level_tables.to_csv(columns, rows),
        level_tables.to_markdown(*text),
        level_tables.to_latex(*text, args.output.stem),
    )


def _steps(spec: step_tables.StepTableSpec, args: Namespace) -> tuple[str, str, str]:
    """Return a table of time steps as CSV, Markdown and LaTeX."""
    found = {path.stem: storage.read_json(path) for path in args.step_searches}
    columns, cells = step_tables.columns_of(spec), step_tables.fill(spec, found)
    caption = spec.caption + step_tables.notes(spec, found)
    text = (spec.title, caption, columns, step_tables.to_text(columns, cells))
    return (
        step_tables.to_csv(columns, cells),
        level_tables.to_markdown(*text),
        level_tables.to_latex(*text, args.output.stem),
    )


def _joint(spec: joint_tables.JointTableSpec, args: Namespace) -> tuple[str, str, str]:
    """Return a table of combinations as CSV, Markdown and LaTeX."""
    found = joint_tables.read_measured(
        args.step_searches, json.loads(args.runs), args.levels, args.level_latency
    )
    columns, rows = joint_tables.columns_of(spec), joint_tables.fill(spec, found)
    shown = joint_tables.to_text(spec, rows)
    said = joint_tables.statements(spec, found)
    caption = " ".join([spec.caption, *joint_tables.devices(found)])
    markdown = level_tables.to_markdown(spec.title, caption, columns, shown)
    if said:
        markdown += "".join(["\n", *(f"- {line}\n" for line in said)])
    whole = " ".join([caption, *said])
    return (
        joint_tables.to_csv(spec, rows),
        markdown,
        level_tables.to_latex(spec.title, whole, columns, shown, args.output.stem),
    )


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
    parser.add_argument(
        "--flops", nargs="*", default=[], type=Path, help="counts, <model>.json"
    )
    parser.add_argument(
        "--profiles", nargs="*", default=[], type=Path, help="profiles, <model>.json"
    )
    parser.add_argument("--latency", type=Path, help="timings")
    parser.add_argument(
        "--levels", nargs="*", default=[], type=Path, help="levels, <translator>.json"
    )
    parser.add_argument("--search", type=Path, help="search of levels, <search>.json")
    parser.add_argument(
        "--step_searches",
        nargs="*",
        default=[],
        type=Path,
        help="searches of time steps, <step_search>.json",
    )
    parser.add_argument(
        "--level_latency", nargs="*", default=[], type=Path, help="timings, likewise"
    )
    parser.add_argument(
        "--edit_latency", type=Path, help="timings of edits, and bytes that they keep"
    )
    parser.add_argument(
        "--output", required=True, type=Path, help="path; the suffix is replaced"
    )
    run(parser, main)
