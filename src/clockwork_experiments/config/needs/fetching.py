"""Sources of real weights and data, and the manifests that stand for them."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

from clockwork_experiments.base import texts
from clockwork_experiments.config.needs.entries import (
    Config,
    Wildcards,
    as_json,
    chosen,
    entries,
    entry,
)

MANIFESTS = "resources/paper/manifests"
LOCK = "resources/paper/sources.lock.json"


def manifest(name: str) -> str:
    """Return the manifest of a source, or of a set that is made of COCO."""
    return f"{MANIFESTS}/{name}.json"


def source_of(config: Config, path: str | Path) -> str | None:
    """Return the name of the source that brings a folder or file."""
    wanted = os.path.normpath(path)
    for section in ("sources", "coco"):
        for name, source in entries(config, "paper", section).items():
            folder = os.path.normpath(source["path"])
            if not wanted.startswith(folder):
                continue
            files = source.get("files", ())
            if wanted in (folder, *(os.path.normpath(f"{folder}/{f}") for f in files)):
                return name
    return None


def manifest_of(config: Config, path: str | Path) -> list[str]:
    """Return the manifest that stands for a folder or file, as a list; empty if none.

    Manifests have checksums of what they list, and change when that does.

    Raises:
        ValueError: If what it lists has changed behind its back.
    """
    name = source_of(config, path)
    if name is None:
        return []
    check_manifest(manifest(name))
    return [manifest(name)]


@functools.cache
def check_manifest(path: str) -> None:
    """Refuse a manifest whose files are gone, or have another length by now."""
    listed_bytes(path)


def listed_bytes(path: str) -> int:
    """Return the length of all files that a manifest lists.

    Raises:
        ValueError: If one is gone, or has another length by now.
    """
    listed = read_manifest(path)
    files = listed.get("files", {})
    for name, known in files.items():
        file = Path(listed["path"]) / name
        if not file.is_file() or file.stat().st_size != known["size"]:
            raise ValueError(
                f"{file} is not as {path} says; delete {path} to have it fetched, or "
                "checked again"
            )
    return sum(known["size"] for known in files.values())


def read_manifest(path: str) -> dict[str, Any]:
    """Return what a manifest says; nothing if there is none."""
    found: dict[str, Any] = texts.read_json(Path(path)) if Path(path).is_file() else {}
    return found


def source_spec(config: Config, wildcards: Wildcards) -> str:
    """Return a source as its dataclass takes it, with the captions that are needed."""
    source = entry(config, "paper", "sources", wildcards.source)
    needed = [
        dataset.get("offset", 0) + dataset["count"]
        for dataset in entries(config, "paper", "datasets").values()
        if dataset.get("path") == source["path"]
    ]
    return as_json({**source, **({"prompts": max(needed)} if needed else {})})


def placed(config: Config) -> list[str]:
    """Return the manifests of sources that are for the user to place."""
    known = entries(config, "paper", "sources").items()
    return [manifest(name) for name, source in known if "by_hand" in source]


def fetched(config: Config) -> list[str]:
    """Return the manifests of all others, and of what is made of them."""
    known = entries(config, "paper", "sources").items()
    made = map(manifest, entries(config, "paper", "coco"))
    return [manifest(name) for name, each in known if "by_hand" not in each] + [*made]


def is_placed(config: Config, name: str) -> bool:
    """Tell whether the user has placed the folder of a set that could be made.

    By its manifest, which says so once it is there: the answer stays the same.
    """
    known = read_manifest(manifest(name))
    folder = Path(entry(config, "paper", "coco", name)["path"])
    return "made_from" not in known if known else folder.exists()


def coco_inputs(config: Config, wildcards: Wildcards) -> dict[str, list[str]]:
    """Return what a set of COCO is made of; nothing if the user placed it."""
    if is_placed(config, wildcards.coco):
        return {}
    made = chosen(
        entry(config, "paper", "coco", wildcards.coco), "archives", "of", "without"
    )
    return {"made_from": [manifest(name) for name in made.values()]}


def coco_options(config: Config, wildcards: Wildcards) -> str:
    """Return the command-line option for a folder that the user has placed."""
    return "--placed" if is_placed(config, wildcards.coco) else ""


def coco_spec(config: Config, wildcards: Wildcards) -> str:
    """Return a set of COCO as its dataclass takes it."""
    made = entry(config, "paper", "coco", wildcards.coco)
    others = chosen(made, "of", "without").items()
    spec = {"path": made["path"]}
    spec |= {key: entry(config, "paper", "coco", name)["path"] for key, name in others}
    if "archives" in made:
        year = made["split"][-4:]
        folder = entry(config, "paper", "sources", made["archives"])["path"]
        spec |= {
            "split": made["split"],
            "images": f"{folder}/{made['split']}.zip",
            "annotations": f"{folder}/annotations_trainval{year}.zip",
        }
    return as_json(spec)
