"""What the rules of data.smk ask of the configuration."""

import json


def dataset_folder(wildcards):
    """Return what a set's folder is known by: its manifest, or a list that a rule makes."""
    path = entry(wildcards.scale, "datasets", wildcards.dataset).get("path", "")
    if is_made(path):
        return {"folder": f"{path}/prompts.txt"}
    brought = manifest_of(path)
    return {"folder": brought} if brought else {}


def dataset_spec(wildcards):
    """Return a data set as its dataclass takes it; shards are the workflow's affair."""
    chosen = dict(entry(wildcards.scale, "datasets", wildcards.dataset))
    for key in ("shards", "reference"):
        chosen.pop(key, None)
    return json.dumps(chosen)
