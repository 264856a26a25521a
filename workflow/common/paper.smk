"""What the rules of paper.smk ask of the configuration and the registries."""

import json
import shlex

from clockwork_experiments.report.tables.results import SOURCES


def table_of(wildcards):
    """Return a table's settings at a scale."""
    table = PAPERS[wildcards.paper]["tables"][wildcards.table]
    if wildcards.scale == "paper" and measured("paper"):
        return with_scores(table)
    return table[wildcards.scale]


def measured(scale):
    """Tell whether tables of a scale wait for whatever they can show."""
    return scale == "mini" or (scale == "paper" and config["measured"])


def table_kind(wildcards):
    """Return what kind of table it is."""
    return table_of(wildcards).get("kind", "results")


def table_spec(wildcards):
    """Return a table as its dataclass takes it."""
    table = table_of(wildcards)
    return json.dumps({key: value for key, value in table.items() if key != "kind"})


def table_runs(wildcards):
    """Return the runs of a table, id to settings."""
    table = table_of(wildcards)
    if table_kind(wildcards) == "joint":
        return joint_searches(wildcards.scale, table)
    if table_kind(wildcards) in (*LEVEL_TABLES, *STEP_TABLES, "multi_depth"):
        return {}
    rows = table["rows"]
    names = [row[key] for row in rows for key in ("run", "baseline") if key in row]
    names += [table["run"]] if "run" in table else []
    return {name: any_run(wildcards.scale, name) for name in dict.fromkeys(names)}


def any_run(scale, name):
    """Return a run as it is configured, or an edited run's settings."""
    if name in entries(scale, "translations"):
        return entry(scale, "translations", name)
    if not is_edited(name):
        return entry(scale, "runs", name)
    return {} if name.split("/")[-2] == UNEDITED else edit_run(scale, name)


def table_run_settings(wildcards):
    """Return what a table needs to know of its runs: what decides their FLOPs."""
    runs = table_runs(wildcards)
    return json.dumps({name: run_settings(run) for name, run in runs.items()})


def run_settings(run):
    """Return what decides a run's FLOPs."""
    if "translator" in run:
        keys = ("guidance", "image_guidance", "level", "clock", "adaptor")
        return {key: run[key] for key in ("translator", "steps", *keys) if key in run}
    if "sampler" not in run:
        return run
    return {
        "model": run["model"],
        "adaptor": run.get("adaptor", ""),
        "sampler": run["sampler"],
        **({"level": run["level"]} if "level" in run else {}),
    }


def table_inputs(wildcards):
    """Return the scores, counts and timings that a table's columns show."""
    if table_kind(wildcards) in LEVEL_TABLES:
        return level_table_inputs(wildcards)
    if table_kind(wildcards) == "multi_depth":
        name = table_of(wildcards).get("search")
        return (
            {"search": f"results/{wildcards.scale}/depth/{name}.json"} if name else {}
        )
    if table_kind(wildcards) == "joint":
        return joint_inputs(wildcards.scale, table_of(wildcards))
    if table_kind(wildcards) in STEP_TABLES:
        paths = step_table_files(wildcards) if measured(wildcards.scale) else []
        return {"step_searches": paths} if paths else {}
    columns, runs = table_of(wildcards).get("columns", ()), table_runs(wildcards)
    sources = {SOURCES[COLUMNS[name].kind] for name in columns}
    base = f"results/{wildcards.scale}"
    files = {}
    if "scores" in sources:
        translated = [name for name, run in runs.items() if "translator" in run]
        sampled = [n for n in runs if not is_edited(n) and n not in translated]
        edited = [name for name in runs if is_edited(name)]
        files["scores"] = [f"{base}/scores/{name}.json" for name in sampled]
        files["scores"] += edit_scores(wildcards.scale, edited)
        files["scores"] += translation_scores(wildcards.scale, translated)
    if {"flops", "levels"} & sources:
        named = [run["translator"] for run in runs.values() if "translator" in run]
        files["levels"] = [f"{base}/levels/{n}.json" for n in dict.fromkeys(named)]
    if "flops" in sources:
        models = dict.fromkeys(run["model"] for run in runs.values() if "model" in run)
        files["flops"] = [f"{base}/flops/{model}.json" for model in models]
    if "latency" in sources:
        files["latency"] = f"{base}/latency/sampling.json"
    if "profiles" in sources:
        models = dict.fromkeys(run["model"] for run in runs.values() if run)
        files["profiles"] = [f"{base}/profiles/{model}.json" for model in models]
    if "edit_latency" in sources:
        files["edit_latency"] = f"{base}/latency/editing.json"
    return {key: paths for key, paths in files.items() if paths}


