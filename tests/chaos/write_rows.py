"""A step that computes nothing, and keeps its state as all do: for many pairs of it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch

from clockwork_experiments.base import chunks, storage
from clockwork_experiments.run import run


def write_rows(spec: dict[str, int], state: Path, output: Path) -> None:
    """Write the seed eight times.

    Args:
        spec: The ``seed``.
        state: Resumable state.
        output: Shard to write.
    """

    def work(rows: slice) -> dict[str, torch.Tensor]:
        time.sleep(0.03)
        return {"rows": torch.full((rows.stop - rows.start,), spec["seed"])}

    tensors = chunks.in_chunks(8, 1, work, state, json.dumps(spec), "rows")
    storage.write_tensors(output, tensors)
    chunks.discard(state)


if __name__ == "__main__":
    run(write_rows)
