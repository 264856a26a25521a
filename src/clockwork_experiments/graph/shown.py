"""What a table, a figure, or a paper's claims show: settings, files, options."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from clockwork_experiments.claims import needs as claim_needs
from clockwork_experiments.claims import power
from clockwork_experiments.claims.registry import ClaimsSpec
from clockwork_experiments.config import parse
from clockwork_experiments.config.experiments import Settings
from clockwork_experiments.config.needs import benchmarking, costing
from clockwork_experiments.config.needs.entries import Wildcards, as_json
from clockwork_experiments.config.needs.papers import Known
from clockwork_experiments.config.registry import Registry, with_scores
from clockwork_experiments.report import kinds
from clockwork_experiments.report.figures import benchmark as benchmark_figures
from clockwork_experiments.report.tables import benchmark as benchmark_tables
from clockwork_experiments.report.tables import compared
from clockwork_experiments.report.tables.results import COLUMN_SOURCES

PACKAGES = {"table": (kinds.TABLES, "results"), "figure": (kinds.FIGURES, "grid")}
"""Where kinds of tables and figures lie, and the kind of one that names none."""

UNSHOWN = ("kind", "on_request")
"""Keys of a table or figure that are the workflow's affair."""

BENCHMARK: dict[str, dict[str, Any]] = {
    "tables": {
        "methods": benchmark_tables.BenchmarkSpec,
        "slice": benchmark_tables.BenchmarkSpec,
        "plans": benchmark_tables.PlansSpec,
        "masks": benchmark_tables.MasksSpec,
    },
    "figures": {
        "methods": benchmark_figures.BenchmarkParetoSpec,
        "masks": benchmark_figures.BenchmarkMasksSpec,
    },
}
"""Classes of the benchmark's own tables and figures, by what they show."""


@cache
def parsed(kind: Any, spec: str) -> Any:
    """Return a JSON text as a dataclass; a job's functions ask for the same one."""
    return parse.parse(kind, spec)


def options(registry: Registry, item: Any, scale: str) -> str:
    """Return the command-line options for what a table or figure shows.

    What is measured on request alone is no input; what there is of it is shown, and an
    em dash elsewhere.
    """
    known = Known(registry.config, scale)
    files = dict(item.needs(known))
    for name, paths in item.wishes(known).items():
        files[name] = [path for path in paths if Path(path).is_file()]
    told, runs = named(files), item.run_settings(known)
    return f"{told} --runs {shlex.quote(json.dumps(runs))}" if runs else told


def named(files: Mapping[str, Sequence[str]]) -> str:
    """Return files by name as the command-line option for them."""
    words = [f"{name}={path}" for name, paths in files.items() for path in paths]
    return f"--inputs {' '.join(map(shlex.quote, words))}" if words else ""


# Tables and figures of the papers.


def _shown_as(wildcards: Wildcards) -> str:
    return "table" if hasattr(wildcards, "table") else "figure"


def item_of(registry: Registry, wildcards: Wildcards) -> Settings:
    """Return the settings of a table or figure at a scale."""
    paper, scale = registry.papers[wildcards.paper], wildcards.scale
    if _shown_as(wildcards) == "figure":
        figure: Settings = paper["figures"][wildcards.figure][scale]
        return figure
    table: Settings = paper["tables"][wildcards.table]
    if scale == "paper" and Known(registry.config, scale).measured:
        return with_scores(table, COLUMN_SOURCES)
    found: Settings = table[scale]
    return found


def item_kind(registry: Registry, wildcards: Wildcards) -> str:
    """Return what kind of table or figure it is."""
    _, usual = PACKAGES[_shown_as(wildcards)]
    kind: str = item_of(registry, wildcards).get("kind", usual)
    return kind


def item_spec(registry: Registry, wildcards: Wildcards) -> str:
    """Return it as its kind takes it."""
    item = item_of(registry, wildcards)
    return as_json({k: v for k, v in item.items() if k not in UNSHOWN})


def item_module(registry: Registry, wildcards: Wildcards) -> str:
    """Return the module of its kind."""
    package, _ = PACKAGES[_shown_as(wildcards)]
    return kinds.place(package, item_kind(registry, wildcards))[0]


def _item(registry: Registry, wildcards: Wildcards) -> Any:
    package, _ = PACKAGES[_shown_as(wildcards)]
    kind: Any = kinds.find(package, item_kind(registry, wildcards))
    return parsed(kind, item_spec(registry, wildcards))


