"""Estimate what a scale with real weights costs, rule by rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clockwork_experiments.base import storage, texts
from clockwork_experiments.config.parse import parse
from clockwork_experiments.cost import estimates
from clockwork_experiments.run import run


def estimate_costs(
    spec: dict[str, Any],
    units: Path,
    title: str,
    output: Path,
) -> None:
    """Work out the passes of each rule, and write them as a table.

    Args:
        spec: A scale's configuration.
        units: Unit costs, YAML.
        title: Heading of the table.
        output: Markdown to write.
    """
    costs = parse(estimates.UnitCosts, texts.read_yaml(units), str(units))
    storage.write_text(output, estimates.to_markdown(spec, costs, title))


if __name__ == "__main__":
    run(estimate_costs)
