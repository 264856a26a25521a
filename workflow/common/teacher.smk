"""What the rules of teacher.smk ask of the configuration."""

import json


def starts_from_images(trajectory):
    """Tell whether trajectories start from images, not from noise."""
    return trajectory["spec"].get("source") in ("noised", "inverted")


def noised_images(wildcards):
    """Return a shard's images, if its trajectories start from images."""
    trajectory = entry(wildcards.scale, "trajectories", wildcards.trajectory)
    if not starts_from_images(trajectory):
        return {}
    folder = f"results/{wildcards.scale}/images/{trajectory['dataset']}"
    return {"images": f"{folder}/{wildcards.shard}.safetensors"}


def stored_model(wildcards):
    """Return the UNet's configuration, and the model's files if there are any."""
    trajectory = entry(wildcards.scale, "trajectories", wildcards.trajectory)
    model = entry(wildcards.scale, "models", trajectory["model"])
    files = {"unet": model["unet"]} if "unet" in model else {}
    if Path(model["path"]).is_dir():
        files["model"] = files_of(model_path("trajectories", "trajectory"))(wildcards)
    return files


def stored_model_options(wildcards, input):
    """Return the command-line options for the same."""
    options = input_options("unet")(wildcards, input)
    if hasattr(input, "model"):
        options += f" --model {model_path('trajectories', 'trajectory')(wildcards)}"
    return options


def storage_spec(wildcards):
    """Return what to compare."""
    trajectory = entry(wildcards.scale, "trajectories", wildcards.trajectory)
    model = entry(wildcards.scale, "models", trajectory["model"])
    return json.dumps(
        {
            "backbone": model["backbone"],
            "tokens": model["tokens"],
            "text_channels": text_channels(wildcards),
            "trajectory": trajectory["spec"],
        }
    )


def trajectory_memory(wildcards):
    """Return the memory in MB; features of 500 SD trajectories take 16 GB."""
    return 4000 if wildcards.scale == "mini" else 64000
