"""Which results a paper's claims are judged by, and what is to be known of them.

Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from clockwork_experiments.claims.registry import METRICS, ClaimsSpec, Part
from clockwork_experiments.report.kinds import Known, Needs


def parts_of(spec: ClaimsSpec, *sources: str) -> list[Part]:
    """Return all parts, or those with a metric from one of some sources."""
    every = [part for claim in spec.claims.values() for part in claim.parts]
    return [
        part
        for part in every
        if not sources or any(METRICS[name].source in sources for name in part.metrics)
    ]


def runs_of(spec: ClaimsSpec, *sources: str) -> list[str]:
    """Return the runs that these are about, with those of their margins, once each."""

    def named() -> Iterator[str]:
        for part in parts_of(spec, *sources):
            margin = spec.margins[part.margin]
            yield from (part.of, *part.over, part.to, margin.better, margin.worse)

    return list(dict.fromkeys(name for name in named() if name))


def settings(spec: ClaimsSpec, known: Known) -> dict[str, dict[str, Any]]:
    """Return what judging must know: of runs, of perturbations, of translations.

    Runs come with what decides their FLOPs, their data set, its reference for Fréchet
    distances, its number of captions, and the same runs from other training seeds;
    perturbations with that number, translations with their set.
    """
    runs: dict[str, Any] = {}
    names = runs_of(spec)
    of_text = [name for name in names if name in known.entries("runs")]
    replicates = {name: _replicates(name, known) for name in of_text}
    for name in (*of_text, *(again for each in replicates.values() for again in each)):
        dataset = known.entry("runs", name)["dataset"]
        chosen = known.entry("datasets", dataset)
        runs[name] = {
            **known.run(name),
            "dataset": dataset,
            "reference": chosen.get("reference", dataset),
            "captions": chosen["count"],
        }
        if replicates.get(name):
            trained = known.entry("runs", name)["adaptor"]
            runs[name] |= {"trained": trained, "replicates": replicates[name]}
    edited = {name: known.run(name) for name in names if "/" in name}
    runs |= {name: run for name, run in edited.items() if run}
    captions = {}
    for part in parts_of(spec, "perturbations"):
        dataset = known.entry("perturbations", part.perturbation)["dataset"]
        captions[part.perturbation] = known.entry("datasets", dataset)["count"]
    sets = {n: known.entry("translations", n)["set"] for n in _translated(spec, known)}
    found = {"runs": runs, "perturbations": captions}
    return {**found, "translations": sets} if sets else found


def needs(spec: ClaimsSpec, known: Known) -> Needs:
    """Return the results that claims are judged by; ids that there are not raise."""
    base, told = known.base, settings(spec, known)
    runs, translated = told["runs"], _translated(spec, known)
    edited = [name for name in runs_of(spec) if "/" in name]
    levels = [part.level for part in parts_of(spec) if part.level is not None]
    timed = [p.level for p in parts_of(spec, "level_latency") if p.level is not None]
    multi = [part.multi.search for part in parts_of(spec) if part.multi is not None]
    steps = [part.steps for part in parts_of(spec) if part.steps is not None]
    searched = [name for each in steps for name in (each.search, each.than) if name]

    def files(folder: str, names: Iterable[str], suffix: str = "json") -> list[str]:
        return [f"{base}/{folder}/{name}.{suffix}" for name in dict.fromkeys(names)]

    def per_pair(names: Iterable[str]) -> list[str]:
        scores = known.scores(names)
        return [path.replace(".json", ".safetensors") for path in scores]

    shown = _with_replicates(runs_of(spec, "images"), runs)
    found = {
        "features": _features(spec, known, runs),
        "images": _shards(known, "images", {n: runs[n]["dataset"] for n in shown}),
        # Interpolation at equal FLOPs needs the counts of whatever it interpolates.
        "flops": files("flops", (run["model"] for run in runs.values())),
        "perturbations": files("perturbations", told["perturbations"]),
        "edits": per_pair(edited),
        "latency": [f"{base}/latency/sampling.json"]
        if parts_of(spec, "latency")
        else [],
        "translations": per_pair(translated),
        "pairs": files("pairs", sorted(set(told.get("translations", {}).values()))),
        "levels": files("levels", (level.translator for level in levels)),
        "level_latency": files("latency/levels", (each.translator for each in timed)),
        "searches": files("depth", multi),
        "step_searches": files("timesteps", searched),
    }
    return {name: paths for name, paths in found.items() if paths}


def _replicates(name: str, known: Known) -> list[str]:
    """Return the runs that are the same from other training seeds."""
    runs = known.entries("runs")
    return [again for again, run in runs.items() if run.get("replicate_of") == name]


def _with_replicates(names: Iterable[str], runs: dict[str, Any]) -> list[str]:
    """Return those that are runs of text, each with its replicates."""
    found = []
    for name in names:
        if name in runs:
            found += [name, *runs[name].get("replicates", ())]
    return found


def _translated(spec: ClaimsSpec, known: Known) -> list[str]:
    return [name for name in runs_of(spec) if name in known.entries("translations")]


def _features(spec: ClaimsSpec, known: Known, runs: dict[str, Any]) -> list[str]:
    """Return the features of scored runs, of their data sets, and of the references."""
    scored = _with_replicates(runs_of(spec, "features"), runs)
    datasets = {name: runs[name]["dataset"] for name in scored}
    for name in scored:
        for dataset in (runs[name]["dataset"], runs[name]["reference"]):
            datasets[dataset] = dataset
    return _shards(known, "features", datasets)


def _shards(known: Known, kind: str, datasets: dict[str, str]) -> list[str]:
    return [
        path
        for name, dataset in datasets.items()
        for path in known.shards(kind, dataset, [name])
    ]
