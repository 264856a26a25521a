"""What jobs ask of a cluster; it grows with each attempt, up to config.yaml's limits.

On one machine only ``gpu`` counts, and only with ``--resources gpu=1``.
"""

import shutil

PLACEHOLDER = "YOUR_"
"""How the values of profiles/slurm begin that every user fills in."""


def walltime(minutes):
    """Return a resources function for the minutes that a job may take."""
    return lambda wildcards, attempt: min(minutes * attempt, config["max_runtime"])


def memory(mini, paper=None, scale=None):
    """Return a resources function for the memory in MB, at mini scale and at others.

    ``scale`` is for rules that do not have it as a wildcard; without both, it is mini.
    """

    def get(wildcards, attempt):
        chosen = mini
        if (scale or wildcards.get("scale", "mini")) != "mini":
            chosen = paper or mini
        return min(chosen * attempt, config["max_mem_mb"])

    return get


def all_cores():
    """Return the cores of this machine that Snakemake may use; of a cluster's node, 1.

    A login node does not know how many the node will have.
    """
    return 1 if workflow.remote_exec else workflow.resource_settings.cores or 1


def gpu_model(wildcards):
    """Return the model that a GPU must be of, or None for any."""
    return config["gpu_model"] or None


def check_account():
    """Refuse to start with the placeholder of profiles/slurm as the account."""
    chosen = workflow.resource_settings.default_resources or {}
    account = str(chosen["slurm_account"].raw) if "slurm_account" in chosen else ""
    if PLACEHOLDER in account:
        raise WorkflowError(
            f"profiles/slurm/config.yaml: slurm_account is still {account}; "
            "fill in yours, or remove it where the cluster has no accounts"
        )


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


check_account()
