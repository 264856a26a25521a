"""What jobs ask of a cluster, and the code that they are known by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from clockwork_experiments.base import uses
from clockwork_experiments.config.needs import files as model_files
from clockwork_experiments.config.needs.entries import SMALL, Config, Wildcards

Ask = Callable[..., Any]
"""A function of a job's wildcards, and what else Snakemake hands it by name."""


def files(get_needs: Ask) -> Ask:
    """Return an input function: the files that a job needs, by name."""

    def get(wildcards: Wildcards) -> dict[str, list[str]]:
        return model_files.inputs(get_needs(wildcards))

    return get


def options(get_needs: Ask) -> Ask:
    """Return a params function: the options that name them to the step."""

    def get(wildcards: Wildcards) -> str:
        return model_files.options(get_needs(wildcards))

    return get


def code(step: str, *asked: Ask, module: Ask | None = None) -> Ask:
    """Return a params function: what the code is known by that a job uses.

    Of a step's code, that is what the settings name that the functions ``asked``
    return; ``module`` returns the name of one that the step finds by itself.
    """

    def get(wildcards: Wildcards) -> str:
        settings = " ".join(str(each(wildcards)) for each in asked)
        others = [module(wildcards)] if module else []
        return uses.code_used(f"steps.{step}", settings, *others)

    return get


def walltime(config: Config, minutes: int) -> Ask:
    """Return a resources function for the minutes that a job may take.

    It grows with each attempt, up to config.yaml's limit; so does memory.
    """

    def get(wildcards: Wildcards, attempt: int) -> int:
        return min(minutes * attempt, config["max_runtime"])

    return get


def memory(config: Config, mini: int, paper: int | None = None) -> Ask:
    """Return a resources function for the memory in MB, at mini scale and at others."""

    def get(wildcards: Wildcards, attempt: int) -> int:
        small = getattr(wildcards, "scale", "mini") in SMALL or paper is None
        return min((mini if small else paper or mini) * attempt, config["max_mem_mb"])

    return get


def gpu_model(config: Config, wildcards: Wildcards) -> str | None:
    """Return the model that a GPU must be of, or None for any."""
    return config["gpu_model"] or None
