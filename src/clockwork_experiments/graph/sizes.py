"""The scale ``random``: the paper scale with random weights, over a few captions.

What ``workflow/random.yaml`` says stands in `Registry.others`, under ``random``.
"""

from __future__ import annotations

from clockwork_experiments.config.needs.entries import Wildcards, as_json, entries
from clockwork_experiments.config.needs.translating import (
    level_timings,
    translated_shards,
)
from clockwork_experiments.config.registry import Registry
from clockwork_experiments.graph.listed import everything


def weights_spec(registry: Registry, wildcards: Wildcards) -> str:
    """Return which random weights to make."""
    return as_json(registry.others["random"]["weights"][wildcards.weights])


def data_spec(registry: Registry, wildcards: Wildcards) -> str:
    """Return how many captions or pairs to make."""
    count = registry.others["random"]["at_most"]["count"]
    return as_json({"of": wildcards.random_data, "count": count, "size": 512})


def real_sizes(registry: Registry) -> list[str]:
    """Return what `real_sizes` makes before it lists what that took."""
    chosen = registry.others["random"]["real_sizes"]
    translations = chosen.get("translations", ())
    return [
        "results/random/tables/clockwork/real_sizes.md",
        *translated_shards(registry.config, "random", translations),
        *(
            f"results/random/edited/{name}.safetensors"
            for name in chosen.get("edits", ())
        ),
        "results/random/latency/throughput.json",
    ]


def random_scale(registry: Registry) -> list[str]:
    """Return what `random_scale` makes: all that the paper scale does with weights."""
    config = registry.config
    perturbed = entries(config, "random", "perturbations")
    searches = entries(config, "random", "depth_searches").values()
    cut = list(dict.fromkeys(search["translator"] for search in searches))
    return [
        *everything(registry, "random"),
        *(f"results/random/perturbations/{name}.json" for name in perturbed),
        *level_timings("random", cut),
        "results/random/latency/editing.json",
        "results/random/latency/throughput.json",
    ]


def costed(registry: Registry, wildcards: Wildcards) -> list[str]:
    """Return what must be there before its costs are listed."""
    return real_sizes(registry) if wildcards.scale == "random" else []


def costs_note(registry: Registry, wildcards: Wildcards) -> str:
    """Return what a reader must know of the costs at a scale."""
    if wildcards.scale != "random":
        return ""
    at_most = registry.others["random"]["at_most"]
    most = ", ".join(f"{key} {value}" for key, value in at_most.items())
    return f"Random weights of the real sizes, fp32; at most: {most}."
