"""Pairs to translate, translations, and searches of levels and of time steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from clockwork_experiments.config.needs import files
from clockwork_experiments.config.needs.entries import (
    SMALL,
    Config,
    Wildcards,
    as_json,
    chosen,
    entries,
    entry,
)
from clockwork_experiments.config.needs.files import Need, Needs

SAMPLED = (
    *("steps", "guidance", "image_guidance", "timesteps", "scheduler", "clock"),
    *("from_noise", "fidelity"),
)
"""Keys of a translation that describe how it is sampled."""

SEARCHED_SETS = ("set", "heldout", "evolution_set")
"""Sets of pairs that a search sees; only the first is always there."""

JUDGED_BY_FRECHET = ("control", "restoration")
"""Tasks whose time steps are judged by the Fréchet distance, too."""


def pairs_spec(config: Config, wildcards: Wildcards) -> str:
    """Return a set as its dataclass takes it; shards are the workflow's affair."""
    found = _set(config, wildcards)
    return as_json({key: found[key] for key in found if key != "shards"})


def pairs_needs(config: Config, wildcards: Wildcards) -> Needs:
    """Return what a set is made from: a user's folder, or the net that restores."""
    found, needs = _set(config, wildcards), {}
    if "path" in found:
        needs["folder"] = files.own_files(config, found["path"], made="pairs.jsonl")
    if "restorer" in found:
        watched = tuple(files.model_files(config, found["restorer"]))
        needs["restorer"] = Need(watched, hidden=True)
    return needs


def _set(config: Config, wildcards: Wildcards) -> dict[str, Any]:
    found: dict[str, Any] = entry(
        config, wildcards.scale, "translation_sets", wildcards.translation_set
    )
    return found


def translator(config: Config, scale: str, name: str) -> dict[str, Any]:
    """Return the settings of an image-to-image model."""
    found: dict[str, Any] = entry(config, scale, "translators", name)
    return found


def _translation(config: Config, wildcards: Wildcards) -> dict[str, Any]:
    found: dict[str, Any] = entry(
        config, wildcards.scale, "translations", wildcards.translation
    )
    return found


def translation_needs(config: Config, wildcards: Wildcards) -> Needs:
    """Return what a translation reads.

    Its model, the pairs that it is of, and the pipeline that a ControlNet steers; the
    search whose time steps it visits.
    """
    scale, found = wildcards.scale, _translation(config, wildcards)
    model = translator(config, scale, found["translator"])
    pairs, images = files.pair_files(scale, found["set"])
    needs = {"translator": files.model(config, model["path"])}
    if "model" in model:
        needs["model"] = files.pipeline(config, scale, model["model"])
    if "searched" in found:
        asked = found["searched"]
        (path,) = timesteps_of(scale, [asked["search"]])
        needs["searched"] = Need((path,), more=("--method", asked["method"]))
    return {**needs, "set": Need((pairs,)), "images": Need((images,))}


def translation_shards(config: Config, wildcards: Wildcards) -> int:
    """Return in how many jobs a translation is made."""
    return _shards(config, wildcards.scale, wildcards.translation)


def _shards(config: Config, scale: str, name: str) -> int:
    of = entry(config, scale, "translations", name)["set"]
    count: int = entry(config, scale, "translation_sets", of).get("shards", 1)
    return count


def translated_shards(config: Config, scale: str, names: Iterable[str]) -> list[str]:
    """Return the images of translations."""
    return [
        f"results/{scale}/translated/{name}/{index:03d}.safetensors"
        for name in names
        for index in range(_shards(config, scale, name))
    ]


def translation_spec(config: Config, wildcards: Wildcards) -> str:
    """Return a translation as its dataclass takes it."""
    scale, found = wildcards.scale, _translation(config, wildcards)
    task = translator(config, scale, found["translator"])["task"]
    return as_json(
        {
            "translation": {"task": task, **chosen(found, *SAMPLED)},
            **chosen(found, "seed", "batch_size", "level"),
            **_light(config, scale, found),
        }
    )


