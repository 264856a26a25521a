"""Check the configuration and the papers, all of it, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clockwork_experiments.base import texts
from clockwork_experiments.config.checks import check_edited_run, check_scale
from clockwork_experiments.config.experiments import Settings
from clockwork_experiments.config.load import SCALES, random_scale
from clockwork_experiments.config.paper_checks import check_papers
from clockwork_experiments.config.pilot import with_pilot_table
from clockwork_experiments.config.registry import (
    Registry,
    with_random_tables,
    with_study,
)
from clockwork_experiments.config.validate import check


def checked(
    config: Settings,
    papers: Settings,
    schemas: Path,
    columns: Mapping[str, str],
    steps: Mapping[str, type],
) -> Registry:
    """Return the configuration with all its scales, and the papers; both checked.

    Args:
        config: The configuration; see `load.read_config`.
        papers: What papers show and claim; see `registry.read_papers`.
        schemas: The folder of the schemas.
        columns: Where the values of each column of tables of runs come from.
        steps: The classes of tables of time steps, by kind.

    Raises:
        ValueError: If something is wrong: the first of it, in one line.
    """
    random = config["random"]
    written = {key: value for key, value in config.items() if key != "random"}
    known = Registry(written, papers)
    of_config = texts.read_json(schemas / "resolved.schema.json")
    _check(known, known.config, of_config, "config.yaml")
    of_papers = texts.read_json(schemas / "paper.schema.json")
    for paper, registry in known.papers.items():
        _check(known, registry, of_papers, f"workflow/papers/{paper}.yaml")
    of_random = texts.read_yaml(schemas / "random.schema.yaml")
    _check(known, random, of_random, "workflow/random.yaml")
    papers = with_study(with_pilot_table(known.papers, config["pilot"]))
    known = Registry(known.config, papers)
    known = Registry(
        {**known.config, "random": random_scale(random, config["paper"])},
        known.papers,
    )
    # Of the configuration, all else is checked.
    laid_over = {"random": known.config["random"]}
    _check(known, laid_over, {**of_config, "required": []}, "the scale random")
    _check_random(known, random)
    if "table_1" in known.papers["clockwork"]["tables"]:
        tables = with_random_tables(known.papers, random, columns)
        known = Registry(known.config, tables)
    for scale in SCALES:
        check_scale(known, scale)
        check_papers(known, scale, columns, steps)
    return known


def _check(known: Registry, data: Any, schema: Settings, name: str) -> None:
    def entries(where: tuple[str, ...], section: str) -> Settings:
        scale = next((part for part in where if part in SCALES), "mini")
        return known.entries(scale, section)

    check(data, schema, name, entries)


def _check_random(known: Registry, random: Settings) -> None:
    for kind, chosen in random["real_sizes"].items():
        for name in chosen:
            if kind == "edits":
                check_edited_run(known, "random", "real_sizes", name)
            else:
                known.entry("random", kind, name)
    for name, spec in random["weights"].items():
        # The step checks the rest; here is what the paths of files depend on.
        if ("file" in spec) != (spec["kind"] in ("inception", "alexnet")):
            raise ValueError(f"random: weights {name!r} need a file, or take none")