def item_inputs(registry: Registry, wildcards: Wildcards) -> Any:
    """Return the results that it shows."""
    return _item(registry, wildcards).needs(Known(registry.config, wildcards.scale))


def item_options(registry: Registry, wildcards: Wildcards, input: Any) -> str:
    """Return the options for these, and for what else there is to show."""
    return options(registry, _item(registry, wildcards), wildcards.scale)


# A run beside its teacher.


def compared_spec(registry: Registry, wildcards: Wildcards) -> str:
    """Return the table of a run and its teacher, as its kind takes it."""
    known = Known(registry.config, wildcards.scale)
    return as_json(compared.comparison(known, wildcards.scale, wildcards.run))


def compared_module(wildcards: Wildcards) -> str:
    """Return the module of that kind of table."""
    return compared.__name__


def _compared(registry: Registry, wildcards: Wildcards) -> Any:
    return parsed(compared.ComparedSpec, compared_spec(registry, wildcards))


def compared_inputs(registry: Registry, wildcards: Wildcards) -> Any:
    """Return the scores, counts and timings that it shows."""
    known = Known(registry.config, wildcards.scale)
    return _compared(registry, wildcards).needs(known)


def compared_options(registry: Registry, wildcards: Wildcards, input: Any) -> str:
    """Return the options for these."""
    return options(registry, _compared(registry, wildcards), wildcards.scale)


# The benchmark.


def _drawn_as(wildcards: Wildcards, shown: str) -> Any:
    return BENCHMARK[shown][wildcards.shown]


def benchmark_kind(shown: str, wildcards: Wildcards) -> str:
    """Return the kind of one of the benchmark's ``tables`` or ``figures``."""
    kind: str = _drawn_as(wildcards, shown).kind
    return kind


def benchmark_module(shown: str, wildcards: Wildcards) -> str:
    """Return its module."""
    module: str = _drawn_as(wildcards, shown).__module__
    return module


def _benchmark_item(registry: Registry, shown: str, wildcards: Wildcards) -> Any:
    spec = benchmarking.item_spec(registry.config, wildcards)
    return parsed(_drawn_as(wildcards, shown), spec)


def benchmark_inputs(registry: Registry, shown: str, wildcards: Wildcards) -> Any:
    """Return the measurements that it shows."""
    item = _benchmark_item(registry, shown, wildcards)
    return item.needs(Known(registry.config, wildcards.scale))


def benchmark_options(
    registry: Registry, shown: str, wildcards: Wildcards, input: Any
) -> str:
    """Return the options for these."""
    item = _benchmark_item(registry, shown, wildcards)
    return options(registry, item, wildcards.scale)


# Claims.


def claims_told(registry: Registry, wildcards: Wildcards) -> str:
    """Return a paper's claims at a scale, as JSON text."""
    return as_json(registry.papers[wildcards.paper]["claims"][wildcards.scale])


def _claims(registry: Registry, wildcards: Wildcards) -> ClaimsSpec:
    spec: ClaimsSpec = parsed(ClaimsSpec, claims_told(registry, wildcards))
    return spec


def claims_settings(registry: Registry, wildcards: Wildcards) -> str:
    """Return what judging needs to know of runs and perturbations, as JSON text."""
    known = Known(registry.config, wildcards.scale)
    return as_json(claim_needs.settings(_claims(registry, wildcards), known))


def claims_inputs(registry: Registry, wildcards: Wildcards) -> Any:
    """Return what the claims are judged by."""
    known = Known(registry.config, wildcards.scale)
    return claim_needs.needs(_claims(registry, wildcards), known)


def claims_options(registry: Registry, wildcards: Wildcards, input: Any) -> str:
    """Return the options for the same."""
    return named(claims_inputs(registry, wildcards))


def power_counts(registry: Registry, wildcards: Wildcards) -> str:
    """Return how many units each claim's primary part has: quick, and in the study."""
    both = [Known(registry.config, scale) for scale in ("mini", wildcards.scale)]
    return as_json(
        {
            name: [power.units(claim.parts[0], known) for known in both]
            for name, claim in _claims(registry, wildcards).claims.items()
        }
    )


def unet_timing(registry: Registry, wildcards: Wildcards) -> str:
    """Return which UNets to time, each called as Table S3 prints it."""
    rows = registry.papers["clockwork"]["tables"]["table_s3"]["paper"]["rows"]
    return costing.unet_timing_spec(registry.config, rows)