def _light(config: Config, scale: str, found: Mapping[str, Any]) -> dict[str, Any]:
    if "adaptor" not in found:
        return {}
    return chosen(entry(config, scale, "adaptors", found["adaptor"]), "cut", "kind")


def score_needs(config: Config, wildcards: Wildcards) -> Needs:
    """Return what a translation's scores are made of.

    Its pairs, its images and those of its teacher, and the scoring networks.
    """
    scale, name = wildcards.scale, wildcards.translation
    # A set's id stands for its inputs as they are.
    own = name in entries(config, scale, "translation_sets")
    found = {"set": name} if own else _translation(config, wildcards)
    pairs, images = files.pair_files(scale, found["set"])
    needs = {"set": Need((pairs,)), "images": Need((images,))}
    if not own:
        needs["translated"] = Need(tuple(translated_shards(config, scale, [name])))
    if "teacher" in found:
        shown = translated_shards(config, scale, [found["teacher"]])
        needs["compared"] = Need(tuple(shown))
    needs["clip"] = files.model(config, clip_path(config, wildcards))
    needs["frechet"] = files.encoder_need(config, scale, "frechet")
    needs["lpips"] = files.encoder_need(config, scale, "lpips")
    aesthetic = entries(config, scale, "encoders").get("aesthetic")
    if aesthetic is not None:
        needs["aesthetic"] = Need((aesthetic["path"],))
    pairs_of = entry(config, scale, "translation_sets", found["set"])
    return {**needs, **files.judge_needs(config, scale, pairs_of)}


def teachers(config: Config, wildcards: Wildcards) -> str:
    """Return the translation that another is compared with, by name, as JSON text."""
    if wildcards.translation in entries(config, wildcards.scale, "translation_sets"):
        return as_json({})
    teacher = _translation(config, wildcards).get("teacher")
    return as_json({wildcards.translation: teacher} if teacher else {})


def clip_path(config: Config, wildcards: Wildcards) -> str:
    """Return the folder of the CLIP that scores translations."""
    known = entries(config, wildcards.scale, "encoders")
    path: str = known.get("clip_translations", known["clip"])["path"]
    return path


def clip_files(config: Config, wildcards: Wildcards) -> list[str]:
    """Return its files."""
    return files.model_files(config, clip_path(config, wildcards))


def translation_scores(scale: str, names: Iterable[str]) -> list[str]:
    """Return the score files of translations."""
    return [f"results/{scale}/scores/translations/{name}.json" for name in names]


def level_timings(scale: str, names: Iterable[str]) -> list[str]:
    """Return the timings of some models' levels."""
    return [f"results/{scale}/latency/levels/{name}.json" for name in names]


def _searched(
    config: Config, scale: str, search: Mapping[str, Any], sets: Iterable[str]
) -> dict[str, Need]:
    """Return the model that a search is about, and the pairs that it sees."""
    model = translator(config, scale, search["translator"])
    needs = {"translator": files.model(config, model["path"])}
    for key in sets:
        if search.get(key) is not None:
            pairs = files.pair_files(scale, search[key])
            needs[key] = Need(pairs, pairs[0])
    if "model" in model:
        needs["model"] = files.pipeline(config, scale, model["model"])
    return needs


def depth_needs(config: Config, wildcards: Wildcards) -> Needs:
    """Return what a search of levels reads.

    Timings say what schedules save. Levels of paper size are timed on request alone; a
    search reads those that there are, which are not its inputs.
    """
    scale = wildcards.scale
    search = entry(config, scale, "depth_searches", wildcards.search)
    needs = _searched(config, scale, search, ("set", "heldout"))
    if "frechet" in [each["metric"] for each in search["thresholds"]]:
        needs["frechet"] = files.encoder_need(config, scale, "frechet")
    needs["clip"] = files.model(config, clip_path(config, wildcards))
    needs["levels"] = Need((f"results/{scale}/levels/{search['translator']}.json",))
    (timing,) = level_timings(scale, [search["translator"]])
    if "multi" in search and scale in SMALL:
        needs["timing"] = Need((timing,))
    elif "multi" in search and Path(timing).is_file():
        needs["timing"] = Need((), timing)
    return needs


