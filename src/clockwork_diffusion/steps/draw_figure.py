"""Draw one figure as PDF and PNG."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np

from clockwork_diffusion import datasets, storage
from clockwork_diffusion.figures import grid, style
from clockwork_diffusion.specs import parse
from clockwork_diffusion.steps._run import new_parser, run


def main(args: Namespace) -> None:
    """Gather images and write both files."""
    spec = parse(grid.FigureSpec, args.spec)
    shards: dict[str, list[np.ndarray]] = {}
    for path in args.images:
        images = storage.read_arrays(path)["images"]
        shards.setdefault(path.parent.name, []).append(images)
    timings = storage.read_json(args.latency)["runs"] if args.latency else {}
    figure = grid.draw_grid(
        spec,
        {name: np.concatenate(parts) for name, parts in shards.items()},
        datasets.read_prompts(args.prompts),
        {name: timing["mean_ms"] for name, timing in timings.items()},
    )
    style.save(figure, args.output)


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="FigureSpec as JSON")
    parser.add_argument(
        "--images", required=True, nargs="+", type=Path, help="<run>/<shard> files"
    )
    parser.add_argument("--prompts", required=True, type=Path, help="prompts as JSON")
    parser.add_argument("--latency", type=Path, help="timings")
    parser.add_argument(
        "--output", required=True, type=Path, help="path; the suffix is replaced"
    )
    run(parser, main)