def level_table_inputs(wildcards):
    """Return what a table of levels shows."""
    scale, names = wildcards.scale, level_translators(table_of(wildcards))
    files = {"levels": [f"results/{scale}/levels/{name}.json" for name in names]}
    if measured(scale):
        files["level_latency"] = level_timings(scale, names)
    return files


def step_table_files(wildcards):
    """Return the results of the searches of time steps that a table shows."""
    scale = wildcards.scale
    names = step_table_searches(scale, table_of(wildcards))
    return [f"results/{scale}/timesteps/{name}.json" for name in names]


def joint_inputs(scale, item, searches="step_searches", counts="levels"):
    """Return the searches, counts and timings of a table or figure of combinations."""
    runs = joint_searches(scale, item)
    models = list(dict.fromkeys(run["translator"] for run in runs.values()))
    return {
        searches: [f"results/{scale}/timesteps/{name}.json" for name in runs],
        counts: [f"results/{scale}/levels/{name}.json" for name in models],
        "level_latency": level_timings(scale, models),
    }


def table_options(wildcards, input):
    """Return the command-line options for a table's inputs.

    UNets of paper size are timed, and their time steps searched, on request alone. A
    table shows those results that there are, and an em dash elsewhere; so these are not
    its inputs.
    """
    names = ("scores", "flops", "profiles", "latency", "edit_latency", "levels")
    names += ("level_latency", "search", "step_searches")
    options = input_options(*names)(wildcards, input)
    if measured(wildcards.scale):
        return options
    if table_kind(wildcards) in LEVEL_TABLES and wildcards.scale == "paper":
        paths = level_timings("paper", level_translators(table_of(wildcards)))
        timed = [path for path in paths if Path(path).is_file()]
        options += f" --level_latency {' '.join(timed)}" if timed else ""
    if table_kind(wildcards) in STEP_TABLES and wildcards.scale == "paper":
        done = [path for path in step_table_files(wildcards) if Path(path).is_file()]
        options += f" --step_searches {' '.join(done)}" if done else ""
    return options


def figure_of(wildcards):
    """Return a figure's settings at a scale."""
    return PAPERS[wildcards.paper]["figures"][wildcards.figure][wildcards.scale]


REFERENCES = ("kind", "model", "perturbation", "translator", "on_request")
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
    if "translator" in figure:
        return {"levels": f"{base}/levels/{figure['translator']}.json"}
    if "model" in figure:
        return {"flops": f"{base}/flops/{figure['model']}.json"}
    if "series" in figure:
        runs = {name: any_run(scale, name) for name in curve_runs(figure)}
        models = dict.fromkeys(run["model"] for run in runs.values())
        scores = [f"{base}/scores/{name}.json" for name in runs if not is_edited(name)]
        edited = [name for name in runs if is_edited(name)]
        if edited:
            shown = [f"{of}/{name}" for of in panel_sets(figure) for name in edited]
            scores += edit_scores(scale, shown)
        return {
            "flops": [f"{base}/flops/{model}.json" for model in models],
            "scores": scores,
        }
    if "edit_set" in figure:
        return edit_figure_inputs(scale, figure)
    if "translations" in figure:
        named = [shown["translation"] for shown in figure["translations"]]
        pairs = f"{base}/pairs/{figure['set']}"
        return {
            "sets": [f"{pairs}.json", f"{pairs}.safetensors"],
            "images": translated_shards(scale, named),
        }
    if figure_kind(wildcards) == "depth_curves":
        named = dict.fromkeys(panel["search"] for panel in figure["panels"])
        return {"searches": [f"{base}/depth/{name}.json" for name in named]}
    if figure_kind(wildcards) in STEP_FIGURES:
        named = step_searched(figure_answers(figure))
        files = [f"{base}/timesteps/{name}.json" for name in named]
        return {"searches": files} if files else {}
    if figure_kind(wildcards) == "joint_pareto":
        return joint_inputs(scale, figure, "searches", "counts")
    if "runs" not in figure:
        return {}
    runs = [shown["run"] for shown in figure["runs"]]
    (dataset,) = {entry(scale, "runs", name)["dataset"] for name in runs}
    files = {
        "images": shards("images", scale, dataset, *runs),
        "prompts": f"{base}/prompts/{dataset}.json",
    }
    if figure.get("latency"):
        files["latency"] = f"{base}/latency/sampling.json"
    return files


def edit_figure_inputs(scale, figure):
    """Return what a figure of edited images shows."""
    base, edit_set = f"results/{scale}", figure["edit_set"]
    files = {
        "sets": [
            f"{base}/edit_sets/{edit_set}.{kind}" for kind in ("json", "safetensors")
        ],
        "images": [
            f"{base}/edited/{edit_set}/{name}.safetensors"
            for name in figure_edits(figure)
        ],
    }
    if figure["kind"] == "edit_timings":
        files["latency"] = f"{base}/latency/editing.json"
    return files