def depth_spec(config: Config, wildcards: Wildcards) -> str:
    """Return a search of levels as its dataclass takes it."""
    scale = wildcards.scale
    search = entry(config, scale, "depth_searches", wildcards.search)
    task = translator(config, scale, search["translator"])["task"]
    keys = ("seed", "batch_size", "levels", "thresholds", "multi")
    sampled = {"task": task, **chosen(search, *SAMPLED)}
    return as_json({"translation": sampled, **chosen(search, *keys)})


def depth_searches(config: Config, scale: str) -> list[str]:
    """Return the results of every search of levels at a scale."""
    names = entries(config, scale, "depth_searches")
    return [f"results/{scale}/depth/{name}.json" for name in names]


def _step_search(config: Config, wildcards: Wildcards) -> dict[str, Any]:
    found: dict[str, Any] = entry(
        config, wildcards.scale, "step_searches", wildcards.step_search
    )
    return found


def steps_needs(config: Config, wildcards: Wildcards) -> Needs:
    """Return what a search of time steps reads: pairs, networks, other searches."""
    scale, search = wildcards.scale, _step_search(config, wildcards)
    task = translator(config, scale, search["translator"])["task"]
    needs = _searched(config, scale, search, SEARCHED_SETS)
    if task in JUDGED_BY_FRECHET or "evolution_frechet" in search["methods"]:
        needs["frechet"] = files.encoder_need(config, scale, "frechet")
    if task == "restoration":
        needs["lpips"] = files.encoder_need(config, scale, "lpips")
    needs["clip"] = files.model(config, clip_path(config, wildcards))
    if "also" in search:
        needs["also"] = Need(tuple(timesteps_of(scale, search["also"])))
    return needs


def steps_spec(config: Config, wildcards: Wildcards) -> str:
    """Return a search of time steps as its dataclass takes it."""
    scale, search = wildcards.scale, _step_search(config, wildcards)
    task = translator(config, scale, search["translator"])["task"]
    sampled = chosen(search, *(key for key in SAMPLED if key != "steps"))
    keys = (
        "seed",
        "batch_size",
        "steps",
        "methods",
        "direction",
        "most",
        "resamples",
        "evolution",
    )
    return as_json(
        {
            "translation": {**sampled, "task": task, "steps": search["reference"]},
            **chosen(search, *keys, "level", "whole_reference"),
            **_light(config, scale, search),
        }
    )


def timesteps_of(scale: str, names: Iterable[str]) -> list[str]:
    """Return the results of searches for time steps."""
    return [f"results/{scale}/timesteps/{name}.json" for name in names]


def step_searches(config: Config, scale: str) -> list[str]:
    """Return the results of every such search at a scale."""
    return timesteps_of(scale, entries(config, scale, "step_searches"))


def finetuned_needs(config: Config, wildcards: Wildcards) -> Needs:
    """Return the model that is trained further, and what the gain is measured on."""
    found = entry(config, "mini", "finetuned", wildcards.finetuned)
    pairs = entry(config, "mini", "translation_sets", found["set"])
    needs = _searched(config, "mini", found, ("set",))
    clip = entries(config, "mini", "encoders")
    path = clip.get("clip_translations", clip["clip"])["path"]
    needs["clip"] = files.model(config, path)
    if "restorer" in pairs:
        needs["restorer"] = files.model(config, pairs["restorer"])
    return needs


def finetuned_spec(config: Config, wildcards: Wildcards) -> str:
    """Return what is trained further, by its model's recipe but for what differs."""
    found = entry(config, "mini", "finetuned", wildcards.finetuned)
    recipe = dict(entry(config, "mini", "training", "translators")[found["recipe"]])
    recipe["optimisation"] = {**recipe["optimisation"], **found["optimisation"]}
    recipe["pairs"] = found["pairs"]
    return as_json(
        {
            "training": {"level": found["level"], "recipe": recipe},
            "translation": {"task": recipe["task"], **chosen(found, *SAMPLED)},
            "seed": found["seed"],
            "batch_size": found["batch_size"],
        }
    )
