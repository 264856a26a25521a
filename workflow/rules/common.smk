"""What all rules use: the configuration, what jobs need and ask of a cluster."""

import os
import uuid
from functools import partial

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

from clockwork_experiments.base import failures, forkserver, texts
from clockwork_experiments.base.console import Progress
from clockwork_experiments.config import registry
from clockwork_experiments.config.check import checked
from clockwork_experiments.config.load import SCALES, read_config
from clockwork_experiments.config.needs import (
    benchmarking,
    costing,
    editing as edits,
    fetching,
    files as models,
    sampling,
    training,
    translating,
)
from clockwork_experiments.graph import (
    costs,
    guards,
    jobs,
    listed,
    models as mini,
    reporting,
    shown,
    sizes,
)
from clockwork_experiments.graph.binding import bound, remember_signatures
from clockwork_experiments.report.tables.results import COLUMN_SOURCES
from clockwork_experiments.report.tables.timesteps import STEP_TABLES

ROOT = Path(workflow.basedir)
if not (ROOT / "workflow").is_dir():
    ROOT = ROOT.parent  # It is workflow/Snakefile that was asked for.
# What is shipped is read from any folder as it is here.
for shipped in map(Path, ("resources/mini", "resources/paper/sources.lock.json")):
    if not shipped.exists() and (ROOT / shipped).exists():
        shipped.parent.mkdir(parents=True, exist_ok=True)
        shipped.symlink_to(ROOT / shipped)


def or_refuse(function, *arguments):
    """Return a function's value; what it refuses is said in one line."""
    try:
        return function(*arguments)
    except ValueError as error:
        raise WorkflowError(str(error)) from None


resolved = or_refuse(read_config, config, ROOT)
REGISTRY = or_refuse(
    checked,
    resolved,
    registry.read_papers(ROOT / "workflow" / "papers"),
    ROOT / "workflow" / "schemas",
    COLUMN_SOURCES,
    STEP_TABLES,
)
# As it is read, before it is laid over the paper scale.
REGISTRY.others["random"] = resolved["random"]
for name in ("mini_models", "mini_adaptors"):
    REGISTRY.others[name] = texts.read_yaml(ROOT / "workflow" / f"{name}.yaml")
config.clear()
config.update(REGISTRY.config)

known = {"config": config, "registry": REGISTRY}
benchmarking, costing, edits, fetching, models, sampling, training, translating = (
    bound(module, known)
    for module in (
        *(benchmarking, costing, edits, fetching, models, sampling, training),
        translating,
    )
)
jobs, listed, mini, reporting, shown, sizes = (
    bound(module, known) for module in (jobs, listed, mini, reporting, shown, sizes)
)
files, options, code = jobs.files, jobs.options, jobs.code
memory, walltime, gpu_model = jobs.memory, jobs.walltime, jobs.gpu_model
UNIT_COSTS = costs.units_path(ROOT)


def all_cores():
    """Return the cores of this machine that Snakemake may use; of a cluster's node, 1.

    A login node does not know how many the node will have.
    """
    return 1 if workflow.remote_exec else workflow.resource_settings.cores or 1


wildcard_constraints:
    **registry.constraints(REGISTRY),


# A step that asks something finds nobody there, and fails.
shell.prefix("exec < /dev/null; ")
# Jobs inherit it, also those on other machines: see `failures`.
os.environ.setdefault(failures.RUN, uuid.uuid4().hex)
if config["paper"].get("offline"):
    # By the environment: as a parameter it would make every fetch run again.
    os.environ.update(HF_HUB_OFFLINE="1")

or_refuse(guards.check_account, workflow.resource_settings.default_resources)
logger.addHandler(costs.DryRunCosts(workflow, config, UNIT_COSTS))
progress = Progress(logger.info)
# Whether this is a dry run is known once it has begun.
progress.addFilter(lambda record: not workflow.dryrun)
logger.addHandler(progress)
if reporting.REPORTING:
    config["overview"] = reporting.first_page(ROOT)


onstart:
    or_refuse(guards.check_cluster, workflow.executor_settings)
    started = list(workflow.dag.needrun_jobs())
    or_refuse(guards.check_dates, started)
    if (
        workflow.local_exec
        and len(started) >= forkserver.FEWEST
        and forkserver.usable()
    ):
        # Local jobs are forks of it.
        forkserver.start()


onerror:
    logger.error(progress.ending())
