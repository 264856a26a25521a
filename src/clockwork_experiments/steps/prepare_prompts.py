"""Write a set's prompts as JSON."""

from __future__ import annotations

from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.data import datasets
from clockwork_experiments.run import run


def prepare_prompts(spec: datasets.DatasetSpec, output: Path) -> None:
    """Generate or read the prompts.

    Args:
        spec: The set.
        output: JSON to write.
    """
    if spec.source == "scenes":
        from clockwork_experiments.world.captions import captions

        prompts = captions(spec.split, spec.count, spec.offset)
    else:
        prompts = datasets.folder_prompts(Path(spec.path), spec.count, spec.offset)
    storage.write_json(output, prompts * spec.seeds)


if __name__ == "__main__":
    run(prepare_prompts)
