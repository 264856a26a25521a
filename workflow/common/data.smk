"""What the rules of data.smk ask of the configuration."""

import json


def dataset_spec(wildcards):
    """Return a data set as its dataclass takes it; shards are the workflow's affair."""
    chosen = dict(entry(wildcards.scale, "datasets", wildcards.dataset))
    for key in ("shards", "reference"):
        chosen.pop(key, None)
    return json.dumps(chosen)
