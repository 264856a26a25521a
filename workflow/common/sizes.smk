"""The scale `random`: the paper scale with random weights, over a few captions."""

import json


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