def figure_options(wildcards, input):
    """Return the command-line options for a figure's inputs."""
    names = ("images", "prompts", "latency", "flops", "scores", "distances")
    names += ("curves", "errors", "sets", "levels", "searches")
    names += ("counts", "level_latency")
    options = input_options(*names)(wildcards, input)
    figure, scale = figure_of(wildcards), wildcards.scale
    if figure_kind(wildcards) == "joint_pareto":
        runs = joint_searches(scale, figure)
    elif "series" in figure:
        runs = {name: any_run(scale, name) for name in curve_runs(figure)}
    else:
        return options
    runs = {name: run_settings(run) for name, run in runs.items()}
    return f"{options} --runs {shlex.quote(json.dumps(runs))}"


CLAIM_INPUTS = (
    "features",
    "images",
    "flops",
    "perturbations",
    "latency",
    "edits",
    "translations",
    "pairs",
    "levels",
    "level_latency",
    "searches",
    "step_searches",
)
"""What claims are judged by; each is an option of the step."""


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


def claimed(wildcards, *metrics):
    """Return the names of the runs that these are about, edited runs included."""
    margins = claims_of(wildcards)["margins"]
    parts = claim_parts(wildcards, *metrics)
    return dict.fromkeys(run for part in parts for run in part_runs(part, margins))


def claim_runs(wildcards, *metrics):
    """Return the runs that these are about, id to settings."""
    return {
        name: entry(wildcards.scale, "runs", name)
        for name in claimed(wildcards, *metrics)
        if name in entries(wildcards.scale, "runs")
    }


def claim_translations(wildcards):
    """Return the translations that claims are about, id to settings."""
    known = entries(wildcards.scale, "translations")
    return {name: known[name] for name in claimed(wildcards) if name in known}


def claim_levels(wildcards, *metrics):
    """Return the models whose levels claims, or such with some metrics, are about."""
    parts = [part for part in claim_parts(wildcards, *metrics) if "level" in part]
    return list(dict.fromkeys(part["level"]["translator"] for part in parts))


def claim_edits(wildcards):
    """Return the edited runs that claims are about, name to settings."""
    scale = wildcards.scale
    return {n: any_run(scale, n) for n in claimed(wildcards) if is_edited(n)}


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
    runs |= {name: run for name, run in claim_edits(wildcards).items() if run}
    perturbed = [p["perturbation"] for p in claim_parts(wildcards) if "cells" in p]
    captions = {}
    for name in perturbed:
        dataset = entry(scale, "perturbations", name)["dataset"]
        captions[name] = entry(scale, "datasets", dataset)["count"]
    sets = {name: run["set"] for name, run in claim_translations(wildcards).items()}
    settings = {"runs": runs, "perturbations": captions}
    return json.dumps({**settings, "translations": sets} if sets else settings)


def claims_inputs(wildcards):
    """Return what the claims are judged by."""
    scale, base = wildcards.scale, f"results/{wildcards.scale}"

    def of_all(kind, names):
        return [
            path
            for name, dataset in names.items()
            for path in shards(kind, scale, dataset, name)
        ]

    scored = claim_runs(wildcards, "frechet", "clip", "clip_above_chance")
    shown = claim_runs(wildcards, "psnr")
    # Interpolation at equal FLOPs needs the counts of whatever it interpolates.
    runs = [*claim_runs(wildcards).values(), *claim_edits(wildcards).values()]
    models = dict.fromkeys(run["model"] for run in runs if run)
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
    edited = edit_scores(scale, claim_edits(wildcards))
    files["edits"] = [path.replace(".json", ".safetensors") for path in edited]
    if claim_parts(wildcards, "latency"):
        files["latency"] = f"{base}/latency/sampling.json"
    translated = translation_scores(scale, claim_translations(wildcards))
    files["translations"] = [p.replace(".json", ".safetensors") for p in translated]
    sets = {run["set"] for run in claim_translations(wildcards).values()}
    files["pairs"] = [f"{base}/pairs/{name}.json" for name in sorted(sets)]
    files["levels"] = [f"{base}/levels/{name}.json" for name in claim_levels(wildcards)]
    files["level_latency"] = level_timings(scale, claim_levels(wildcards, "level_time"))
    searched = [p["multi"]["search"] for p in claim_parts(wildcards) if "multi" in p]
    files["searches"] = [
        f"{base}/depth/{name}.json" for name in dict.fromkeys(searched)
    ]
    answers = [part["steps"] for part in claim_parts(wildcards) if "steps" in part]
    files["step_searches"] = [
        f"{base}/timesteps/{name}.json" for name in step_searched(answers)
    ]
    return {key: value for key, value in files.items() if value}
