"""Measure the open world's gate: can the papers' claims hold or fail in it?"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.run import new_parser, run


def main(args: Namespace) -> None:
    """Load, measure, write."""
    from clockwork_experiments.models.loading import load_pipeline
    from clockwork_experiments.world import gate, judge

    pipe = load_pipeline(args.teacher.parent)
    bench = gate.Bench(pipe, judge.load(args.judge.parent))
    storage.write_json(args.output, gate.to_json(bench.measure()))


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--teacher", required=True, type=Path, help="its card")
    parser.add_argument("--judge", required=True, type=Path, help="its card")
    parser.add_argument("--output", required=True, type=Path, help="JSON to write")
    run(parser, main)
