"""What the paper scale would cost; said below the job counts of a dry run."""

import logging

from snakemake.logging import logger
from snakemake_interface_logger_plugins.common import LogEvent

from clockwork_experiments.cost import estimates
from clockwork_experiments.config import parse as specs

UNIT_COSTS = "workflow/costs.yaml"


def unit_costs():
    """Return what a unit of work costs."""
    path = Path(workflow.basedir) / UNIT_COSTS
    known = texts.read_yaml(path)
    return specs.parse(estimates.UnitCosts, known, UNIT_COSTS)


SECTIONS = (
    *("datasets", "runs", "adaptors", "trajectories", "backbones", "perturbations"),
    *("translators", "translation_sets", "translations", "editing", "edit_sets"),
    *("depth_searches", "step_searches"),
)
"""Sections of the configuration that decide the costs."""


def cost_spec():
    """Return the paper scale's configuration, as far as it decides costs."""
    return json.dumps({name: entries("paper", name) for name in SECTIONS})


def everything(scale):
    """Return every table, figure, claim and score at a scale."""
    edited = [
        f"{edit_set}/{name}/{setting}"
        for edit_set in entries(scale, "edit_sets")
        for setting in editing(scale, "settings")
        for name in edits_at(scale, setting, edit_set)
    ]
    return [
        *tables(scale),
        *figures(scale),
        *claims(scale),
        *(f"results/{scale}/scores/{run}.json" for run in entries(scale, "runs")),
        *edit_scores(scale, edited),
        *translation_scores(scale, entries(scale, "translations")),
        *depth_searches(scale),
        *step_searches(scale),
    ]


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
