"""What the benchmark's methods are measured with, and what is shown of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clockwork_experiments.benchmark.method import Method
from clockwork_experiments.benchmark.methods import made
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

SHARED = (
    *("scheduler", "steps", "reference", "guidance", "image_guidance", "seed"),
    "batch_size",
)
"""Keys of a task that all of its steps are told."""


def task_of(config: Config, scale: str, name: str) -> dict[str, Any]:
    """Return the settings of a task."""
    found: dict[str, Any] = entry(config, scale, "benchmark_tasks", name)
    return found


def method_of(config: Config, scale: str, name: str) -> dict[str, Any]:
    """Return the settings of a method's entry."""
    found: dict[str, Any] = entry(config, scale, "benchmark", name)
    return found


def built(config: Config, scale: str, name: str) -> Method:
    """Return a method, its settings checked."""
    found = method_of(config, scale, name)
    where = f"{scale}: benchmark {name!r}"
    return made(found["kind"], found.get("settings", {}), where)


def methods(config: Config, scale: str, task: str, sliced: bool = False) -> list[str]:
    """Return the methods of a task, or those in its slice."""
    return [
        name
        for name, found in entries(config, scale, "benchmark").items()
        if found["task"] == task and (found.get("sliced") or not sliced)
    ]


def _folder(wildcards: Wildcards) -> str:
    return f"results/{wildcards.scale}/benchmark/{wildcards.benchmark_task}"


# --- what steps are told -------------------------------------------------------------


def _shared(config: Config, scale: str, name: str) -> dict[str, Any]:
    """Return a task as `benchmark.subject.TaskSpec` takes it."""
    found = task_of(config, scale, name)
    if "model" in found:
        seeds = entry(config, scale, "datasets", found["dataset"]).get("seeds", 1)
        task = "text"
    else:
        seeds = found.get("seeds", 1)
        task = entry(config, scale, "translators", found["translator"])["task"]
    return {"task": task, "seeds": seeds, **chosen(found, *SHARED)}


def task_spec(config: Config, wildcards: Wildcards) -> str:
    """Return the task alone."""
    return as_json(_shared(config, wildcards.scale, wildcards.benchmark_task))


def _asked_grids(config: Config, scale: str, task: str) -> dict[str, list[int]]:
    asked: dict[str, set[int]] = {}
    for name in methods(config, scale, task):
        method = built(config, scale, name)
        if method.grid:
            asked.setdefault(method.grid, set()).add(method.steps)
    return {name: sorted(each) for name, each in sorted(asked.items())}


def grids_spec(config: Config, wildcards: Wildcards) -> str:
    """Return which grids to find, of how many steps."""
    scale, task = wildcards.scale, wildcards.benchmark_task
    return as_json(
        {
            "task": _shared(config, scale, task),
            "asked": _asked_grids(config, scale, task),
            "most": task_of(config, scale, task)["planned_on"],
        }
    )


def plan_spec(config: Config, wildcards: Wildcards) -> str:
    """Return what to plan."""
    scale, task = wildcards.scale, wildcards.benchmark_task
    method: Any = built(config, scale, wildcards.method)
    return as_json(
        {
            "task": _shared(config, scale, task),
            "budget": method.budget,
            "steps": method.steps,
            "choose": list(method.choose),
            "most": task_of(config, scale, task)["planned_on"],
        }
    )


def method_spec(config: Config, wildcards: Wildcards) -> str:
    """Return a method to measure."""
    return as_json(_method(config, wildcards))


def timed_spec(config: Config, wildcards: Wildcards) -> str:
    """Return a method to time."""
    found = task_of(config, wildcards.scale, wildcards.benchmark_task)
    return as_json({**_method(config, wildcards), "pairs": found["timed"]})


def _method(config: Config, wildcards: Wildcards) -> dict[str, Any]:
    scale = wildcards.scale
    found = method_of(config, scale, wildcards.method)
    if found["task"] != wildcards.benchmark_task:
        raise ValueError(
            f"{scale}: method {wildcards.method!r} is of the task {found['task']!r}, "
            f"not of {wildcards.benchmark_task!r}"
        )
    return {
        "task": _shared(config, scale, found["task"]),
        **chosen(found, "kind", "settings"),
        "light": files.light_pass(config, scale, found.get("adaptor")),
    }


