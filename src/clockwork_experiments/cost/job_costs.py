"""What jobs took, as Snakemake's benchmarks and Slurm's reports tell it."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

UNKNOWN = "—"

COSTS = ("jobs", "seconds", "cpu_seconds", "longest_seconds", "peak_mb")

USED = {
    "cpu_percent": ("CPU Efficiency (%)", "CPUs used, %"),
    "memory_percent": ("Memory Usage (%)", "memory used, %"),
}
"""What Slurm's reports know: our key, their column, our heading."""


def read_benchmark(path: Path, folder: Path) -> list[dict[str, Any]]:
    """Return a job's costs, one entry per repetition.

    Args:
        path: ``<folder>/<rule>/<job>.tsv``, as Snakemake writes it.
        folder: The scale's benchmarks.

    Raises:
        ValueError: If the file is no benchmark, naming it.
    """
    rule, *rest = path.relative_to(folder).with_suffix("").parts
    cpu, peak = _used(Path("logs", folder.name, rule, *rest).with_suffix(".log"))
    with path.open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file, delimiter="\t"))
    try:
        return [
            {
                "rule": rule,
                "job": "/".join(rest),
                "seconds": float(line["s"]),
                "cpu_seconds": cpu or _number(line.get("cpu_time", "")),
                "peak_mb": peak or _number(line["max_rss"]),
            }
            for line in lines
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no benchmark of Snakemake's: {error}") from error


def _used(log: Path) -> tuple[float | None, float | None]:
    """Return CPU seconds and peak memory in MB as a step has logged them itself.

    Where a step was a fork of the run's server, Snakemake has not seen it.
    """
    text = log.read_text("utf-8", "replace") if log.is_file() else ""
    found = re.findall(r"used ([\d.]+) CPU seconds and (\d+) MB$", text, re.MULTILINE)
    return (float(found[-1][0]), float(found[-1][1])) if found else (None, None)


def _number(text: str) -> float | None:
    """Return a number; of jobs too short to be looked at Snakemake knows none."""
    return None if text in ("", "-", "NA") else float(text)


def by_rule(jobs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return each rule's number of jobs, its seconds, and its largest job's memory."""
    rules: dict[str, dict[str, Any]] = {}
    for rule in dict.fromkeys(job["rule"] for job in jobs):
        own = [job for job in jobs if job["rule"] == rule]
        peaks = [job["peak_mb"] for job in own if job["peak_mb"] is not None]
        times = [job["cpu_seconds"] for job in own if job["cpu_seconds"] is not None]
        rules[rule] = {
            "jobs": len(own),
            "seconds": sum(job["seconds"] for job in own),
            "cpu_seconds": sum(times) if times else None,
            "longest_seconds": max(job["seconds"] for job in own),
            "peak_mb": max(peaks) if peaks else None,
        }
    return rules


def used_by_rule(reports: Sequence[Path], scale: str) -> dict[str, dict[str, float]]:
    """Return what jobs used of what they had asked Slurm for, by rule.

    That is the mean share of the CPUs, and the largest of the memory.

    Args:
        reports: CSV files of Snakemake's Slurm executor.
        scale: The scale whose jobs count.

    Raises:
        ValueError: If a file is no such report, naming it.
    """
    named = re.compile(rf"rule_(?P<rule>\w+?)_wildcards_{scale}_.*")
    found: dict[str, dict[str, list[float]]] = {}
    for path in reports:
        with path.open(encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
        try:
            for line in lines:
                # A cluster may keep no comments, which have the rule's name.
                match = named.fullmatch(line.get("RuleName") or "")
                if match is None:
                    continue
                own = found.setdefault(match["rule"], {key: [] for key in USED})
                for key, (column, _) in USED.items():
                    own[key].append(float(line[column]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no efficiency report: {error}") from error
    return {
        rule: {
            "cpu_percent": sum(own["cpu_percent"]) / len(own["cpu_percent"]),
            "memory_percent": max(own["memory_percent"]),
        }
        for rule, own in found.items()
    }


def to_markdown(result: Mapping[str, Any]) -> str:
    """Return the costs by rule as a table for people, with a title and what it is."""
    if not result["rules"]:
        return "**What the jobs took**\n\nNo job has run yet.\n"
    return (
        f"**What the jobs took**\n\n{cost_table(result['rules'])}\n\n"
        "Of the jobs that have run here, as Snakemake measured them on "
        f"{result['device']}, {result['cores']} cores. Jobs of one rule may have run "
        f"side by side, and other work beside them. {result['note']}".rstrip()
        + "\n"
    )


def cost_table(rules: Mapping[str, Mapping[str, Any]]) -> str:
    """Return costs by rule as a Markdown table."""
    heads = ["rule", "jobs", "seconds", "CPU seconds", "longest job, s"]
    heads.append("peak memory, MB")
    keys = [*COSTS]
    if any(key in cost for cost in rules.values() for key in USED):
        keys += USED
        heads += [head for _, head in USED.values()]
    lines = [
        f"| {' | '.join(heads)} |",
        f"|{'|'.join([':--', *('--:' for _ in keys)])}|",
    ]
    for rule, cost in rules.items():
        values = [cost.get(key) for key in keys]
        cells = [UNKNOWN if value is None else f"{value:,.0f}" for value in values]
        lines.append(f"| {' | '.join([rule, *cells])} |")
    return "\n".join(lines)
