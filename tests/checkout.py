"""Copies of the checkout, and Snakemake in them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from clockwork_experiments.config.check import checked
from clockwork_experiments.config.load import read_config
from clockwork_experiments.config.registry import Registry, read_papers
from clockwork_experiments.report.tables.results import COLUMN_SOURCES
from clockwork_experiments.report.tables.timesteps import STEP_TABLES

ROOT = Path(__file__).parent.parent
PARTS = (
    "README.md",
    "Snakefile",
    "config.yaml",
    "docs/results/deviations.md",
    "environment.yml",
    "profiles",
    "resources/mini",
    "src",
    "tests/e2e/tiny.yaml",
    "workflow",
)


def copy_checkout(folder: Path, *, linked: tuple[str, ...] = ()) -> Path:
    """Copy what a run needs, and link what the caller will not change."""
    for part in PARTS:
        source, target = ROOT / part, folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if part in linked:
            target.symlink_to(source)
        elif source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(source, target, ignore=ignored)
        else:
            shutil.copy2(source, target)
    return folder


def resolved(scale: str) -> dict[str, Any]:
    """Return the sections of a scale of the checkout's own configuration."""
    sections: dict[str, Any] = read_config({}, ROOT)[scale]
    return sections


def written() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the checkout's own configuration, and what its papers show and claim."""
    return read_config({}, ROOT), read_papers(ROOT / "workflow" / "papers")


def check_all(config: dict[str, Any], papers: dict[str, Any]) -> Registry:
    """Check a configuration and papers as the workflow does when it loads."""
    return checked(
        config,
        papers,
        ROOT / "workflow" / "schemas",
        COLUMN_SOURCES,
        STEP_TABLES,
    )


def environment(folder: Path) -> dict[str, str]:
    """Return the environment in which the copy's own package runs."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder / "src"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Snakemake in a copy; its two streams come back as one text."""
    return subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def jobs(output: str) -> dict[str, int]:
    """Return how many jobs of each rule a dry run lists."""
    if "Nothing to be done" in output:
        return {}
    table = output.split("Job stats:")[1].split("total")[0]
    return {
        rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, re.M)
    }


def edit_yaml(path: Path, keys: str, value: Any) -> None:
    """Set one value of a YAML file; ``keys`` are separated by dots.

    None deletes it; of what is not in config.yaml, but added to it, it says so.
    """
    # By way of JSON: what anchors shared is edited in one place alone.
    data = json.loads(json.dumps(yaml.safe_load(path.read_text(encoding="utf-8"))))
    *parents, last = keys.split(".")
    place = data
    for key in parents:
        if isinstance(place, list):
            place = place[int(key)]
        else:
            place = place.setdefault(key, {})
    if value is None and last in place:
        del place[last]
    else:
        place[last] = value
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")


def bring(checkout: Path) -> None:
    """Put empty files where the paper scale's weights and data are brought."""
    config = resolved("paper")
    rules = (ROOT / "workflow" / "rules" / "models.smk").read_text("utf-8")
    named = re.findall(r"resources/paper/[\w./-]+", str(config) + rules)
    for path in map(checkout.joinpath, named):
        if path.suffix in (".ckpt", ".pth", ".txt"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        else:
            path.mkdir(parents=True, exist_ok=True)
            for name in ("weights.safetensors", "pairs.jsonl"):
                (path / name).touch()
    for chosen in config["edit_sets"].values():
        (checkout / chosen["path"] / chosen["prompts"]).touch()
