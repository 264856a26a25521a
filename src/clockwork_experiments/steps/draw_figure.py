"""Draw one figure as PDF and PNG."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.data import datasets, shards
from clockwork_experiments.report.figures import (
    caching,
    curves,
    depth,
    editing,
    grid,
    joint,
    levels,
    perturbation,
    schematic,
    style,
    timesteps,
    training,
    translations,
)
from clockwork_experiments.report.tables.table import Results
from clockwork_experiments.run import new_parser, run

SPECS: dict[str, type] = {
    "grid": grid.FigureSpec,
    "curves": curves.CurvesSpec,
    "method": schematic.MethodSpec,
    "block_map": schematic.BlockMapSpec,
    "adaptor_map": schematic.AdaptorFigure,
    "perturbation_grid": perturbation.PerturbationGridSpec,
    "perturbation_curves": perturbation.PerturbationCurvesSpec,
    "training_curves": training.TrainingCurvesSpec,
    "edit_curves": curves.CurvesSpec,
    "edit_grid": editing.EditGridSpec,
    "edit_timings": editing.EditTimingsSpec,
    "pnp_caching": caching.PnpCachingSpec,
    "level_map": levels.LevelMapSpec,
    "translation_grid": translations.TranslationGridSpec,
    "depth_curves": depth.DepthCurvesSpec,
    "step_plane": timesteps.StepPlaneSpec,
    "step_ticks": timesteps.StepTicksSpec,
    "step_curves": timesteps.StepCurvesSpec,
    "search_progress": timesteps.SearchProgressSpec,
    "joint_pareto": joint.JointParetoSpec,
}
"""Kinds of figures."""


def main(args: Namespace) -> None:
    """Gather what the figure shows and write both files."""
    if args.kind not in SPECS:
        raise ValueError(f"kind {args.kind!r} is not one of {', '.join(SPECS)}")
    spec: Any = parse(SPECS[args.kind], args.spec)
    draw: dict[str, Callable[[], Figure]] = {
        "grid": lambda: _grid(spec, args),
        "curves": lambda: _curves(spec, args, _run_scores(args.scores)),
        "method": lambda: schematic.draw_method(spec),
        "block_map": lambda: schematic.draw_block_map(
            spec, storage.read_json(args.flops[0])
        ),
        "adaptor_map": lambda: schematic.draw_adaptor_map(
            spec.with_layout(storage.read_json(args.flops[0]))
        ),
        "perturbation_grid": lambda: perturbation.draw_grid(
            spec, perturbation.read_results(args.images[0], args.distances)
        ),
        "perturbation_curves": lambda: perturbation.draw_curves(
            spec, perturbation.read_results(args.images[0], args.distances)
        ),
        "training_curves": lambda: training.draw_curves(
            spec,
            {path.stem: training.read_curve(path) for path in args.curves},
            {path.stem: storage.read_json(path) for path in args.errors},
        ),
        "edit_curves": lambda: _curves(spec, args, _edit_scores(args.scores)),
        "edit_grid": lambda: editing.draw_grid(spec, _edits(spec, args)),
        "edit_timings": lambda: editing.draw_timings(
            spec, _edits(spec, args), _latencies(args)
        ),
        "pnp_caching": lambda: caching.draw_pnp_caching(spec),
        "level_map": lambda: levels.draw_level_map(
            spec, storage.read_json(args.levels)
        ),
        "translation_grid": lambda: translations.draw_grid(
            spec, _translated(spec, args)
        ),
        "depth_curves": lambda: depth.draw_depth_curves(spec, _searches(args)),
        "step_plane": lambda: timesteps.draw_plane(spec, _searches(args)),
        "step_ticks": lambda: timesteps.draw_ticks(spec, _searches(args)),
        "step_curves": lambda: timesteps.draw_curves(spec, _searches(args)),
        "search_progress": lambda: timesteps.draw_progress(spec, _searches(args)),
        "joint_pareto": lambda: joint.draw_joint_pareto(
            spec,
            Results(
                runs=args.runs,
                step_searches=_searches(args),
                levels=_by_id(args.counts),
                level_latency=_by_id(args.level_latency),
            ),
        ),
    }
    style.save(draw[args.kind](), args.output)


def _grid(spec: grid.FigureSpec, args: Namespace) -> Figure:
    return grid.draw_grid(
        spec,
        shards.images_by_run(args.images),
        datasets.read_prompts(args.prompts),
        _latencies(args),
    )


def _searches(args: Namespace) -> dict[str, Any]:
    """Return searches by id; none where a figure needs none."""
    return _by_id(args.searches or ())


def _by_id(paths: Iterable[Path]) -> dict[str, Any]:
    return {path.stem: storage.read_json(path) for path in paths}


def _latencies(args: Namespace) -> dict[str, float]:
    """Return the milliseconds of each timed run."""
    timings = storage.read_json(args.latency)["runs"] if args.latency else {}
    return {name: timing["mean_ms"] for name, timing in timings.items()}


def _edits(
    spec: editing.EditGridSpec | editing.EditTimingsSpec, args: Namespace
) -> editing.Edits:
    """Read the set that a figure shows, and its edited images."""
    listed = [path for path in args.sets if path.suffix == ".json"]
    if [path.stem for path in listed] != [spec.edit_set]:
        given = ", ".join(map(str, listed)) or "none"
        raise ValueError(f"the figure shows the set {spec.edit_set!r}, not {given}")
    return editing.read_edits(listed[0], args.images)


def _translated(
    spec: translations.TranslationGridSpec, args: Namespace
) -> translations.Translated:
    """Read the pairs that a figure shows, and what was made of them."""
    listed = [path for path in args.sets if path.suffix == ".json"]
    if [path.stem for path in listed] != [spec.set]:
        given = ", ".join(map(str, listed)) or "none"
        raise ValueError(f"the figure shows the set {spec.set!r}, not {given}")
    return translations.read_translated(listed[0], args.images)


def _run_scores(paths: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Return the scores of sampled runs by run and key."""
    return {path.stem: storage.read_json(path)["scores"] for path in paths}


