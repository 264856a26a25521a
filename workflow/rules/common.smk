"""What all rules use: what a job reads, what it asks of a cluster, what it is told."""

import inspect
import os
import shutil
import time
import uuid
from functools import partial
from types import SimpleNamespace

from clockwork_experiments.base import failures, forkserver, uses
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

# A step that asks something finds nobody there, and fails.
shell.prefix("exec < /dev/null; ")

# Jobs inherit it, also those on other machines: see `failures`.
os.environ.setdefault(failures.RUN, uuid.uuid4().hex)

if config["paper"].get("offline"):
    # By the environment: as a parameter it would make every fetch run again.
    os.environ.update(HF_HUB_OFFLINE="1")


def bound(module):
    """Return the functions of a module of `needs`, told the configuration.

    Snakemake hands them the wildcards alone.
    """
    found = SimpleNamespace(**vars(module))
    for name, function in inspect.getmembers(module, inspect.isfunction):
        told = next(iter(inspect.signature(function).parameters), "") == "config"
        setattr(found, name, partial(function, config) if told else function)
    return found


benchmarking, costing, edits, fetching, models, sampling, training, translating = map(
    bound,
    (benchmarking, costing, edits, fetching, models, sampling, training, translating),
)


def files(get_needs):
    """Return an input function: the files that a job needs, by name."""
    return lambda wildcards: models.inputs(get_needs(wildcards))


def options(get_needs):
    """Return a params function: the options that name them to the step."""
    return lambda wildcards: models.options(get_needs(wildcards))


def code(step, *asked, module=None):
    """Return a params function: what the code is known by that a job uses.

    Of a step's code, that is what the settings name that the functions ``asked``
    return; ``module`` returns the name of one that the step finds by itself.
    """

    def get(wildcards):
        settings = " ".join(str(each(wildcards)) for each in asked)
        others = [module(wildcards)] if module else []
        return uses.code_used(f"steps.{step}", settings, *others)

    return get


def walltime(minutes):
    """Return a resources function for the minutes that a job may take.

    It grows with each attempt, up to config.yaml's limit; so does memory.
    """
    return lambda wildcards, attempt: min(minutes * attempt, config["max_runtime"])


def memory(mini, paper=None):
    """Return a resources function for the memory in MB, at mini scale and at others."""

    def get(wildcards, attempt):
        small = wildcards.get("scale", "mini") in SMALL or paper is None
        return min((mini if small else paper) * attempt, config["max_mem_mb"])

    return get


def all_cores():
    """Return the cores of this machine that Snakemake may use; of a cluster's node, 1.

    A login node does not know how many the node will have.
    """
    return 1 if workflow.remote_exec else workflow.resource_settings.cores or 1


def gpu_model(wildcards):
    """Return the model that a GPU must be of, or None for any."""
    return config["gpu_model"] or None


PLACEHOLDER = "YOUR_"
"""How the values of profiles/slurm begin that every user fills in."""


def check_account():
    """Refuse to start with the placeholder of profiles/slurm as the account."""
    chosen = workflow.resource_settings.default_resources or {}
    account = str(chosen["slurm_account"].raw) if "slurm_account" in chosen else ""
    if PLACEHOLDER in account:
        raise WorkflowError(
            f"profiles/slurm/config.yaml: slurm_account is still {account}; "
            "fill in yours, or remove it where the cluster has no accounts"
        )


def start_forkserver():
    """Start what local jobs are forks of, where there are enough of them."""
    jobs = sum(1 for _ in workflow.dag.needrun_jobs())
    if workflow.local_exec and jobs >= forkserver.FEWEST and forkserver.usable():
        forkserver.start()


def check_cluster(settings):
    """Refuse to submit anything without Slurm, or with placeholders as partitions."""
    if not hasattr(settings, "partition_config"):
        return  # another executor's
    path, chosen = settings.partition_config, {}
    if path is not None and Path(path).is_file():
        chosen = texts.read_yaml(Path(path)) or {}
    left = [name for name in chosen.get("partitions", {}) if PLACEHOLDER in str(name)]
    if left:
        raise WorkflowError(
            f"{path}: {', '.join(left)} is a placeholder; `sinfo` lists your partitions"
        )
    if shutil.which("sbatch") is None:
        raise WorkflowError("there is no sbatch here; start on a login node of Slurm")


def check_dates(jobs):
    """Refuse inputs dated in the future before anything is done with them.

    Snakemake would do the work, find its outputs older than they are, and delete them.
    """
    for path in dict.fromkeys(path for job in jobs for path in job.input):
        if os.path.exists(path) and os.path.getmtime(path) > time.time() + 1:
            raise WorkflowError(f"{path} is dated in the future; `touch` it first")


check_account()


def remember_signatures():
    """Note what arguments the functions of rules take.

    Snakemake asks Python for it at each call, a tenth of the time that a graph takes.
    """
    for known in workflow.rules:
        for each in (*known.input, *known.params, *known.resources.values()):
            if callable(each) and not hasattr(each, "__signature__"):
                each.__signature__ = inspect.signature(each)


def score_files(scale):
    """Return the score files of a scale: of sampled and edited runs, translations."""
    return [
        *(f"results/{scale}/scores/{run}.json" for run in sampling.scored_runs(scale)),
        *edits.edit_scores(scale, edits.all_edits(scale)),
        *translating.translation_scores(scale, entries(scale, "translations")),
    ]


def all_scores(wildcards):
    """Return the same, of the scale that a job is of."""
    return score_files(wildcards.scale)


def all_values(wildcards):
    """Return the values of images beside them."""
    return [
        str(Path(path).with_suffix(".safetensors"))
        for path in score_files(wildcards.scale)
    ]


def packed_results(wildcards):
    """Return what a scale's crate holds: what is to be seen, and the scores behind it."""
    scale = wildcards.scale
    return [
        *(path for path in tables(scale) if Path(path).name != "tables.tex"),
        *figures(scale),
        *claims(scale),
        *(f"results/{scale}/data/{name}.csv" for name in ("runs", "images")),
    ]


def packed_spec(wildcards):
    """Return whose results a crate holds, as its dataclass takes it."""
    return json.dumps({"scale": wildcards.scale})


def packed_sources(wildcards):
    """Return the workflow beside its Snakefile: rules, registries, settings."""
    found = sorted(path for path in Path("workflow").rglob("*.*") if path.is_file())
    kept = (".smk", ".yaml", ".json")
    return ["config.yaml", *(str(path) for path in found if path.suffix in kept)]


def everything(scale):
    """Return every table, figure, claim and score at a scale."""
    return [
        *tables(scale),
        *figures(scale),
        *claims(scale),
        *score_files(scale),
        *translating.depth_searches(scale),
        *translating.step_searches(scale),
        *benchmarking.shown(scale),
    ]
