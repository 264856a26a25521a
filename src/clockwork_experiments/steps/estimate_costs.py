"""Estimate what a scale with real weights costs, rule by rule."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

from clockwork_experiments.base import storage, texts
from clockwork_experiments.config.parse import parse
from clockwork_experiments.cost import estimates
from clockwork_experiments.run import new_parser, run


def main(args: Namespace) -> None:
    """Work out the passes of each rule, and write them as a table."""
    units = parse(estimates.UnitCosts, texts.read_yaml(args.units), str(args.units))
    config = json.loads(args.spec)
    storage.write_text(args.output, estimates.to_markdown(config, units, args.title))


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="a scale's configuration as JSON")
    parser.add_argument("--units", required=True, type=Path, help="unit costs, YAML")
    parser.add_argument("--title", required=True, help="heading of the table")
    parser.add_argument("--output", required=True, type=Path, help="Markdown to write")
    run(parser, main)
