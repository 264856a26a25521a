"""Runs of text-to-image models, perturbed ones, and their scores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from clockwork_experiments.config.needs import files
from clockwork_experiments.config.needs.entries import (
    Config,
    Wildcards,
    as_json,
    chosen,
    entries,
    entry,
)
from clockwork_experiments.config.needs.files import Need, Needs


def run(config: Config, wildcards: Wildcards) -> dict[str, Any]:
    """Return the settings of a run."""
    found: dict[str, Any] = entry(config, wildcards.scale, "runs", wildcards.run)
    return found


def run_needs(config: Config, wildcards: Wildcards) -> Needs:
    """Return what a run is sampled with: the pipeline, prompts, a learned adaptor."""
    scale, found = wildcards.scale, run(config, wildcards)
    return {
        "model": files.pipeline(config, scale, found["model"]),
        **files.learned_adaptor(config, scale, found.get("adaptor")),
        "prompts": Need((files.prompts_file(scale, found["dataset"]),)),
    }


def scored_runs(config: Config, scale: str) -> list[str]:
    """Return the runs of a scale that are scored, and not only looked at."""
    sets, stand_ins = entries(config, scale, "datasets"), set()
    for dataset in sets.values():
        stand_ins.add(dataset.get("sampled"))
    return [
        name
        for name, found in entries(config, scale, "runs").items()
        if sets[found["dataset"]].get("scored", True) and name not in stand_ins
    ]


def run_shards(config: Config, wildcards: Wildcards) -> int:
    """Return in how many jobs a run is sampled."""
    dataset = run(config, wildcards)["dataset"]
    count: int = entry(config, wildcards.scale, "datasets", dataset)["shards"]
    return count


def run_spec(config: Config, wildcards: Wildcards) -> str:
    """Return a run as its dataclass takes it."""
    found = run(config, wildcards)
    light = files.light_pass(config, wildcards.scale, found.get("adaptor"))
    return as_json({**chosen(found, "sampler", "seed", "batch_size", "level"), **light})


def run_adaptor(config: Config, wildcards: Wildcards) -> str:
    """Return the kind of a run's adaptor; empty without one."""
    name = run(config, wildcards).get("adaptor")
    return files.adaptor_kind(config, wildcards.scale, name)


def perturbation_needs(config: Config, wildcards: Wildcards) -> Needs:
    """Return what images with perturbed features are sampled with."""
    scale = wildcards.scale
    found = entry(config, scale, "perturbations", wildcards.perturbation)
    return {
        "model": files.pipeline(config, scale, found["model"]),
        "prompts": Need((files.prompts_file(scale, found["dataset"]),)),
    }


def perturbation_spec(config: Config, wildcards: Wildcards) -> str:
    """Return a perturbation as its dataclass takes it."""
    found = entry(config, wildcards.scale, "perturbations", wildcards.perturbation)
    return as_json(found["spec"])


def reference_of(config: Config, scale: str, dataset: str) -> str:
    """Return the data set that a data set's Fréchet distances refer to, or itself."""
    found: str = entry(config, scale, "datasets", dataset).get("reference", dataset)
    return found


def shown_dataset(config: Config, wildcards: Wildcards) -> str:
    """Return the data set that images belong to: their run's, or the set itself."""
    runs, name = entries(config, wildcards.scale, "runs"), wildcards.images
    return runs[name]["dataset"] if name in runs else name


def own_images(config: Config, scale: str, dataset: str) -> str:
    """Return what shows a set's captions: itself, or the run that stands in for it."""
    found: str = entry(config, scale, "datasets", dataset).get("sampled", dataset)
    return found


def shown_captions(config: Config, wildcards: Wildcards) -> Needs:
    """Return what else features are made of: captions of a set, the judge of scenes."""
    scale, name = wildcards.scale, wildcards.images
    shown = shown_dataset(config, wildcards)
    dataset = entry(config, scale, "datasets", shown)
    prompts = files.prompts_file(scale, shown)
    needs: dict[str, Need] = {}
    own = own_images(config, scale, shown) == name
    if own or name not in entries(config, scale, "runs"):
        needs["prompts"] = Need((prompts,))
    if judge := files.judge_needs(config, scale, dataset):
        needs |= {**judge, "captioned": Need((prompts,))}
    if needs:
        told = (
            "--shard",
            str(int(wildcards.shard)),
            "--shards",
            str(dataset["shards"]),
        )
        last = list(needs)[-1]
        needs[last] = replace(needs[last], more=told)
    return needs


def shown_size(config: Config, wildcards: Wildcards) -> int:
    """Return the side to which images are resized before the Fréchet network; or 0."""
    dataset = shown_dataset(config, wildcards)
    size: int = entry(config, wildcards.scale, "datasets", dataset).get("size", 0)
    return size


def _scored(config: Config, wildcards: Wildcards) -> dict[str, Any]:
    """Return the settings of a run, or of a set whose own images are scored as one."""
    if wildcards.run in entries(config, wildcards.scale, "datasets"):
        return {"dataset": wildcards.run, "seed": 0}
    return run(config, wildcards)


def score_needs(config: Config, wildcards: Wildcards) -> Needs:
    """Return what a run's scores are made of: features, images, its teacher's too."""
    scale, found = wildcards.scale, _scored(config, wildcards)
    dataset = found["dataset"]
    runs = dict.fromkeys(filter(None, (wildcards.run, found.get("teacher"))))
    reference = reference_of(config, scale, dataset)

    def own_features(name: str) -> Need:
        shown = own_images(config, scale, name)
        return Need(tuple(files.shards(config, "features", scale, name, shown)))

    return {
        "features": Need(
            tuple(files.shards(config, "features", scale, dataset, *runs))
        ),
        "images": Need(tuple(files.shards(config, "images", scale, dataset, *runs))),
        "captions": own_features(dataset),
        "reference": own_features(reference),
    }


def score_spec(config: Config, wildcards: Wildcards) -> str:
    """Return a run to score as the step takes it."""
    scale, found = wildcards.scale, _scored(config, wildcards)
    seeds = entry(config, scale, "datasets", found["dataset"]).get("seeds", 1)
    teacher = found.get("teacher", "")
    described = {"seed": found["seed"], "seeds": seeds, "teacher": teacher}
    if rendered := renderings(config, scale, found["dataset"]):
        described["renderings"] = rendered
    return as_json({wildcards.run: described})


def renderings(config: Config, scale: str, dataset: str) -> int:
    """Return how often a set's reference renders each of its captions, in their order.

    0 where the reference is of other captions, or of images that nobody can draw anew.
    """
    sets = entries(config, scale, "datasets")
    own, reference = sets[dataset], sets[reference_of(config, scale, dataset)]
    same = all(
        own.get(key) == reference.get(key)
        for key in ("source", "split", "offset", "count")
    )
    return reference.get("seeds", 1) if same and reference.get("redrawn") else 0
