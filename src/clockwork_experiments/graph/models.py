"""The mini models: how they are trained, shipped, judged, put on a hub.

What the shipped ones are trained with stands in `Registry.others`, under
``mini_models`` and ``mini_adaptors``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clockwork_experiments.config.needs.entries import (
    Wildcards,
    as_json,
    chosen,
    entries,
    entry,
)
from clockwork_experiments.config.needs.files import model_files, shards
from clockwork_experiments.config.needs.publishing import hub_files
from clockwork_experiments.config.needs.publishing import published as all_published
from clockwork_experiments.config.registry import Registry
from clockwork_experiments.report import kinds

# Trained models.


def mini_models(registry: Registry) -> list[str]:
    """Return the names of the mini models that rules train and the project ships."""
    models = registry.others["mini_models"]
    trained = [name for name, model in models.items() if model.get("shipped")]
    return trained + list(entries(registry.config, "mini", "backbones"))


def mini_teachers(registry: Registry) -> str:
    """Return the mini model that each of them was made from, where there is one."""
    made = {
        name: model["reads"]["teacher"]
        for name, model in registry.others["mini_models"].items()
        if "teacher" in model.get("reads", {})
    }
    for name, backbone in entries(registry.config, "mini", "backbones").items():
        teacher = entry(registry.config, "mini", "models", backbone["teacher"])
        made[name] = Path(teacher["path"]).name
    return as_json(made)


def _model(registry: Registry, wildcards: Wildcards) -> dict[str, Any]:
    found: dict[str, Any] = registry.others["mini_models"][wildcards.mini_model]
    return found


def recipe(registry: Registry, wildcards: Wildcards) -> str:
    """Return the module that trains a mini model."""
    module: str = _model(registry, wildcards)["recipe"]
    return module


def reads(registry: Registry, wildcards: Wildcards) -> dict[str, str]:
    """Return the cards of the mini models that it is trained from."""
    named = _model(registry, wildcards).get("reads", {})
    return {name: f"results/mini/models/{of}/README.md" for name, of in named.items()}


def options(registry: Registry, wildcards: Wildcards) -> str:
    """Return the command-line option for their folders."""
    read = reads(registry, wildcards).items()
    folders = " ".join(f"{name}={Path(card).parent}" for name, card in read)
    return f"--reads {folders}" if folders else ""


def spec(registry: Registry, wildcards: Wildcards) -> str:
    """Return the settings that it is trained with."""
    model = _model(registry, wildcards)
    if "spec" in model:
        return as_json(model["spec"])
    settings = registry.config["mini"]["training"]
    for key in model["training"]:
        settings = settings[key]
    return as_json(settings)


def adaptor_spec(registry: Registry, wildcards: Wildcards) -> str:
    """Return how to train a shipped adaptor."""
    return as_json(registry.others["mini_adaptors"][wildcards.teacher])


def folder(wildcards: Wildcards, output: Any) -> str:
    """Return the folder of a model, which is that of the first file that is told."""
    return str(Path(output[0]).parent)


# Backbones that are made from teachers.


def backbone_teacher(registry: Registry, wildcards: Wildcards) -> str:
    """Return the folder of the pipeline that a backbone is made from.

    That of a model, or that of a backbone which is made before.
    """
    config, scale = registry.config, wildcards.scale
    name = _backbone(registry, wildcards)["teacher"]
    if name in entries(config, scale, "backbones"):
        return f"results/{scale}/models/{name}"
    path: str = entry(config, scale, "models", name)["path"]
    return path


def backbone_teacher_files(registry: Registry, wildcards: Wildcards) -> list[str]:
    """Return that pipeline's files."""
    return model_files(registry.config, backbone_teacher(registry, wildcards))


def backbone_spec(registry: Registry, wildcards: Wildcards) -> str:
    """Return how it is made."""
    return as_json(_backbone(registry, wildcards)["spec"])


def backbone_prompts(registry: Registry, wildcards: Wildcards) -> str:
    """Return the captions of the images that a backbone is distilled on."""
    dataset = _backbone(registry, wildcards)["dataset"]
    return f"results/{wildcards.scale}/prompts/{dataset}.json"


