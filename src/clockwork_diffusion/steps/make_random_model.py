"""Make a model with random weights in a published model's format and size."""

from __future__ import annotations

import logging
from argparse import Namespace
from pathlib import Path

from clockwork_diffusion import storage
from clockwork_diffusion.specs import parse
from clockwork_diffusion.steps._run import new_parser, run

log = logging.getLogger(__name__)


def main(args: Namespace) -> None:
    """Make it beside its place, and move it there whole."""
    from clockwork_diffusion import random_models

    spec = parse(random_models.RandomModelSpec, args.spec)
    with storage.atomic_path(args.output) as folder:
        folder.mkdir()
        parameters = random_models.make_random_model(spec, folder)
    log.info("%s: %d parameters, random", args.output, parameters)


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="RandomModelSpec as JSON")
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    run(parser, main)
