"""Refuse to start what cannot end well, in a line, before any job runs."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from clockwork_experiments.base import texts

PLACEHOLDER = "YOUR_"
"""How the values of profiles/slurm begin that every user fills in."""


def check_account(resources: Any) -> None:
    """Refuse the placeholder of profiles/slurm as the account.

    Args:
        resources: Snakemake's default resources.

    Raises:
        ValueError: If it is not filled in.
    """
    chosen = resources or {}
    account = str(chosen["slurm_account"].raw) if "slurm_account" in chosen else ""
    if PLACEHOLDER in account:
        raise ValueError(
            f"profiles/slurm/config.yaml: slurm_account is still {account}; "
            "fill in yours, or remove it where the cluster has no accounts"
        )


def check_cluster(settings: Any) -> None:
    """Refuse to submit anything without Slurm, or with placeholders as partitions.

    Args:
        settings: Snakemake's, of its executor.

    Raises:
        ValueError: If a partition is not filled in, or there is no Slurm.
    """
    if not hasattr(settings, "partition_config"):
        return  # another executor's
    path = settings.partition_config
    chosen: dict[str, Any] = {}
    if path is not None and Path(path).is_file():
        chosen = texts.read_yaml(Path(path)) or {}
    left = [name for name in chosen.get("partitions", {}) if PLACEHOLDER in str(name)]
    if left:
        raise ValueError(
            f"{path}: {', '.join(left)} is a placeholder; `sinfo` lists your partitions"
        )
    if shutil.which("sbatch") is None:
        raise ValueError("there is no sbatch here; start on a login node of Slurm")


def check_dates(jobs: Iterable[Any]) -> None:
    """Refuse inputs dated in the future before anything is done with them.

    Snakemake would do the work, find its outputs older than they are, and delete them.

    Args:
        jobs: Snakemake's.

    Raises:
        ValueError: If there is one.
    """
    for path in dict.fromkeys(path for job in jobs for path in job.input):
        if os.path.exists(path) and os.path.getmtime(path) > time.time() + 1:
            raise ValueError(f"{path} is dated in the future; `touch` it first")
