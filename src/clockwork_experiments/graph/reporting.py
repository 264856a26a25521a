"""What `snakemake --report` shows: results that there are, and what there is not."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from clockwork_experiments.config.load import SCALES
from clockwork_experiments.config.needs.entries import Wildcards
from clockwork_experiments.config.registry import Registry
from clockwork_experiments.graph.listed import claiming
from clockwork_experiments.report import overview

REPORTING = "--report" in sys.argv
"""Whether this is `snakemake --report`, which runs no job and needs all that it shows.

Snakemake tells nobody before it asks for the results.
"""

SHOWN = {
    "Tables": ("tables", "html"),
    "Figures": ("figures", "png"),
    "Claims": ("claims", "html"),
}
"""Folder and suffix of what the report shows, by kind."""

MODELS = (
    *("resources/mini", "resources/paper"),
    *("results/paper/models", "results/random/weights"),
)
"""Where the report looks for models."""


def title(registry: Registry, wildcards: Wildcards) -> str:
    """Return the start of a paper's title, as the report asks for it."""
    return _short_title(registry, wildcards.paper)


def _short_title(registry: Registry, paper: str) -> str:
    # The report's menu takes no colon.
    return re.split(": | for ", registry.papers[paper]["title"])[0]


def items(registry: Registry) -> list[overview.Item]:
    """Return everything that the report may show, there or not."""
    found = []
    for scale in SCALES:
        for kind, (folder, suffix) in SHOWN.items():
            if kind == "Claims":
                places = [(paper, paper) for paper in claiming(registry, scale)]
            else:
                places = [
                    (paper, f"{paper}/{name}")
                    for paper, name, _ in registry.items(scale, folder)
                ]
            for paper, place in places:
                path = Path(f"results/{scale}/{folder}/{place}.{suffix}")
                shown = _short_title(registry, paper)
                found.append(overview.Item(shown, scale, kind, path.stem, path))
    return found


def of_a_run(registry: Registry, *files: list[str]) -> list[str]:
    """Return the files that a run makes; in a report, instead, all that it can show."""
    if not REPORTING:
        return [path for each in files for path in each]
    return [str(item.path) for item in items(registry) if item.path.is_file()]


def first_page(registry: Registry, root: Path) -> str:
    """Return the report's first page.

    Args:
        registry: What there is.
        root: The checkout.
    """
    # A scale that nobody has run is not worth a line; the first two everybody runs.
    seen = [
        item
        for item in items(registry)
        if item.scale in ("mini", "paper") or Path("results", item.scale).is_dir()
    ]
    scales = dict.fromkeys(item.scale for item in seen)
    deviations = root / "docs" / "results" / "deviations.md"
    shown = overview.write_overview(seen, scales, list(map(Path, MODELS)), deviations)
    return overview.as_raw_html(shown)
