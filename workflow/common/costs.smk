"""What real weights would cost; said below the job counts of a dry run."""

import logging
import os
import re

from snakemake.logging import logger
from snakemake_interface_logger_plugins.common import LogEvent

from clockwork_experiments.base.console import Progress
from clockwork_experiments.cost import estimates
from clockwork_experiments.config import parse as specs

# As an input, it is the same wherever the checkout lies.
UNIT_COSTS = os.path.relpath(ROOT / "workflow" / "costs.yaml")


def unit_costs():
    """Return what a unit of work costs."""
    known = texts.read_yaml(Path(UNIT_COSTS))
    return specs.parse(estimates.UnitCosts, known, UNIT_COSTS)


# What it brings is no wildcard of a rule whose name would say it.
FETCHED = re.compile("resources/paper/manifests/(.+)[.]json")


class DryRunCosts(logging.Handler):
    """Adds to a dry run what its jobs would cost, where real weights are at work.

    Snakemake has a hook before a run and none for a dry run; but it tells its loggers
    how many jobs there are of each rule, before it lists them and behind.
    """

    said = None

    def emit(self, record):
        """Say it below the job counts, behind the list."""
        if getattr(record, "event", None) != LogEvent.RUN_INFO or not workflow.dryrun:
            return
        if self.said is None:
            # By the end Snakemake counts them as done.
            self.said = costs_of(workflow.dag.needrun_jobs())
        elif self.said:
            logger.info(self.said)


def costs_of(jobs):
    """Return what the jobs of a dry run would cost, as text; "" of other scales."""
    units = unit_costs()
    costly = {
        f"results/{scale}/{job.output}": job
        for scale in ("paper", "pilot")
        for job in estimates.list_jobs(config[scale], units)
    }
    made = [str(path) for job in jobs for path in job.output]
    found = [costly[path] for path in made if path in costly]
    sources = [match[1] for match in map(FETCHED.fullmatch, made) if match]
    return estimates.to_text(found, sources, units)


logger.addHandler(DryRunCosts())

progress = Progress(logger.info)
# Whether this is a dry run is known once it has begun.
progress.addFilter(lambda record: not workflow.dryrun)
logger.addHandler(progress)


onerror:
    logger.error(progress.ending())