def _edit_scores(paths: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Return the scores of edited runs by ``<edit>/<setting>`` and ``<set>/<key>``.

    Args:
        paths: Files ``<edit_set>/<setting>.json``.
    """
    scores: dict[str, dict[str, Any]] = {}
    for path in paths:
        for edit, scored in storage.read_json(path)["edits"].items():
            of_run = scores.setdefault(f"{edit}/{path.stem}", {})
            for key, score in scored.items():
                of_run[f"{path.parent.name}/{key}"] = score
    return scores


def _curves(
    spec: curves.CurvesSpec, args: Namespace, scores: dict[str, dict[str, Any]]
) -> Figure:
    from clockwork_experiments.cost.formulas import run_flops

    counts = {path.stem: storage.read_json(path) for path in args.flops}
    scale = {"TFLOPs": 1e-12, "GFLOPs": 1e-9}
    (unit,) = [unit for unit in scale if unit in spec.x_label]
    cost = {
        name: scale[unit] * run_flops(settings, counts[settings["model"]], "flops")
        for name, settings in args.runs.items()
    }
    if spec.paired:
        scores = {run: curves.paired_intervals(of) for run, of in scores.items()}
    return curves.draw_curves(spec, cost, scores)


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--kind", required=True, help=f"one of {', '.join(SPECS)}")
    parser.add_argument("--spec", required=True, help="the kind's spec as JSON")
    parser.add_argument("--images", nargs="+", type=Path, help="<run>/<shard> files")
    parser.add_argument("--sets", nargs="+", type=Path, help="a prepared set")
    parser.add_argument("--prompts", type=Path, help="prompts as JSON")
    parser.add_argument("--latency", type=Path, help="timings")
    parser.add_argument("--flops", nargs="+", type=Path, help="counts, <model>.json")
    parser.add_argument("--scores", nargs="+", type=Path, help="scores, <run>.json")
    parser.add_argument("--runs", type=json.loads, help="settings of the runs")
    parser.add_argument("--curves", nargs="+", type=Path, help="<adaptor>.csv")
    parser.add_argument("--errors", nargs="+", type=Path, help="<adaptor>.json")
    parser.add_argument("--levels", type=Path, help="levels, <translator>.json")
    parser.add_argument("--searches", nargs="+", type=Path, help="<search>.json")
    parser.add_argument(
        "--counts", nargs="+", type=Path, help="levels of several models, likewise"
    )
    parser.add_argument(
        "--level_latency", nargs="*", default=[], type=Path, help="their timings"
    )
    parser.add_argument("--distances", type=Path, help="measures of perturbations")
    parser.add_argument(
        "--output", required=True, type=Path, help="path; the suffix is replaced"
    )
    run(parser, main)
