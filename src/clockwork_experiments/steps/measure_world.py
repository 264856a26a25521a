"""Measure the open world's gate: can the papers' claims hold or fail in it?"""

from __future__ import annotations

from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.run import run


def measure_world(teacher: Path, judge: Path, output: Path) -> None:
    """Load, measure, write.

    Args:
        teacher: Its card.
        judge: Its card.
        output: JSON to write.
    """
    from clockwork_experiments.models.loading import load_pipeline
    from clockwork_experiments.world import gate
    from clockwork_experiments.world import judge as judges

    pipe = load_pipeline(teacher.parent)
    bench = gate.Bench(pipe, judges.load(judge.parent))
    storage.write_json(output, gate.to_json(bench.measure()))


if __name__ == "__main__":
    run(measure_world)
