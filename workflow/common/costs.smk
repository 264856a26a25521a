"""What the paper scale would cost; said below the job counts of a dry run."""

import logging
import os

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


class DryRunCosts(logging.Handler):
    """Adds what its jobs would cost to a dry run of the paper scale.

    Snakemake has a hook before a run and none for a dry run; but it tells its loggers
    how many jobs there are of each rule.
    """

    def emit(self, record):
        """Say it below the job counts."""
        if getattr(record, "event", None) != LogEvent.RUN_INFO or not workflow.dryrun:
            return
        stats = {rule: jobs for rule, jobs in record.stats.items() if rule != "total"}
        if "paper_scale" in stats:
            units = unit_costs()
            found = estimates.estimate(config["paper"], units)
            logger.info(estimates.to_text(stats, found, units.devices["a100"]))


logger.addHandler(DryRunCosts())

progress = Progress(logger.info)
# Whether this is a dry run is known once it has begun.
progress.addFilter(lambda record: not workflow.dryrun)
logger.addHandler(progress)


onerror:
    logger.error(progress.ending())
