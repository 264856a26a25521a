"""What the rules of paper.smk ask of the configuration and the registries."""

import json
import shlex

from clockwork_diffusion.tables import SOURCES


def table_of(wildcards):
    """Return a table's settings at a scale."""
    return PAPERS[wildcards.paper]["tables"][wildcards.table][wildcards.scale]


def table_spec(wildcards):
    """Return a table as its dataclass takes it."""
    return json.dumps(table_of(wildcards))


def table_runs(wildcards):
    """Return the runs of a table, id to settings."""
    rows = table_of(wildcards)["rows"]
    names = [row[key] for row in rows for key in ("run", "baseline") if key in row]
    return {name: entry(wildcards.scale, "runs", name) for name in dict.fromkeys(names)}


def table_run_settings(wildcards):
    """Return what a table needs to know of its runs: what decides their FLOPs."""
    runs = table_runs(wildcards)
    return json.dumps({name: run_settings(run) for name, run in runs.items()})


def run_settings(run):
    """Return what decides a run's FLOPs."""
    return {
        "model": run["model"],
        "adaptor": run.get("adaptor", ""),
        "sampler": run["sampler"],
    }


def table_inputs(wildcards):
    """Return the scores, counts and timings that a table's columns show."""
    columns, runs = table_of(wildcards)["columns"], table_runs(wildcards)
    sources = {SOURCES[COLUMNS[name].kind] for name in columns}
    base = f"results/{wildcards.scale}"
    files = {}
    if "scores" in sources:
        files["scores"] = [f"{base}/scores/{name}.json" for name in runs]
    if "flops" in sources:
        models = dict.fromkeys(run["model"] for run in runs.values())
        files["flops"] = [f"{base}/flops/{model}.json" for model in models]
    if "latency" in sources:
        files["latency"] = f"{base}/latency/sampling.json"
    return files


def figure_of(wildcards):
    """Return a figure's settings at a scale."""
    return PAPERS[wildcards.paper]["figures"][wildcards.figure][wildcards.scale]


REFERENCES = ("kind", "model", "perturbation")
"""Keys of a figure that tell the workflow what it shows, not how."""


def figure_kind(wildcards):
    """Return what kind of figure it is."""
    return figure_of(wildcards).get("kind", "grid")


def figure_spec(wildcards):
    """Return a figure as its dataclass takes it."""
    figure = figure_of(wildcards)
    return json.dumps({k: v for k, v in figure.items() if k not in REFERENCES})


def figure_inputs(wildcards):
    """Return what a figure shows: images, prompts, timings, counts, scores, measures."""
    figure, scale = figure_of(wildcards), wildcards.scale
    base = f"results/{scale}"
    if "perturbation" in figure:
        folder = f"{base}/perturbations/{figure['perturbation']}"
        return {
            "images": f"{folder}.safetensors",
            "distances": f"{folder}.json",
        }
    if "adaptors" in figure:
        names = [shown["adaptor"] for shown in figure["adaptors"]]
        return {
            "curves": [f"{base}/curves/adaptors/{name}.csv" for name in names],
            "errors": [f"{base}/scores/adaptors/{name}.json" for name in names],
        }
    if "model" in figure:
        return {"flops": f"{base}/flops/{figure['model']}.json"}
    if "series" in figure:
        runs = {name: entry(scale, "runs", name) for name in curve_runs(figure)}
        models = dict.fromkeys(run["model"] for run in runs.values())
        return {
            "flops": [f"{base}/flops/{model}.json" for model in models],
            "scores": [f"{base}/scores/{name}.json" for name in runs],
        }
    if "runs" not in figure:
        return {}
    runs = [shown["run"] for shown in figure["runs"]]
    (dataset,) = {entry(scale, "runs", name)["dataset"] for name in runs}
    pattern = "results/{scale}/images/{images}/{shard}.safetensors"
    files = {
        "images": [
            path
            for name in runs
            for path in shards(pattern, scale, dataset, images=name)
        ],
        "prompts": f"{base}/prompts/{dataset}.json",
    }
    if figure.get("latency"):
        files["latency"] = f"{base}/latency/sampling.json"
    return files


