"""What the rules of score.smk ask of the configuration."""

import json


def frechet_path(wildcards):
    """Return the folder or file of the network behind the Fréchet distance."""
    return entry(wildcards.scale, "encoders", "frechet")["path"]


def frechet_kind(wildcards):
    """Return the kind of that network."""
    return entry(wildcards.scale, "encoders", "frechet")["kind"]


def first_item(scale, run):
    """Return the id of the first table or figure that shows a run, or ``other``."""
    for _, name, table in items(scale, "tables"):
        rows = table.get("rows", ())
        if run in [row.get(key) for row in rows for key in ("run", "baseline")]:
            return name
    for _, name, figure in items(scale, "figures"):
        shown = [shown["run"] for shown in figure.get("runs", ())]
        if run in shown or ("series" in figure and run in curve_runs(figure)):
            return name
    return "other"


def scoring_batches():
    """Return the runs that are scored by one job, as (scale, id, data set, runs).

    Those on one data set that the same table or figure is the first to show. Jobs of
    their own would spend more time on starting than on scoring, at mini scale.
    """
    batches = {}
    for scale in SCALES:
        for name, run in entries(scale, "runs").items():
            item, dataset = first_item(scale, name), run["dataset"]
            key = (scale, f"{scale}_{item}_{dataset}", dataset)
            batches.setdefault(key, []).append(name)
    return [(*key, runs) for key, runs in batches.items()]


def per_run(kind, scale, runs):
    """Return a path per run; shards stay a wildcard."""
    return [f"results/{scale}/{kind}/{run}/{{shard}}.safetensors" for run in runs]


def with_teachers(scale, runs):
    """Return runs and the runs that they are compared with."""
    teachers = [entry(scale, "runs", run).get("teacher") for run in runs]
    return list(dict.fromkeys([*runs, *filter(None, teachers)]))


def scoring_spec(scale, runs):
    """Return the runs of a batch as the step takes them, as JSON text."""
    described = {name: entry(scale, "runs", name) for name in runs}
    return json.dumps(
        {
            name: {
                "seed": run["seed"],
                "seeds": entry(scale, "datasets", run["dataset"]).get("seeds", 1),
                "teacher": run.get("teacher", ""),
            }
            for name, run in described.items()
        }
    )


def scored_size(scale, dataset):
    """Return the side that a data set, and runs on it, have images resized to."""
    return entry(scale, "datasets", dataset).get("size", 0)
