"""Make a model with random weights in a published model's format and size."""

from __future__ import annotations

import logging
from argparse import Namespace
from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.run import new_parser, run

log = logging.getLogger(__name__)


def main(args: Namespace) -> None:
    """Make it beside its place, and move it there whole."""
    from clockwork_experiments.random import models

    spec = parse(models.RandomModelSpec, args.spec)
    with storage.atomic_path(args.output) as folder:
        folder.mkdir()
        parameters = models.make_random_model(spec, folder)
    log.info("%s: %d parameters, random", args.output, parameters)


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="RandomModelSpec as JSON")
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    run(parser, main)
