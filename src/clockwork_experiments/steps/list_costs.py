"""List what jobs took, by Snakemake's benchmarks: seconds and peak memory.

Of jobs on a cluster also what share of the CPUs and of the memory that they asked for
they used, by Slurm's efficiency reports, where there are some.
"""

from __future__ import annotations

import os
from pathlib import Path

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.cost import job_costs
from clockwork_experiments.run import run


def list_costs(
    benchmarks: Path, output: Path, note: str = "", efficiency: Path | None = None
) -> None:
    """Read the benchmarks that there are, and sum them up by rule.

    Args:
        benchmarks: Benchmarks of a scale, in a folder of its name.
        output: JSON to write; Markdown beside it.
        note: What a reader must know of them.
        efficiency: Folder of Slurm's efficiency reports.
    """
    jobs = [
        job
        for path in sorted(benchmarks.rglob("*.tsv"))
        for job in job_costs.read_benchmark(path, benchmarks)
    ]
    rules = job_costs.by_rule(jobs)
    reports = sorted(efficiency.glob("*.csv")) if efficiency else []
    for rule, used in job_costs.used_by_rule(reports, benchmarks.name).items():
        rules.setdefault(rule, dict.fromkeys(job_costs.COSTS)).update(used)
    result = {
        "jobs": jobs,
        "rules": rules,
        "cores": os.cpu_count(),
        "device": provenance.device_name(),
        "note": note,
    }
    storage.write_json(output, result)
    storage.write_text(output.with_suffix(".md"), job_costs.to_markdown(result))


if __name__ == "__main__":
    run(list_costs)
