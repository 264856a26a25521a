"""Measure the mini world's gate: can the papers' claims hold or fail in it?"""

from __future__ import annotations

from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.run import run


def measure_world(
    teacher: Path,
    judge: Path,
    features: Path,
    structure: Path,
    conv_layer: str,
    output: Path,
) -> None:
    """Measure the criteria, each with its interval, bar and verdict.

    Args:
        teacher: Pipeline folder.
        judge: Folder of the judge of what pictures show.
        features: Folder of the Fréchet distance's network.
        structure: Folder of the ViT that tells the structure.
        conv_layer: Layer whose features Plug-and-Play injects.
        output: JSON to write; the table beside it.
    """
    from clockwork_experiments.models import mini
    from clockwork_experiments.models.loading import load_pipeline
    from clockwork_experiments.score.structure import load_structure
    from clockwork_experiments.world import gate
    from clockwork_experiments.world.judge import load

    bench = gate.Bench(load_pipeline(teacher), load(judge))
    found = bench.measure()
    found[gate.INJECTION] = bench.injection_gain(load_structure(structure), conv_layer)
    found[gate.FLOOR] = bench.frechet_floor(mini.load(mini.FeatureNetwork, features))
    storage.write_json(output, gate.to_json(found))
    storage.write_text(output.with_suffix(".md"), gate.to_markdown(found))


if __name__ == "__main__":
    run(measure_world)