def masks_spec(config: Config, wildcards: Wildcards) -> str:
    """Return for which predictor to measure every mask."""
    scale, task = wildcards.scale, wildcards.benchmark_task
    return as_json(
        {
            "task": _shared(config, scale, task),
            "most": task_of(config, scale, task).get("mask_captions", 16),
            "light": files.light_pass(config, scale, wildcards.adaptor),
        }
    )


def method_adaptor(config: Config, wildcards: Wildcards) -> str:
    """Return the kind of a method's adaptor, whose code it uses; empty without one."""
    found = method_of(config, wildcards.scale, wildcards.method)
    return files.adaptor_kind(config, wildcards.scale, found.get("adaptor"))


def mask_adaptor(config: Config, wildcards: Wildcards) -> str:
    """Return the kind of a predictor."""
    return files.adaptor_kind(config, wildcards.scale, wildcards.adaptor)


# --- what steps read -----------------------------------------------------------------


def _model(config: Config, scale: str, task: Mapping[str, Any]) -> Need:
    if "model" in task:
        return files.pipeline(config, scale, task["model"])
    found = entry(config, scale, "translators", task["translator"])
    return files.model(config, found["path"])


def _subject(config: Config, wildcards: Wildcards, planning: bool = False) -> Needs:
    """Return the model, and the captions or pairs that it is asked for."""
    scale = wildcards.scale
    task = task_of(config, scale, wildcards.benchmark_task)
    needs = {"model": _model(config, scale, task)}
    if "model" in task:
        name = task["planning" if planning else "dataset"]
        return {**needs, "prompts": Need((files.prompts_file(scale, name),))}
    pairs = files.pair_files(scale, task["planning" if planning else "set"])
    return {**needs, "set": Need(pairs, pairs[0])}


def _judges(config: Config, wildcards: Wildcards) -> bool:
    """Tell whether the scale has a judge, and the captions are of scenes."""
    scale = wildcards.scale
    task = task_of(config, scale, wildcards.benchmark_task)
    if "judge" not in entries(config, scale, "encoders") or "model" not in task:
        return False
    source: str = entry(config, scale, "datasets", task["dataset"])["source"]
    return source == "scenes"


def reference_needs(config: Config, wildcards: Wildcards) -> Needs:
    """Return what the teacher's images are sampled with."""
    return {
        **_subject(config, wildcards),
        "frechet": files.encoder_need(config, wildcards.scale, "frechet"),
    }


def planning_needs(config: Config, wildcards: Wildcards) -> Needs:
    """Return what grids and plans are made on."""
    return _subject(config, wildcards, planning=True)


def timed_needs(config: Config, wildcards: Wildcards) -> Needs:
    """Return what a method runs on: also its adaptor, grids or plan."""
    scale, folder = wildcards.scale, _folder(wildcards)
    found = method_of(config, scale, wildcards.method)
    method = built(config, scale, wildcards.method)
    needs = dict(_subject(config, wildcards))
    needs |= files.learned_adaptor(config, scale, found.get("adaptor"))
    if method.grid:
        needs["grids"] = Need((f"{folder}/grids.json",))
    if method.planned:
        needs["plan"] = Need((f"{folder}/plans/{wildcards.method}.json",))
    return needs


def method_needs(config: Config, wildcards: Wildcards) -> Needs:
    """Return the same with what its images are compared with, and by."""
    needs = {
        **timed_needs(config, wildcards),
        "reference": Need((f"{_folder(wildcards)}/reference.safetensors",)),
        "frechet": files.encoder_need(config, wildcards.scale, "frechet"),
    }
    if _judges(config, wildcards):
        path = files.encoder_path(config, wildcards.scale, "judge")
        needs["judge"] = files.model(config, path)
    return needs


def masks_needs(config: Config, wildcards: Wildcards) -> Needs:
    """Return what masks are measured with."""
    return {
        **_subject(config, wildcards),
        **files.learned_adaptor(config, wildcards.scale, wildcards.adaptor),
    }


# --- what is shown -------------------------------------------------------------------

TABLES = ("methods", "plans", "masks")
FIGURES = ("methods", "masks")


def shown(config: Config, scale: str) -> list[str]:
    """Return every table and figure of a scale's benchmark, and its data."""
    found: list[str] = []
    for task in entries(config, scale, "benchmark_tasks"):
        folder = f"results/{scale}/benchmark/{task}"
        found += [f"{folder}/images.csv"]
        for kind, names, suffixes in (
            ("tables", TABLES, ("csv", "md", "tex")),
            ("figures", FIGURES, ("pdf", "png")),
        ):
            for name in names:
                if name in shown_of(config, scale, task):
                    found += [f"{folder}/{kind}/{name}.{each}" for each in suffixes]
    return found