def backbone_images(registry: Registry, wildcards: Wildcards) -> list[str]:
    """Return the images that a backbone is distilled on."""
    name = _backbone(registry, wildcards)["dataset"]
    return shards(registry.config, "images", wildcards.scale, name)


def quality_option(registry: Registry, wildcards: Wildcards) -> str:
    """Return the option that names the table for a backbone's card, if it is judged."""
    name, scale = wildcards.backbone, wildcards.scale
    if name not in entries(registry.config, scale, "quality"):
        return ""
    return f"--quality docs/reference/{scale}/quality/{name}.md"


def _backbone(registry: Registry, wildcards: Wildcards) -> dict[str, Any]:
    found: dict[str, Any] = entry(
        registry.config, wildcards.scale, "backbones", wildcards.backbone
    )
    return found


# What models are judged by.


def _judged(registry: Registry, wildcards: Wildcards) -> dict[str, Any]:
    found: dict[str, Any] = entry(
        registry.config, wildcards.scale, "quality", wildcards.judged
    )
    return found


def _judged_set(registry: Registry, wildcards: Wildcards) -> str:
    run = _judged(registry, wildcards)["run"]
    name: str = entry(registry.config, wildcards.scale, "runs", run)["dataset"]
    return name


def judge_path(registry: Registry, wildcards: Wildcards) -> str:
    """Return the folder of the judge of scenes."""
    path: str = entry(registry.config, wildcards.scale, "encoders", "judge")["path"]
    return path


def judge_files(registry: Registry, wildcards: Wildcards) -> list[str]:
    """Return its files."""
    return model_files(registry.config, judge_path(registry, wildcards))


def judged_title(registry: Registry, wildcards: Wildcards) -> str:
    """Return the heading of what is measured of a model."""
    title: str = _judged(registry, wildcards)["title"]
    return title


def judged_images(registry: Registry, wildcards: Wildcards) -> list[str]:
    """Return the images that a model is judged by."""
    name = _judged(registry, wildcards)["run"]
    dataset = _judged_set(registry, wildcards)
    return shards(registry.config, "images", wildcards.scale, dataset, name)


def judged_scenes(registry: Registry, wildcards: Wildcards) -> str:
    """Return the scenes that they should show."""
    name = _judged_set(registry, wildcards)
    dataset = entry(registry.config, wildcards.scale, "datasets", name)
    return as_json(chosen(dataset, "source", "split", "count", "offset"))


def judged_grid(registry: Registry, wildcards: Wildcards) -> str:
    """Return the grid that shows some of them, as its dataclass takes it."""
    judged = _judged(registry, wildcards)
    grid = {key: value for key, value in judged.items() if key != "run"}
    return as_json({**grid, "runs": [{"run": judged["run"], "label": ""}]})


def judged_grid_inputs(registry: Registry, wildcards: Wildcards) -> dict[str, Any]:
    """Return what that grid shows."""
    dataset = _judged_set(registry, wildcards)
    return {
        "images": judged_images(registry, wildcards),
        "prompts": f"results/{wildcards.scale}/prompts/{dataset}.json",
    }


def judged_grid_options(wildcards: Wildcards, input: Any) -> str:
    """Return the command-line options for the same."""
    images = " ".join(f"images={path}" for path in input.images)
    return f"--inputs prompts={input.prompts} {images}"


def grid_module(wildcards: Wildcards) -> str:
    """Return the module of that kind of figure."""
    return kinds.place(kinds.FIGURES, "grid")[0]


# What is ready for a hub.


def published(registry: Registry) -> dict[str, Any]:
    """Return what is put on a hub, by name."""
    return all_published(registry.config, registry.others["mini_models"])


def hub_card(registry: Registry, wildcards: Wildcards) -> str:
    """Return the card that training wrote of a model that is put on a hub."""
    return f"{published(registry)[wildcards.published]['folder']}/README.md"


def hub_model(registry: Registry, wildcards: Wildcards) -> list[str]:
    """Return the model's files."""
    return hub_files(published(registry)[wildcards.published]["folder"])


def hub_spec(registry: Registry, wildcards: Wildcards) -> str:
    """Return what its card says, as the step's dataclass takes it."""
    return as_json(published(registry)[wildcards.published]["spec"])
