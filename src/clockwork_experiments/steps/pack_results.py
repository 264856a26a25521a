"""Pack a run's results as a Workflow Run RO-Crate."""

from __future__ import annotations

from pathlib import Path

from clockwork_experiments.report import crate
from clockwork_experiments.run import run


def pack_results(
    spec: crate.CrateSpec,
    workflow: Path,
    sources: list[Path],
    results: list[Path],
    output: Path,
) -> None:
    """Pack results, and what made them.

    Args:
        spec: The run.
        workflow: The Snakefile.
        sources: The rest of the workflow, and its settings.
        results: Files to pack, all below the working folder.
        output: The zip to write.
    """
    crate.pack(spec, workflow, sources, results, output)


if __name__ == "__main__":
    run(pack_results)
