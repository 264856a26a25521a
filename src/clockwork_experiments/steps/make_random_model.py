"""Make a model with random weights in a published model's format and size."""

from __future__ import annotations

import logging
from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.run import run

log = logging.getLogger(__name__)


def make_random_model(spec: str, output: Path) -> None:
    """Make it beside its place, and move it there whole.

    Args:
        spec: A `RandomModelSpec` as JSON.
        output: Folder to write.
    """
    from clockwork_experiments.random import models

    chosen = parse(models.RandomModelSpec, spec)
    with storage.atomic_path(output) as folder:
        folder.mkdir()
        parameters = models.make_random_model(chosen, folder)
    log.info("%s: %d parameters, random", output, parameters)


if __name__ == "__main__":
    run(make_random_model)