def figure_options(wildcards, input):
    """Return the command-line options for a figure's inputs."""
    names = ("images", "prompts", "latency", "flops", "scores", "distances")
    names += ("curves", "errors")
    options = input_options(*names)(wildcards, input)
    figure = figure_of(wildcards)
    if "series" not in figure:
        return options
    runs = {
        name: run_settings(entry(wildcards.scale, "runs", name))
        for name in curve_runs(figure)
    }
    return f"{options} --runs {shlex.quote(json.dumps(runs))}"


def claims_of(wildcards):
    """Return a paper's claims at a scale."""
    return PAPERS[wildcards.paper]["claims"][wildcards.scale]


def claims_spec(wildcards):
    """Return a paper's claims as their dataclass takes them."""
    return json.dumps(claims_of(wildcards))


def claim_parts(wildcards, *metrics):
    """Return the parts of a paper's claims that ask for one of some metrics, or all."""
    parts = [
        part
        for claim in claims_of(wildcards)["claims"].values()
        for part in claim["parts"]
    ]
    return [part for part in parts if not metrics or {*part["metrics"]} & {*metrics}]


def claim_runs(wildcards, *metrics):
    """Return the runs that these are about, id to settings."""
    margins = claims_of(wildcards)["margins"]
    parts = claim_parts(wildcards, *metrics)
    names = dict.fromkeys(run for part in parts for run in part_runs(part, margins))
    return {name: entry(wildcards.scale, "runs", name) for name in names}


def claims_settings(wildcards):
    """Return what judging needs to know of runs and perturbations."""
    scale = wildcards.scale
    runs = {
        name: {
            **run_settings(run),
            "dataset": run["dataset"],
            "reference": reference_of(scale, run["dataset"]),
            "captions": entry(scale, "datasets", run["dataset"])["count"],
        }
        for name, run in claim_runs(wildcards).items()
    }
    perturbed = [p["perturbation"] for p in claim_parts(wildcards) if "cells" in p]
    captions = {}
    for name in perturbed:
        dataset = entry(scale, "perturbations", name)["dataset"]
        captions[name] = entry(scale, "datasets", dataset)["count"]
    return json.dumps({"runs": runs, "perturbations": captions})


def claims_inputs(wildcards):
    """Return what the claims are judged by."""
    scale, base = wildcards.scale, f"results/{wildcards.scale}"

    def of_all(kind, names):
        pattern = f"results/{{scale}}/{kind}/{{images}}/{{shard}}.safetensors"
        return [
            path
            for images, dataset in names.items()
            for path in shards(pattern, scale, dataset, images=images)
        ]

    scored = claim_runs(wildcards, "frechet", "clip", "clip_above_chance")
    shown = claim_runs(wildcards, "psnr")
    # Interpolation at equal FLOPs needs the counts of whatever it interpolates.
    models = dict.fromkeys(run["model"] for run in claim_runs(wildcards).values())
    features = {name: run["dataset"] for name, run in scored.items()}
    for run in scored.values():
        for dataset in (run["dataset"], reference_of(scale, run["dataset"])):
            features[dataset] = dataset
    files = {
        "features": of_all("features", features),
        "images": of_all(
            "images", {name: run["dataset"] for name, run in shown.items()}
        ),
        "flops": [f"{base}/flops/{model}.json" for model in models],
        "perturbations": [
            f"{base}/perturbations/{name}.json"
            for name in json.loads(claims_settings(wildcards))["perturbations"]
        ],
    }
    if claim_parts(wildcards, "latency"):
        files["latency"] = f"{base}/latency/sampling.json"
    return {key: value for key, value in files.items() if value}
