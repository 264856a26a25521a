"""What `snakemake --report` shows: results that there are, and what there is not."""

import re
import sys

from clockwork_experiments.report import overview

REPORTING = "--report" in sys.argv
"""Whether this is `snakemake --report`, which runs no job and needs all that it shows.

Snakemake tells nobody before it asks for the results.
"""


def short_title(paper):
    """Return the start of a paper's title; the report's menu takes no colon."""
    return re.split(": | for ", PAPERS[paper]["title"])[0]


def paper_title(wildcards):
    """Return the same as the report asks for it."""
    return short_title(wildcards.paper)


SHOWN = {
    "Tables": ("tables", "html", items),
    "Figures": ("figures", "png", items),
    "Claims": ("claims", "html", None),
}
"""Folder, suffix and registry of what the report shows, by kind."""


def report_items():
    """Return everything that the report may show, there or not."""
    found = []
    for scale in SCALES:
        for kind, (folder, suffix, listed) in SHOWN.items():
            if listed is None:
                ids = [(paper, paper) for paper, _ in claim_registries(scale)]
            else:
                ids = [(paper, name) for paper, name, _ in listed(scale, folder)]
            for paper, name in ids:
                place = "" if listed is None else f"{paper}/"
                path = Path(f"results/{scale}/{folder}/{place}{name}.{suffix}")
                found.append(overview.Item(short_title(paper), scale, kind, name, path))
    return found


def of_a_run(*files):
    """Return the files that a run makes; in a report, instead, all that it can show."""
    if not REPORTING:
        return files
    return [str(item.path) for item in report_items() if item.path.is_file()]


if REPORTING:
    # A scale that nobody has run is not worth a line; the first two everybody runs.
    seen = [
        item
        for item in report_items()
        if item.scale in ("mini", "paper") or Path("results", item.scale).is_dir()
    ]
    shown = overview.write_overview(
        seen,
        dict.fromkeys(item.scale for item in seen),
        [
            Path(folder)
            for folder in (
                "resources/mini",
                "resources/paper",
                "results/paper/models",
                "results/random/weights",
            )
        ],
        ROOT / "docs" / "results" / "deviations.md",
    )
    config["overview"] = overview.as_raw_html(shown)
