"""The scale `random`: the paper scale with random weights, over a few captions."""

import json

from clockwork_experiments.config.load import random_scale

RANDOM = config.get("random", {})
"""What `workflow/random.yaml` says, before it is laid over the paper scale."""

def add_random_tables():
    """Give the papers' tables of runs their counterparts with random weights.

    The first one is that of `real_sizes`, so that its runs are scored by one job.
    """
    few = RANDOM["at_most"]["steps"]
    for registry in PAPERS.values():
        for item in registry["tables"].values():
            if "rows" not in item.get("paper", {}) or "kind" in item["paper"]:
                continue
            table = with_scores(item)
            item["random"] = {
                **table,
                "title": f"{table['title']}: random weights",
                "caption": f"Random weights of the real sizes: no score; {few} steps at "
                f"most, whatever follows. {table['caption']}",
            }
    tables = PAPERS["clockwork"]["tables"]
    shown = RANDOM["real_sizes"]["runs"]
    table = tables["table_1"].get("random", {"rows": []})
    rows = [row for row in table["rows"] if row.get("run") in shown]
    if rows:
        small = {
            **table,
            "title": "Table 1 with random weights of the real sizes",
            "rows": rows,
        }
        PAPERS["clockwork"]["tables"] = {"real_sizes": {"random": small}, **tables}


def add_random_scale():
    """Add the scale to the configuration and its tables to the registries."""
    check_schema(RANDOM, "random.schema.yaml", "workflow/random.yaml")
    config["random"] = random_scale(RANDOM, config["paper"])
    for kind, chosen in RANDOM["real_sizes"].items():
        for name in chosen:
            if kind == "edits":
                check_edited_run("random", "real_sizes", name)
            else:
                entry("random", kind, name)
    for name, spec in RANDOM["weights"].items():
        # The step checks the rest; here is what the paths of files depend on.
        if ("file" in spec) != (spec["kind"] in ("inception", "alexnet")):
            raise WorkflowError(f"random: weights {name!r} need a file, or take none")
    if "table_1" in PAPERS["clockwork"]["tables"]:
        add_random_tables()


def random_weights_spec(wildcards):
    """Return which random weights to make, as JSON text."""
    return json.dumps(RANDOM["weights"][wildcards.weights])


def random_data_spec(wildcards):
    """Return how many captions or pairs to make, as JSON text."""
    return json.dumps(
        {"of": wildcards.random_data, "count": RANDOM["at_most"]["count"], "size": 512}
    )


def real_sizes_results():
    """Return what `real_sizes` makes before it lists what that took."""
    chosen = RANDOM["real_sizes"]
    return [
        "results/random/tables/clockwork/real_sizes.md",
        *translated_shards("random", chosen.get("translations", ())),
        *(
            f"results/random/edited/{name}.safetensors"
            for name in chosen.get("edits", ())
        ),
        "results/random/latency/throughput.json",
    ]


def random_results():
    """Return what `random_scale` makes: all that the paper scale does with weights."""
    perturbed = entries("random", "perturbations")
    searches = entries("random", "depth_searches").values()
    cut = list(dict.fromkeys(search["translator"] for search in searches))
    return [
        *everything("random"),
        *(f"results/random/perturbations/{name}.json" for name in perturbed),
        *level_timings("random", cut),
        "results/random/latency/editing.json",
        "results/random/latency/throughput.json",
    ]


def costed(wildcards):
    """Return what must be there before its costs are listed."""
    return real_sizes_results() if wildcards.scale == "random" else []


def costs_note(wildcards):
    """Return what a reader must know of the costs at a scale."""
    if wildcards.scale != "random":
        return ""
    most = ", ".join(f"{key} {value}" for key, value in RANDOM["at_most"].items())
    return f"Random weights of the real sizes, fp32; at most: {most}."
