"""Say on the report's first page what there is, what it cost and what it is made with.

Reads what a run has left, whole or not, and runs nothing: a report can be had at any
time, and names what is absent. Needs no torch, as it is made while the workflow loads.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clockwork_experiments.base import provenance, storage, texts
from clockwork_experiments.cost import job_costs
from clockwork_experiments.random import marks
from clockwork_experiments.report.pages import to_fragment

PACKAGES = (
    "clockwork-diffusion",
    "snakemake",
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "open_clip_torch",
    "torchmetrics",
    "deepspeed",
    "numpy",
    "scipy",
)
"""Whose versions decide numbers."""

WEIGHTS = (".safetensors", ".bin", ".ckpt", ".pt", ".pth")
"""Files that hold weights."""

DEVIATIONS = "Deviations from the papers"
"""Heading of what the report repeats from the documentation."""

DIGITS = 16
"""Of a checksum, as shown."""


STYLE = """<style>
.items-center.justify-center { align-items: safe center; justify-content: safe center; }
.prose:has(details) { width: 44rem; max-width: 60vw; }
details > summary { cursor: pointer; font-weight: 600; padding: .3em 0; }
details > div { max-height: 45vh; overflow: auto; padding-left: 1em; }
details table { margin: .5em 0; }
</style>
"""
"""Snakemake centres the page, and cuts off what is larger than the window: unless it
is centred safely. Sections open one at a time and scroll within.
"""


@dataclass(frozen=True)
class Item:
    """A table, a figure, or a paper's claims.

    Attributes:
        paper: The paper's short title.
        scale: The scale.
        kind: ``Tables``, ``Figures`` or ``Claims``.
        name: Its id.
        path: Its file, which may not be there yet.
    """

    paper: str
    scale: str
    kind: str
    name: str
    path: Path


def write_overview(
    items: Sequence[Item],
    scales: Iterable[str],
    weights: Iterable[Path],
    page: Path,
) -> str:
    """Return the page's sections as HTML.

    Args:
        items: All that the papers' registries list, there or not.
        scales: Whose costs are listed, ``benchmarks/<scale>``.
        weights: Folders that hold models' folders.
        page: The page that says how we deviate from the papers.
    """
    sections = {
        "What is here, and what is not": presence(items),
        "Claims": verdicts(items),
        "Costs": "\n\n".join(costs(scale) for scale in scales),
        "Versions": versions(),
        "Weights": hashes(weights),
        DEVIATIONS: deviations(page),
    }
    return STYLE + "".join(
        f'<details name="overview"><summary>{title}</summary>\n'
        f"<div>{to_fragment(text)}</div></details>\n"
        for title, text in sections.items()
    )


def presence(items: Sequence[Item]) -> str:
    """Return how many items there are, and the names of those that are absent."""
    lines = [
        "| paper | scale | | there | absent |",
        "|:--|:--|:--|--:|:--|",
    ]
    for key in dict.fromkeys((item.paper, item.scale, item.kind) for item in items):
        own = [item for item in items if (item.paper, item.scale, item.kind) == key]
        absent = [item.name for item in own if not item.path.is_file()]
        there = f"{len(own) - len(absent)} of {len(own)}"
        lines.append(f"| {' | '.join(key)} | {there} | {', '.join(absent)} |")
    missing = sum(not item.path.is_file() for item in items)
    said = (
        "Everything that the registries list is there."
        if not missing
        else f"{missing} of {len(items)} items are absent: their jobs have not run, or "
        "need weights, data or a GPU that were not at hand. Nothing stands for them."
    )
    return "\n".join([said, "", *lines])


def verdicts(items: Sequence[Item]) -> str:
    """Return each judged claim with its verdict."""
    lines = [
        "| paper | scale | claim | the paper says | verdict |",
        "|:--|:--|:--|:--|:--|",
    ]
    for item in items:
        path = item.path.with_suffix(".json")
        if item.kind != "Claims" or not path.is_file():
            continue
        for name, claim in storage.read_json(path)["claims"].items():
            said = " ".join(claim["statement"].split()).replace("|", "\\|")
            cells = (item.paper, item.scale, name, said, f"**{claim['verdict']}**")
            lines.append(f"| {' | '.join(cells)} |")
    if len(lines) == 2:
        return "No claim has been judged yet."
    return "\n".join(lines)


def costs(scale: str) -> str:
    """Return what jobs at a scale took, by rule."""
    folder = Path("benchmarks") / scale
    jobs = [
        job
        for path in sorted(folder.rglob("*.tsv"))
        for job in job_costs.read_benchmark(path, folder)
    ]
    if not jobs:
        return f"*{scale}*: no job with a benchmark has run here."
    rules = job_costs.cost_table(job_costs.by_rule(jobs))
    total = sum(job["seconds"] for job in jobs)
    return f"*{scale}*: {len(jobs)} jobs, {total:,.0f} s in all.\n\n{rules}"


def versions() -> str:
    """Return the versions of what computed, and the commit."""
    rows = {"commit": provenance.commit(), "Python": platform.python_version()}
    rows["system"] = f"{platform.system()} {platform.machine()}"
    for name in PACKAGES:
        try:
            rows[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            rows[name] = "not installed"
    lines = ["| | |", "|:--|:--|", *(f"| {k} | {v} |" for k, v in rows.items())]
    return "\n".join(lines)


def hashes(weights: Iterable[Path]) -> str:
    """Return the checksums of weights, from lists beside them and from manifests."""
    lines = [f"| model | file | SHA-256, first {DIGITS} digits |", "|:--|:--|:--|"]
    for sums in sorted(
        p for root in weights for p in root.glob(f"*/{storage.CHECKSUMS}")
    ):
        name = sums.parent.as_posix()
        if marks.is_random(sums.parent):
            name += f" ({marks.SHOWN})"
        for line in texts.read_lines(sums):
            digest, _, file = line.partition("  ")
            lines.append(f"| {name} | {file} | {digest[:DIGITS]} |")
    for path in sorted(p for root in weights for p in root.glob("manifests/*.json")):
        listed = storage.read_json(path)
        name = listed.get("path", path.stem)
        if "hub" in listed:
            name += f" ({listed['hub']}, {str(listed.get('revision'))[:DIGITS]})"
        for file, known in listed.get("files", {}).items():
            if "sha256" in known and Path(file).suffix in WEIGHTS:
                lines.append(f"| {name} | {file} | {known['sha256'][:DIGITS]} |")
    if len(lines) == 2:
        return "No weights with a list of checksums are here."
    return "\n".join(lines)


def deviations(page: Path) -> str:
    """Return the page on deviations from the papers, without its heading."""
    if not page.is_file():
        return "The page that lists them is not here."
    return page.read_text(encoding="utf-8").partition("\n")[2].strip()


def as_raw_html(fragment: str) -> str:
    """Return HTML as reStructuredText takes it: a directive with an indented block."""
    body = "\n".join(f"   {line}" for line in fragment.splitlines())
    return f".. raw:: html\n\n{body}\n"
