"""Draw one figure as PDF and PNG."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from clockwork_diffusion import datasets, storage
from clockwork_diffusion.figures import (
    curves,
    grid,
    perturbation,
    schematic,
    style,
    training,
)
from clockwork_diffusion.specs import parse
from clockwork_diffusion.steps._run import new_parser, run

SPECS: dict[str, type] = {
    "grid": grid.FigureSpec,
    "curves": curves.CurvesSpec,
    "method": schematic.MethodSpec,
    "block_map": schematic.BlockMapSpec,
    "adaptor_map": schematic.AdaptorFigure,
    "perturbation_grid": perturbation.PerturbationGridSpec,
    "perturbation_curves": perturbation.PerturbationCurvesSpec,
    "training_curves": training.TrainingCurvesSpec,
}
"""Kinds of figures."""


def main(args: Namespace) -> None:
    """Gather what the figure shows and write both files."""
    if args.kind not in SPECS:
        raise ValueError(f"kind {args.kind!r} is not one of {', '.join(SPECS)}")
    spec: Any = parse(SPECS[args.kind], args.spec)
    draw: dict[type, Callable[[], Figure]] = {
        grid.FigureSpec: lambda: _grid(spec, args),
        curves.CurvesSpec: lambda: _curves(spec, args),
        schematic.MethodSpec: lambda: schematic.draw_method(spec),
        schematic.BlockMapSpec: lambda: schematic.draw_block_map(
            spec, storage.read_json(args.flops[0])
        ),
        schematic.AdaptorFigure: lambda: schematic.draw_adaptor_map(
            spec.with_layout(storage.read_json(args.flops[0]))
        ),
        perturbation.PerturbationGridSpec: lambda: perturbation.draw_grid(
            spec, perturbation.read_results(args.images[0], args.distances)
        ),
        perturbation.PerturbationCurvesSpec: lambda: perturbation.draw_curves(
            spec, perturbation.read_results(args.images[0], args.distances)
        ),
        training.TrainingCurvesSpec: lambda: training.draw_curves(
            spec,
            {path.stem: training.read_curve(path) for path in args.curves},
            {path.stem: storage.read_json(path) for path in args.errors},
        ),
    }
    style.save(draw[type(spec)](), args.output)


def _grid(spec: grid.FigureSpec, args: Namespace) -> Figure:
    shards: dict[str, list[np.ndarray]] = {}
    for path in args.images:
        images = storage.read_arrays(path)["images"]
        shards.setdefault(path.parent.name, []).append(images)
    timings = storage.read_json(args.latency)["runs"] if args.latency else {}
    return grid.draw_grid(
        spec,
        {name: np.concatenate(parts) for name, parts in shards.items()},
        datasets.read_prompts(args.prompts),
        {name: timing["mean_ms"] for name, timing in timings.items()},
    )


def _curves(spec: curves.CurvesSpec, args: Namespace) -> Figure:
    from clockwork_diffusion.costs import run_flops

    counts = {path.stem: storage.read_json(path) for path in args.flops}
    scale = {"TFLOPs": 1e-12, "GFLOPs": 1e-9}
    (unit,) = [unit for unit in scale if unit in spec.x_label]
    cost = {
        name: scale[unit] * run_flops(settings, counts[settings["model"]], "flops")
        for name, settings in args.runs.items()
    }
    scores = {path.stem: storage.read_json(path)["scores"] for path in args.scores}
    if spec.paired:
        scores = {run: curves.paired_intervals(of) for run, of in scores.items()}
    return curves.draw_curves(spec, cost, scores)


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--kind", required=True, help=f"one of {', '.join(SPECS)}")
    parser.add_argument("--spec", required=True, help="the kind's spec as JSON")
    parser.add_argument("--images", nargs="+", type=Path, help="<run>/<shard> files")
    parser.add_argument("--prompts", type=Path, help="prompts as JSON")
    parser.add_argument("--latency", type=Path, help="timings")
    parser.add_argument("--flops", nargs="+", type=Path, help="counts, <model>.json")
    parser.add_argument("--scores", nargs="+", type=Path, help="scores, <run>.json")
    parser.add_argument("--runs", type=json.loads, help="settings of the runs")
    parser.add_argument("--curves", nargs="+", type=Path, help="<adaptor>.csv")
    parser.add_argument("--errors", nargs="+", type=Path, help="<adaptor>.json")
    parser.add_argument("--distances", type=Path, help="measures of perturbations")
    parser.add_argument(
        "--output", required=True, type=Path, help="path; the suffix is replaced"
    )
    run(parser, main)
