"""Sets of images to edit, their inversions, edits and scores."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from clockwork_experiments.config.needs import files
from clockwork_experiments.config.needs.entries import (
    Config,
    Wildcards,
    as_json,
    chosen,
    editing,
    editing_entry,
    entries,
    entry,
)
from clockwork_experiments.config.needs.files import Need, Needs

UNEDITED = "unedited"
"""The edit that leaves its source as it is; scored with the others."""


def edits_at(config: Config, scale: str, setting: str, edit_set: str) -> list[str]:
    """Return the edits that are made of a set at a setting."""
    some = entry(config, scale, "edit_sets", edit_set).get("edits")
    return [
        name
        for name, edit in editing(config, scale, "edits").items()
        if setting in edit.get("settings", (setting,)) and (not some or name in some)
    ]


def _edit_set(config: Config, wildcards: Wildcards) -> dict[str, Any]:
    found: dict[str, Any] = entry(
        config, wildcards.scale, "edit_sets", wildcards.edit_set
    )
    return found


def edit_set_spec(config: Config, wildcards: Wildcards) -> str:
    """Return a set as the step that reads its folder takes it."""
    found = _edit_set(config, wildcards)
    return as_json(chosen(found, "source", "path", "prompts", "size", "convert"))


def scene_edits_spec(config: Config, wildcards: Wildcards) -> str:
    """Return a set of scenes as the step that writes its folder takes it."""
    found = _edit_set(config, wildcards)
    others = ("source", "size", "model", "edits")
    return as_json({key: found[key] for key in found if key not in others})


def edit_set_needs(config: Config, wildcards: Wildcards) -> Needs:
    """Return a set's own folder, and the model that samples its sources."""
    scale, found = wildcards.scale, _edit_set(config, wildcards)
    needs = {}
    if found["source"] == "scenes":
        folder = f"results/{scale}/scene_edits/{wildcards.edit_set}"
        needs["folder"] = Need((f"{folder}/prompts.yaml",), folder)
    else:
        made = found.get("prompts", "*.yaml")
        needs["own"] = files.own_files(config, found["path"], made=made)
    if "model" in found:
        needs["model"] = files.pipeline(config, scale, found["model"])
    return needs


def loop(config: Config, wildcards: Wildcards) -> dict[str, Any]:
    """Return the settings of the loop that a job runs: an inversion, or an edit."""
    found: dict[str, Any] = (
        editing_entry(config, wildcards.scale, "inversions", wildcards.inversion)
        if hasattr(wildcards, "inversion")
        else editing_entry(config, wildcards.scale, "edits", wildcards.edit)
    )
    return found


def settings(config: Config, wildcards: Wildcards) -> list[str]:
    """Return the settings that a job makes: one of its own, or those made together."""
    if hasattr(wildcards, "setting"):
        return [wildcards.setting]
    return together(config, wildcards.scale)


def together(config: Config, scale: str) -> list[str]:
    """Return the settings that one job makes all of."""
    return [*entries(config, scale, "editing").get("together", ())]


def made_together(config: Config, scale: str) -> list[str]:
    """Return the edits that are made at all these settings."""
    edits = editing(config, scale, "edits").items()
    return [name for name, edit in edits if "settings" not in edit]


def edited_whole(config: Config, scale: str) -> list[str]:
    """Return the sets of which every edit is made."""
    sets = entries(config, scale, "edit_sets").items()
    return [name for name, found in sets if "edits" not in found]


def _steps(config: Config, wildcards: Wildcards, loop: str) -> list[int]:
    return [
        editing_entry(config, wildcards.scale, "settings", setting)[loop]
        for setting in settings(config, wildcards)
    ]


def loop_needs(config: Config, wildcards: Wildcards) -> Needs:
    """Return the pipeline that a loop runs, and a learned adaptor."""
    scale, found = wildcards.scale, loop(config, wildcards)
    inversion = found
    if not hasattr(wildcards, "inversion"):
        inversion = editing_entry(config, scale, "inversions", found["inversion"])
    return {
        "model": files.pipeline(config, scale, inversion["model"]),
        **files.learned_adaptor(config, scale, found.get("adaptor")),
    }


def loop_adaptor(config: Config, wildcards: Wildcards) -> str:
    """Return the kind of a loop's adaptor; empty without one."""
    name = loop(config, wildcards).get("adaptor")
    return files.adaptor_kind(config, wildcards.scale, name)


