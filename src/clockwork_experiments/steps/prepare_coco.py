"""Turn COCO's archives into folders of captions, images and pairs."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.data import captions, coco, pair_sets, sources
from clockwork_experiments.run import new_parser, run


def main(args: Namespace) -> None:
    """Make the folder unless the user has placed it, check it, write its manifest."""
    spec = parse(coco.CocoSpec, args.spec)
    folder = Path(spec.path)
    if not args.placed:
        coco.prepare(spec)
    if spec.of:
        pair_sets.read_list(
            pair_sets.PairSetSpec("control", "folder", path=spec.path, size=1)
        )
        main_file = pair_sets.LIST
    else:
        main_file = os.path.relpath(captions.read(folder).listed, folder)
    manifest = sources.describe(args.name, folder, [main_file])
    if not args.placed:
        manifest["made_from"] = spec.of or [spec.images, spec.annotations]
    storage.write_json(args.output, manifest)


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--name", required=True, help="the set's name")
    parser.add_argument("--spec", required=True, help="CocoSpec as JSON")
    parser.add_argument(
        "--placed", action="store_true", help="the user has placed the folder: check it"
    )
    parser.add_argument("--output", required=True, type=Path, help="manifest to write")
    run(parser, main)
