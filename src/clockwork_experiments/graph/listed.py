"""The files of every table, figure, claim and score that there is at a scale."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from clockwork_experiments.config.experiments import Settings
from clockwork_experiments.config.needs import (
    benchmarking,
    editing,
    sampling,
    translating,
)
from clockwork_experiments.config.needs.entries import Wildcards, as_json, entries
from clockwork_experiments.config.paper_checks import figure_answers
from clockwork_experiments.config.registry import Registry
from clockwork_experiments.report import listing

DRAWN = ("method", "block_map", "adaptor_map", "pnp_caching", "level_map")
"""Kinds of figures that need no weights."""


def tables(registry: Registry, scale: str) -> list[str]:
    """Return the files of every table at a scale, and the document that binds them."""
    return [
        *(
            f"results/{scale}/tables/{paper}/{name}.{kind}"
            for paper, name, _ in registry.items(scale, "tables")
            for kind in ("csv", "md", "tex")
        ),
        f"results/{scale}/tables/tables.tex",
    ]


def numbered_tables(registry: Registry, wildcards: Wildcards) -> list[str]:
    """Return the LaTeX of the tables that the papers number, in the papers' order."""
    papers, found = list(registry.papers), []
    for paper, name, _ in registry.items(wildcards.scale, "tables"):
        place = listing.numbered(name)
        if place is not None and not place[-1]:
            path = f"results/{wildcards.scale}/tables/{paper}/{name}.tex"
            found.append(((papers.index(paper), place), path))
    return [path for _, path in sorted(found)]


def figures(registry: Registry, scale: str) -> list[str]:
    """Return the files of every figure at a scale that is not made on request alone."""
    return _figures(registry, scale, lambda figure: not figure.get("on_request"))


def on_request(registry: Registry, scale: str) -> list[str]:
    """Return the files of the figures at a scale that are made on request alone."""
    return _figures(registry, scale, lambda figure: bool(figure.get("on_request")))


def drawn_figures(registry: Registry, scale: str) -> list[str]:
    """Return the files of every figure at a scale that needs no weights."""

    def drawn(figure: Settings) -> bool:
        published = figure.get("kind") == "step_ticks" and not figure_answers(figure)
        return published or figure.get("kind") in DRAWN

    return _figures(registry, scale, drawn)


def _figures(
    registry: Registry, scale: str, wanted: Callable[[Settings], bool]
) -> list[str]:
    return [
        f"results/{scale}/figures/{paper}/{name}.{kind}"
        for paper, name, figure in registry.items(scale, "figures")
        for kind in ("pdf", "png")
        if wanted(figure)
    ]


def claiming(registry: Registry, scale: str) -> list[str]:
    """Return the papers that claim something at a scale."""
    return [paper for paper, _ in registry.claims(scale)]


def claims(registry: Registry, scale: str) -> list[str]:
    """Return the files of every paper's claims at a scale."""
    return [
        f"results/{scale}/claims/{paper}.{kind}"
        for paper in claiming(registry, scale)
        for kind in ("json", "md")
    ]


def scores(registry: Registry, scale: str) -> list[str]:
    """Return the score files of a scale: of sampled and edited runs, translations."""
    config = registry.config
    runs = sampling.scored_runs(config, scale)
    translations = entries(config, scale, "translations")
    return [
        *(f"results/{scale}/scores/{run}.json" for run in runs),
        *editing.edit_scores(scale, editing.all_edits(config, scale)),
        *translating.translation_scores(scale, translations),
    ]


def everything(registry: Registry, scale: str) -> list[str]:
    """Return every table, figure, claim and score at a scale."""
    config = registry.config
    return [
        *tables(registry, scale),
        *figures(registry, scale),
        *claims(registry, scale),
        *scores(registry, scale),
        *translating.depth_searches(config, scale),
        *translating.step_searches(config, scale),
        *benchmarking.shown(config, scale),
    ]


def all_scores(registry: Registry, wildcards: Wildcards) -> list[str]:
    """Return all score files of the scale that a job is of."""
    return scores(registry, wildcards.scale)


def all_values(registry: Registry, wildcards: Wildcards) -> list[str]:
    """Return the values of images beside them."""
    paths = map(Path, all_scores(registry, wildcards))
    return [str(path.with_suffix(".safetensors")) for path in paths]


def packed_results(registry: Registry, wildcards: Wildcards) -> list[str]:
    """Return what a scale's crate holds: what is seen, and the scores behind it."""
    scale = wildcards.scale
    return [
        *(path for path in tables(registry, scale) if Path(path).name != "tables.tex"),
        *figures(registry, scale),
        *claims(registry, scale),
        *(f"results/{scale}/data/{name}.csv" for name in ("runs", "images")),
    ]


def packed_spec(wildcards: Wildcards) -> str:
    """Return whose results a crate holds, as its dataclass takes it."""
    return as_json({"scale": wildcards.scale})


def packed_sources(wildcards: Wildcards) -> list[str]:
    """Return the workflow beside its Snakefile: rules, registries, settings."""
    found = sorted(path for path in Path("workflow").rglob("*.*") if path.is_file())
    kept = (".smk", ".yaml", ".json")
    return ["config.yaml", *(str(path) for path in found if path.suffix in kept)]
