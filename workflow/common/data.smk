"""What the rules of data.smk ask of the configuration."""

import json


def dataset_folder(wildcards):
    """Return the list of captions of a data set's folder, if a rule makes it."""
    path = entry(wildcards.scale, "datasets", wildcards.dataset).get("path", "")
    made = Path(path).parts[:1] == ("results",)
    return {"folder": f"{path}/prompts.txt"} if made else {}


def dataset_spec(wildcards):
    """Return a data set as its dataclass takes it; shards are the workflow's affair."""
    chosen = dict(entry(wildcards.scale, "datasets", wildcards.dataset))
    for key in ("shards", "reference"):
        chosen.pop(key, None)
    return json.dumps(chosen)
