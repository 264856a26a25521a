"""Data sets, the teacher's trajectories, and the adaptors that learn from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clockwork_experiments.config.needs import files
from clockwork_experiments.config.needs.entries import (
    Config,
    Wildcards,
    as_json,
    entry,
)
from clockwork_experiments.config.needs.files import Need, Needs

OF_THE_WORKFLOW = ("shards", "reference", "sampled", "scored")
"""Settings of a data set that say nothing of its prompts."""


def _dataset(config: Config, wildcards: Wildcards) -> dict[str, Any]:
    found: dict[str, Any] = entry(
        config, wildcards.scale, "datasets", wildcards.dataset
    )
    return found


def dataset_spec(config: Config, wildcards: Wildcards) -> str:
    """Return a data set as its dataclass takes it; shards are the workflow's affair."""
    found = _dataset(config, wildcards)
    return as_json({key: found[key] for key in found if key not in OF_THE_WORKFLOW})


def dataset_shards(config: Config, wildcards: Wildcards) -> int:
    """Return the number of shards of a data set."""
    count: int = _dataset(config, wildcards)["shards"]
    return count


def dataset_texts(config: Config, wildcards: Wildcards) -> Needs:
    """Return what stands for the folder of a data set whose captions are read."""
    return _folder(config, wildcards, texts=True)


def dataset_folder(config: Config, wildcards: Wildcards) -> Needs:
    """Return what stands for the folder of a data set whose images are read."""
    return _folder(config, wildcards, texts=False)


def _folder(config: Config, wildcards: Wildcards, *, texts: bool) -> Needs:
    path = _dataset(config, wildcards).get("path")
    if not path:
        return {}
    return {"folder": files.own_files(config, path, made="prompts.txt", texts=texts)}


def trajectory(config: Config, wildcards: Wildcards) -> dict[str, Any]:
    """Return the settings of trajectories."""
    found: dict[str, Any] = entry(
        config, wildcards.scale, "trajectories", wildcards.trajectory
    )
    return found


def trajectory_spec(config: Config, wildcards: Wildcards) -> str:
    """Return trajectories as their dataclass takes them."""
    return as_json(trajectory(config, wildcards)["spec"])


def trajectory_shards(config: Config, wildcards: Wildcards) -> int:
    """Return in how many jobs they are recorded."""
    dataset = trajectory(config, wildcards)["dataset"]
    count: int = entry(config, wildcards.scale, "datasets", dataset)["shards"]
    return count


def trajectory_needs(config: Config, wildcards: Wildcards) -> Needs:
    """Return what a shard is recorded with: the teacher, CLIP, prompts, images."""
    scale, found = wildcards.scale, trajectory(config, wildcards)
    needs = {
        "model": files.pipeline(config, scale, found["model"]),
        "clip": files.model(config, files.clip_path(config, wildcards)),
        "prompts": Need((files.prompts_file(scale, found["dataset"]),)),
    }
    if starts_from_images(found):
        folder = f"results/{scale}/images/{found['dataset']}"
        needs["images"] = Need((f"{folder}/{wildcards.shard}.safetensors",))
    return needs


def starts_from_images(trajectory: dict[str, Any]) -> bool:
    """Tell whether trajectories start from images, not from noise."""
    return trajectory["spec"].get("source") in ("noised", "inverted")


def storage_needs(config: Config, wildcards: Wildcards) -> Needs:
    """Return the UNet's configuration, and the model's files if there are any."""
    name = trajectory(config, wildcards)["model"]
    model = entry(config, wildcards.scale, "models", name)
    needs = unet_need(model)
    if Path(model["path"]).is_dir():
        needs["model"] = files.model(config, model["path"])
    return needs


def unet_need(model: dict[str, Any]) -> dict[str, Need]:
    """Return the UNet's configuration where a model is ours, not SD v1.5's."""
    return {"unet": Need((model["unet"],))} if "unet" in model else {}


def storage_spec(config: Config, wildcards: Wildcards) -> str:
    """Return trajectories whose storage is compared, and the UNet that makes them."""
    found = trajectory(config, wildcards)
    model = entry(config, wildcards.scale, "models", found["model"])
    return as_json(
        {
            "backbone": model["backbone"],
            "tokens": model["tokens"],
            "text_channels": files.text_channels(config, wildcards.scale),
            "trajectory": found["spec"],
        }
    )


def adaptor(config: Config, wildcards: Wildcards) -> dict[str, Any]:
    """Return the settings of an adaptor."""
    found: dict[str, Any] = entry(
        config, wildcards.scale, "adaptors", wildcards.adaptor
    )
    return found


def adaptor_spec(config: Config, wildcards: Wildcards) -> str:
    """Return an adaptor's training as its dataclass takes it."""
    return as_json(adaptor(config, wildcards)["spec"])


def adaptor_needs(config: Config, wildcards: Wildcards) -> Needs:
    """Return what an adaptor learns with: the model, trajectories, their prompts.

    Where training unrolls the teacher anew in each epoch, in place of trajectories to
    learn from what these are made of.
    """
    scale, found = wildcards.scale, adaptor(config, wildcards)
    train, heldout = (
        entry(config, scale, "trajectories", found[key]) for key in ("train", "heldout")
    )
    needs = {"model": files.pipeline(config, scale, found["model"])}
    if not found["spec"].get("epochs"):
        needs["train"] = _recorded(config, scale, train["dataset"], found["train"])
    else:
        clip = files.clip_path(config, wildcards)
        told = ("--unroll", as_json(train["spec"]))
        needs["clip"] = Need(tuple(files.model_files(config, clip)), clip, told)
        if starts_from_images(train):
            images = files.shards(config, "images", scale, train["dataset"])
            needs["images"] = Need(tuple(images))
    also = [
        file
        for name in found.get("also_train", ())
        for file in _recorded(
            config, scale, entry(config, scale, "trajectories", name)["dataset"], name
        ).files
    ]
    if also:
        needs["also"] = Need(tuple(also))
    needs["heldout"] = _recorded(config, scale, heldout["dataset"], found["heldout"])
    needs["prompts"] = Need((files.prompts_file(scale, train["dataset"]),))
    return needs


def _recorded(config: Config, scale: str, dataset: str, name: str) -> Need:
    return Need(tuple(files.shards(config, "trajectories", scale, dataset, name)))


def adaptor_gpus(config: Config, wildcards: Wildcards) -> int:
    """Return the number of GPUs, and processes, that an adaptor is trained on."""
    count: int = adaptor(config, wildcards).get("gpus", 1)
    return count


def adaptor_launcher(config: Config, wildcards: Wildcards) -> str:
    """Return what starts the processes of a training."""
    gpus = adaptor_gpus(config, wildcards)
    if gpus == 1:
        return "python"
    return (
        f"python -m accelerate.commands.launch --multi_gpu --num_processes {gpus}"
        # A free port: another such job may run on the same node.
        " --num_machines 1 --main_process_port 0"
        " --mixed_precision no --dynamo_backend no"
    )