def inversion_spec(config: Config, wildcards: Wildcards) -> str:
    """Return an inversion as its dataclass takes it."""
    found = loop(config, wildcards)
    return as_json(
        {
            "inversions": [
                {"steps": steps, "clock": found.get("clock", 1)}
                for steps in _steps(config, wildcards, "inversion")
            ],
            "generations": _steps(config, wildcards, "generation"),
            "batch_size": found["batch_size"],
            **files.light_pass(config, wildcards.scale, found.get("adaptor")),
        }
    )


def _generation(config: Config, scale: str, edit: str, setting: str) -> dict[str, Any]:
    """Return the generation of an edit at a setting, as its dataclass takes it."""
    steps = editing_entry(config, scale, "settings", setting)["generation"]
    found = editing_entry(config, scale, "edits", edit)
    keys = ("guidance", "tau_f", "tau_a", "negative_prompt", "conv_layer", "clock")
    return {"steps": steps, **chosen(found, *keys, "drop_source", "features")}


def edit_spec(config: Config, wildcards: Wildcards) -> str:
    """Return an edit as its dataclass takes it."""
    scale, found = wildcards.scale, loop(config, wildcards)
    return as_json(
        {
            "generations": [
                _generation(config, scale, wildcards.edit, setting)
                for setting in settings(config, wildcards)
            ],
            "batch_size": found["batch_size"],
            **chosen(found, "target", "spill"),
            **files.light_pass(config, scale, found.get("adaptor")),
        }
    )


def inversion_indices(config: Config, wildcards: Wildcards) -> list[str]:
    """Return the indices of the inversions that an edit starts from, by setting."""
    name = loop(config, wildcards)["inversion"]
    folder = f"results/{wildcards.scale}/inversions/{wildcards.edit_set}/{name}"
    return [f"{folder}/{each}/index.json" for each in settings(config, wildcards)]


def edited_images(config: Config, wildcards: Wildcards) -> list[str]:
    """Return the images of all edits of a set at a setting."""
    scale, setting, of = wildcards.scale, wildcards.setting, wildcards.edit_set
    return [
        f"results/{scale}/edited/{of}/{name}/{setting}.safetensors"
        for name in edits_at(config, scale, setting, of)
    ]


def edit_teachers(config: Config, wildcards: Wildcards) -> str:
    """Return the edits that others are compared with, by edit, as JSON text."""
    scale, edits = wildcards.scale, editing(config, wildcards.scale, "edits")
    made = edits_at(config, scale, wildcards.setting, wildcards.edit_set)
    teachers = {name: edits[name].get("teacher") for name in made}
    return as_json({name: each for name, each in teachers.items() if each in made})


def judge_needs(config: Config, wildcards: Wildcards) -> Needs:
    """Return the judge of scenes, if the set shows some."""
    return files.judge_needs(config, wildcards.scale, _edit_set(config, wildcards))


def structure_path(config: Config, wildcards: Wildcards) -> str:
    """Return the folder of the ViT whose keys tell structure."""
    return files.encoder_path(config, wildcards.scale, "structure")


def structure_files(config: Config, wildcards: Wildcards) -> list[str]:
    """Return its files."""
    return files.model_files(config, structure_path(config, wildcards))


def edit_run(config: Config, scale: str, name: str) -> dict[str, Any]:
    """Return the settings of an edited run, ``<edit>/<setting>`` behind any set."""
    edit, setting = name.split("/")[-2:]
    found = editing_entry(config, scale, "edits", edit)
    inversion = editing_entry(config, scale, "inversions", found["inversion"])
    steps = editing_entry(config, scale, "settings", setting)
    described = {
        name: {
            "steps": steps[name],
            "clock": loop.get("clock", 1),
            "adaptor": loop.get("adaptor", ""),
        }
        for name, loop in (("inversion", inversion), ("generation", found))
    }
    described["generation"] |= _generation(config, scale, edit, setting)
    return {"model": inversion["model"], **described}


def is_edited(name: str) -> bool:
    """Tell whether a run's name is that of an edited run."""
    return "/" in name


def edit_scores(scale: str, names: Iterable[str]) -> list[str]:
    """Return the score files of edited runs, ``<edit_set>/<edit>/<setting>``."""
    parts = [name.split("/") for name in names]
    pairs = dict.fromkeys((edit_set, setting) for edit_set, _, setting in parts)
    return [
        f"results/{scale}/scores/edits/{edit_set}/{setting}.json"
        for edit_set, setting in pairs
    ]


def all_edits(config: Config, scale: str) -> list[str]:
    """Return every edited run of a scale, ``<edit_set>/<edit>/<setting>``."""
    return [
        f"{edit_set}/{name}/{setting}"
        for edit_set in entries(config, scale, "edit_sets")
        for setting in editing(config, scale, "settings")
        for name in edits_at(config, scale, setting, edit_set)
    ]
