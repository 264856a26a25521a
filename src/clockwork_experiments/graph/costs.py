"""What real weights would cost; said below the job counts of a dry run."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from snakemake.logging import logger

from clockwork_experiments.base import texts
from clockwork_experiments.config import parse
from clockwork_experiments.config.needs.entries import Config
from clockwork_experiments.cost import estimates

FETCHED = re.compile("resources/paper/manifests/(.+)[.]json")
"""What it brings is no wildcard of a rule whose name would say it."""


def units_path(root: Path) -> str:
    """Return the file that says what a unit of work costs, from the working folder.

    As an input, it is the same wherever the checkout lies.
    """
    return os.path.relpath(root / "workflow" / "costs.yaml")


def costs_of(config: Config, jobs: Iterable[Any], units: str) -> str:
    """Return what the jobs of a dry run would cost, as text; "" of other scales.

    Args:
        config: The configuration.
        jobs: Snakemake's.
        units: The file that says what a unit of work costs.
    """
    costs = parse.parse(estimates.UnitCosts, texts.read_yaml(Path(units)), units)
    costly = {
        f"results/{scale}/{job.output}": job
        for scale in ("paper", "pilot")
        for job in estimates.list_jobs(config[scale], costs)
    }
    made = [str(path) for job in jobs for path in job.output]
    found = [costly[path] for path in made if path in costly]
    sources = [match[1] for match in map(FETCHED.fullmatch, made) if match]
    return estimates.to_text(found, sources, costs)


class DryRunCosts(logging.Handler):
    """Adds to a dry run what its jobs would cost, where real weights are at work.

    Snakemake has a hook before a run and none for a dry run; but it tells its loggers
    how many jobs there are of each rule, before it lists them and behind.
    """

    def __init__(self, workflow: Any, config: Config, units: str) -> None:
        """Keep whose costs are said.

        Args:
            workflow: Snakemake's.
            config: The configuration.
            units: The file that says what a unit of work costs.
        """
        super().__init__()
        self.workflow, self.config, self.units = workflow, config, units
        self.said: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Say it below the job counts, behind the list."""
        event = getattr(getattr(record, "event", None), "value", "")
        if event != "run_info" or not self.workflow.dryrun:
            return
        if self.said is None:
            # By the end Snakemake counts them as done.
            jobs = self.workflow.dag.needrun_jobs()
            self.said = costs_of(self.config, jobs, self.units)
        elif self.said:
            logger.info(self.said)
