"""Bring a source of weights or data to its place, verify it, and say what is there."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.data import sources
from clockwork_experiments.run import new_parser, run


def main(args: Namespace) -> None:
    """Fetch what is not there, and write the manifest."""
    spec = parse(sources.SourceSpec, args.spec, args.source)
    manifest = sources.fetch(args.source, spec, args.lock, sources.is_offline())
    storage.write_json(args.output, manifest)


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--source", required=True, help="the source's name")
    parser.add_argument("--spec", required=True, help="SourceSpec as JSON")
    parser.add_argument(
        "--lock", required=True, type=Path, help="record of first fetches, kept"
    )
    parser.add_argument("--output", required=True, type=Path, help="manifest to write")
    # Steps are offline unless they say otherwise; this one is if the user says so.
    os.environ.setdefault("HF_HUB_OFFLINE", "0")
    run(parser, main)
