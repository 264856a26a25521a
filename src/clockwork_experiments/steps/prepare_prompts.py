"""Write a set's prompts as JSON."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.data import datasets
from clockwork_experiments.run import new_parser, run


def main(args: Namespace) -> None:
    """Generate or read the prompts."""
    spec = parse(datasets.DatasetSpec, args.spec)
    if spec.source == "scenes":
        from clockwork_experiments.mini import scenes

        prompts = scenes.captions(spec.split, spec.count, spec.offset)
    else:
        prompts = datasets.folder_prompts(Path(spec.path), spec.count, spec.offset)
    storage.write_json(args.output, prompts * spec.seeds)


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="DatasetSpec as JSON")
    parser.add_argument("--output", required=True, type=Path, help="JSON to write")
    run(parser, main)
