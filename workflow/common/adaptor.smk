"""What the rules of adaptor.smk ask of the configuration."""

import json
import shlex


def trajectory_shards(key):
    """Return an input function for the trajectories that an adaptor learns from."""

    def get(wildcards):
        name = entry(wildcards.scale, "adaptors", wildcards.adaptor)[key]
        dataset = entry(wildcards.scale, "trajectories", name)["dataset"]
        return shards("trajectories", wildcards.scale, dataset, name)

    return get


def unrolled_in_training(wildcards):
    """Return the trajectories that an adaptor's training records itself, or None."""
    adaptor = entry(wildcards.scale, "adaptors", wildcards.adaptor)
    if not adaptor["spec"].get("epochs"):
        return None
    return entry(wildcards.scale, "trajectories", adaptor["train"])


def training_data(wildcards):
    """Return the trajectories that an adaptor learns from, or what makes them."""
    trajectory = unrolled_in_training(wildcards)
    if trajectory is None:
        return {"train": trajectory_shards("train")(wildcards)}
    files = {"clip": files_of(clip_path)(wildcards)}
    if starts_from_images(trajectory):
        files["images"] = shards("images", wildcards.scale, trajectory["dataset"])
    return files


def training_options(wildcards, input):
    """Return the command-line options for the same."""
    trajectory = unrolled_in_training(wildcards)
    if trajectory is None:
        return f"--train {input.train}"
    spec = shlex.quote(json.dumps(trajectory["spec"]))
    images = input_options("images")(wildcards, input)
    return f"--unroll {spec} --clip {clip_path(wildcards)} {images}"


def training_gpus(wildcards):
    """Return the number of GPUs, and processes, that an adaptor is trained on."""
    return entry(wildcards.scale, "adaptors", wildcards.adaptor).get("gpus", 1)


def training_launcher(wildcards):
    """Return what starts the processes of a training."""
    gpus = training_gpus(wildcards)
    if gpus == 1:
        return "python"
    return (
        f"python -m accelerate.commands.launch --multi_gpu --num_processes {gpus}"
        # A free port: another such job may run on the same node.
        " --num_machines 1 --main_process_port 0"
        " --mixed_precision no --dynamo_backend no"
    )


def prompts_of_training(wildcards):
    """Return the prompts of the trajectories that an adaptor learns from."""
    adaptor = entry(wildcards.scale, "adaptors", wildcards.adaptor)
    trajectory = entry(wildcards.scale, "trajectories", adaptor["train"])
    return f"results/{wildcards.scale}/prompts/{trajectory['dataset']}.json"
