"""Bring a source of weights or data to its place, verify it, and say what is there."""

from __future__ import annotations

import os
from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.data import sources
from clockwork_experiments.run import run


def fetch_source(
    source: str,
    spec: str,
    lock: Path,
    output: Path,
) -> None:
    """Fetch what is not there, and write the manifest.

    Args:
        source: The source's name.
        spec: A `SourceSpec` as JSON.
        lock: Record of first fetches, kept.
        output: Manifest to write.
    """
    chosen = parse(sources.SourceSpec, spec, source)
    manifest = sources.fetch(source, chosen, lock, sources.is_offline())
    storage.write_json(output, manifest)


if __name__ == "__main__":
    # Steps are offline unless they say otherwise; this one is if the user says so.
    os.environ.setdefault("HF_HUB_OFFLINE", "0")
    run(fetch_source)
