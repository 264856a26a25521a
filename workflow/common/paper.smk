"""What the rules of paper.smk ask of the configuration and the registries."""

import json
import shlex

from clockwork_experiments.config import parse as spec_parser
from clockwork_experiments.report import kinds


def table_of(wildcards):
    """Return a table's settings at a scale."""
    table = PAPERS[wildcards.paper]["tables"][wildcards.table]
    if wildcards.scale == "paper" and measured("paper"):
        return with_scores(table)
    return table[wildcards.scale]


def measured(scale):
    """Tell whether tables of a scale wait for whatever they can show."""
    return scale == "mini" or (scale == "paper" and config["measured"])


class Known:
    """One scale's configuration, as kinds of figures and tables ask of it."""

    def __init__(self, scale):
        self.scale, self.base = scale, f"results/{scale}"
        self.measured = measured(scale)

    def entry(self, section, name):
        return entry(self.scale, section, name)

    def has(self, section):
        return bool(entries(self.scale, section))

    def run(self, name):
        if name in entries(self.scale, "step_searches"):
            return run_settings(entry(self.scale, "step_searches", name))
        return run_settings(any_run(self.scale, name))

    def scores(self, names):
        translated = [n for n in names if n in entries(self.scale, "translations")]
        edited = [name for name in names if is_edited(name)]
        sampled = [n for n in names if n not in (*translated, *edited)]
        return [
            *(f"{self.base}/scores/{name}.json" for name in sampled),
            *edit_scores(self.scale, edited),
            *translation_scores(self.scale, translated),
        ]

    def images(self, dataset, names):
        return shards("images", self.scale, dataset, *names)

    def translated(self, names):
        return translated_shards(self.scale, list(names))


PACKAGES = {"table": (kinds.TABLES, "results"), "figure": (kinds.FIGURES, "grid")}
"""Where kinds of tables and figures lie, and the kind of one that names none."""

UNSHOWN = ("kind", "on_request")
"""Keys of a table or figure that are the workflow's affair."""


def shown_as(wildcards):
    """Return what a job makes: ``table`` or ``figure``."""
    return "table" if "table" in wildcards.keys() else "figure"


def item_of(wildcards):
    """Return the settings of a table or figure at a scale."""
    return table_of(wildcards) if "table" in wildcards.keys() else figure_of(wildcards)


def figure_of(wildcards):
    """Return a figure's settings at a scale."""
    return PAPERS[wildcards.paper]["figures"][wildcards.figure][wildcards.scale]


def item_kind(wildcards):
    """Return what kind of table or figure it is."""
    return item_of(wildcards).get("kind", PACKAGES[shown_as(wildcards)][1])


def item_spec(wildcards):
    """Return it as its kind takes it."""
    item = item_of(wildcards)
    return json.dumps({k: v for k, v in item.items() if k not in UNSHOWN})


def item_made(wildcards):
    """Return it as an instance of its kind."""
    package, _ = PACKAGES[shown_as(wildcards)]
    kind = kinds.find(package, item_kind(wildcards))
    return spec_parser.parse(kind, item_spec(wildcards))


def item_code(wildcards):
    """Return the modules that making it runs: the step's, and its own kind's."""
    step = {"table": "set_table", "figure": "draw_figure"}[shown_as(wildcards)]
    package, _ = PACKAGES[shown_as(wildcards)]
    name, file = kinds.source(package, item_kind(wildcards))
    return [*code(step), file] if file else code(step, name)


def item_inputs(wildcards):
    """Return the results that it shows."""
    return item_made(wildcards).needs(Known(wildcards.scale))


def item_options(wildcards, input):
    """Return the command-line options for these, and for what else there is to show.

    What is measured on request alone is no input; what there is of it is shown, and an
    em dash elsewhere.
    """
    item, known = item_made(wildcards), Known(wildcards.scale)
    files = item.needs(known)
    for name, paths in item.wishes(known).items():
        files[name] = [path for path in paths if Path(path).is_file()]
    named = [f"{name}={path}" for name, paths in files.items() for path in paths]
    options = f"--inputs {' '.join(map(shlex.quote, named))}" if named else ""
    runs = item.run_settings(known)
    return f"{options} --runs {shlex.quote(json.dumps(runs))}" if runs else options


def any_run(scale, name):
    """Return a run as it is configured, or an edited run's settings."""
    if name in entries(scale, "translations"):
        return entry(scale, "translations", name)
    if not is_edited(name):
        return entry(scale, "runs", name)
    return {} if name.split("/")[-2] == UNEDITED else edit_run(scale, name)


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
