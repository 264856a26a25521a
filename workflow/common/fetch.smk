"""What the rules of fetch.smk, and all that read what they bring, ask of config.yaml."""

import functools
import json
import os

MANIFESTS = "resources/paper/manifests"
LOCK = "resources/paper/sources.lock.json"

if config["paper"].get("offline"):
    # By the environment: as a parameter it would make every fetch run again.
    os.environ.update(HF_HUB_OFFLINE="1")


def manifest(name):
    """Return the manifest of a source, or of a set that is made of COCO."""
    return f"{MANIFESTS}/{name}.json"


def paths_of(source):
    """Return the folder of a source, and its files by their whole paths."""
    folder = Path(source["path"])
    return {folder, *(folder / file for file in source.get("files", ()))}


def source_of(path):
    """Return the name of the source that brings a folder or file, or None."""
    brought = {**entries("paper", "sources"), **entries("paper", "coco")}
    for name, source in brought.items():
        if Path(path) in paths_of(source):
            return name
    return None


def manifest_of(path):
    """Return the manifest that stands for a folder or file, as a list; empty if none.

    Manifests have checksums of what they list, and change when that does. What has
    changed behind a manifest's back is refused.
    """
    name = source_of(path)
    if name is None:
        return []
    check_manifest(manifest(name))
    return [manifest(name)]


@functools.cache
def check_manifest(path):
    """Refuse a manifest whose files are gone, or have another length by now."""
    listed = read_manifest(path)
    for name, known in listed.get("files", {}).items():
        file = Path(listed["path"]) / name
        if not file.is_file() or file.stat().st_size != known["size"]:
            raise WorkflowError(
                f"{file} is not as {path} says; delete {path} to have it fetched, or "
                "checked again"
            )


def read_manifest(path):
    """Return what a manifest says; nothing if there is none."""
    if not Path(path).is_file():
        return {}
    return texts.read_json(Path(path))


def source_spec(wildcards):
    """Return a source as its dataclass takes it, with the captions that are needed."""
    source = entry("paper", "sources", wildcards.source)
    needed = [
        dataset.get("offset", 0) + dataset["count"]
        for dataset in entries("paper", "datasets").values()
        if dataset.get("path") == source["path"]
    ]
    return json.dumps({**source, **({"prompts": max(needed)} if needed else {})})


def is_by_hand(name):
    """Tell whether a source is for the user to place."""
    return "by_hand" in entry("paper", "sources", name)


def placed_sources():
    """Return the manifests of sources that are for the user to place."""
    return [manifest(n) for n in entries("paper", "sources") if is_by_hand(n)]


def fetched_sources():
    """Return the manifests of all others, and of what is made of them."""
    fetched = [manifest(n) for n in entries("paper", "sources") if not is_by_hand(n)]
    return fetched + [manifest(name) for name in entries("paper", "coco")]


def is_placed(name):
    """Tell whether the user has placed the folder of a set that could be made.

    By its manifest, which says so once it is there: the answer stays the same.
    """
    known = read_manifest(manifest(name))
    folder = Path(entry("paper", "coco", name)["path"])
    return "made_from" not in known if known else folder.exists()


def coco_inputs(wildcards):
    """Return what a set is made of."""
    chosen = entry("paper", "coco", wildcards.coco)
    if is_placed(wildcards.coco):
        return {}
    names = [chosen[key] for key in ("archives", "of", "without") if key in chosen]
    return {"made_from": [manifest(name) for name in names]}


def coco_options(wildcards):
    """Return the command-line option for a folder that the user has placed."""
    return "--placed" if is_placed(wildcards.coco) else ""


def coco_spec(wildcards):
    """Return a set as its dataclass takes it."""
    chosen = entry("paper", "coco", wildcards.coco)
    spec = {"path": chosen["path"]}
    for key in ("of", "without"):
        if key in chosen:
            spec[key] = entry("paper", "coco", chosen[key])["path"]
    if "archives" in chosen:
        year = chosen["split"][-4:]
        folder = entry("paper", "sources", chosen["archives"])["path"]
        spec |= {
            "split": chosen["split"],
            "images": f"{folder}/{chosen['split']}.zip",
            "annotations": f"{folder}/annotations_trainval{year}.zip",
        }
    return json.dumps(spec)


def check_sources():
    """Refuse sets of COCO without their archives, and names that are used twice."""
    both = set(entries("paper", "sources")) & set(entries("paper", "coco"))
    if both:
        listed = ", ".join(sorted(both))
        raise WorkflowError(f"paper: {listed} names a source and a set of COCO")
    for name, chosen in entries("paper", "coco").items():
        if "archives" in chosen:
            entry("paper", "sources", chosen["archives"])
        for key in ("of", "without"):
            other = entry("paper", "coco", chosen[key]) if key in chosen else None
            if other is not None and "archives" not in other:
                raise WorkflowError(
                    f"paper: {name!r} is made of {chosen[key]!r}, which holds pairs"
                )