def shown_of(config: Config, scale: str, task: str) -> list[str]:
    """Return what there is to show of a task."""
    named = methods(config, scale, task)
    planned = any(built(config, scale, each).planned for each in named)
    masks = task_of(config, scale, task).get("masks")
    there = {"methods": named, "plans": planned, "masks": masks}
    return [name for name, each in there.items() if each]


def sliced(config: Config, scale: str) -> list[str]:
    """Return the tables of what `make` runs of a scale's benchmark."""
    return [
        f"results/{scale}/benchmark/{task}/tables/slice.{kind}"
        for task in entries(config, scale, "benchmark_tasks")
        if methods(config, scale, task, sliced=True)
        for kind in ("csv", "md")
    ]


def measured(config: Config, wildcards: Wildcards) -> list[str]:
    """Return the measurements of a task's methods."""
    named = methods(config, wildcards.scale, wildcards.benchmark_task)
    return [f"{_folder(wildcards)}/methods/{name}.json" for name in named]


def item_spec(config: Config, wildcards: Wildcards) -> str:
    """Return a table or figure of a task as its kind takes it."""
    scale, task = wildcards.scale, wildcards.benchmark_task
    found = task_of(config, scale, task)
    title = _title(config, scale, task, wildcards.shown)
    told: dict[str, Any] = {"task": task, "title": title}
    if wildcards.shown == "masks":
        told["predictors"] = list(found.get("masks", ()))
        told["steps"] = found["steps"]
        return as_json({**told, "caption": _said_of_masks(found)})
    named = methods(config, scale, task, sliced=wildcards.shown == "slice")
    told["methods"] = [
        {
            "method": name,
            **chosen(method_of(config, scale, name), "label", "than"),
        }
        for name in named
    ]
    told["plain"] = plain_of(config, scale, task)
    told["budgets"] = list(found["budgets"])
    told["timed"] = wildcards.shown != "slice"
    return as_json({**told, "caption": _said(config, scale, task)})


def plain_of(config: Config, scale: str, task: str) -> str:
    """Return the method that costs refer to: as many plain steps as the task has.

    Raises:
        ValueError: If there is none.
    """
    steps = task_of(config, scale, task)["steps"]
    for name in methods(config, scale, task):
        method = built(config, scale, name)
        if (method.axes, method.steps, method.grid) == (("time steps",), steps, ""):
            return name
    raise ValueError(
        f"{scale}: task {task!r} of the benchmark needs a method of kind plain with "
        f"{steps} steps, which costs refer to"
    )


def _title(config: Config, scale: str, task: str, shown: str) -> str:
    found = task_of(config, scale, task)
    model = found.get("model") or found["translator"]
    what = {
        "slice": "A slice of the benchmark",
        "plans": "Joint plans against the best single axis",
        "masks": f"Every mask of {found['steps']} steps",
    }.get(shown, "The benchmark")
    return f"{what}: {model} at {scale} scale"


def _said(config: Config, scale: str, task: str) -> str:
    found = task_of(config, scale, task)
    name = found.get("dataset") or found["set"]
    seeds = _shared(config, scale, task)["seeds"]
    place, what = (
        ("datasets", "captions") if "model" in found else ("translation_sets", "pairs")
    )
    count = entry(config, scale, place, name).get("count") or "all"
    return (
        f"All methods on {count} {what} of {name!r}, {seeds} noises of each, the same "
        f"for all, against the images of {found['reference']} steps from the same "
        "noise: PSNR in pixels, and the Fréchet distance to these. In brackets 95 %, "
        f"of {what}. FLOPs as they are run, all UNet passes of an image, of those of "
        f"{found['steps']} plain steps: without the products of attention, and with "
        "them. Time: the median ratio of turns in pairs against those plain steps, on "
        "the machine that made the table. Plans and time steps were made on other "
        f"{what}."
    )


def _said_of_masks(found: Mapping[str, Any]) -> str:
    steps = found["steps"]
    return (
        f"Every mask of {steps} steps, sampled on {found.get('mask_captions', 16)} "
        "captions: squared distance of the latents to those of full steps alone, in "
        "dB. R² and slope: of the line from the sum of what single light steps, or "
        "single spans of them, cost to what a mask was measured to cost; masks that "
        "are summands do not count. Gap: by what share the mask that is chosen by that "
        "sum costs more than the best of its budget."
    )
