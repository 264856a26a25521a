"""What the rules of sample.smk ask of the configuration."""

import json


def adaptor_of_run(wildcards):
    """Return the learned adaptor that a run needs, and the CLIP that it asks."""
    name = entry(wildcards.scale, "runs", wildcards.run).get("adaptor")
    if name is None or not is_learned(wildcards.scale, name):
        return {}
    return {
        "adaptor": adaptor_files(wildcards.scale, name),
        "clip": files_of(clip_path)(wildcards),
    }


def adaptor_options(wildcards, input):
    """Return the command-line options for the same."""
    if not hasattr(input, "adaptor"):
        return ""
    name = entry(wildcards.scale, "runs", wildcards.run)["adaptor"]
    folder = adaptor_path(wildcards.scale, name)
    return f"--adaptor {folder} --clip {clip_path(wildcards)}"


def run_spec(wildcards):
    """Return a run as its dataclass takes it."""
    run = entry(wildcards.scale, "runs", wildcards.run)
    chosen = {key: run[key] for key in ("sampler", "seed", "batch_size")}
    if "level" in run:
        chosen["level"] = run["level"]
    if "adaptor" in run:
        adaptor = entry(wildcards.scale, "adaptors", run["adaptor"])
        if adaptor.get("kind") == "branch":
            chosen["branch"] = adaptor["branch"]
        else:
            chosen["cut"] = adaptor.get("spec", adaptor)["cut"]
            if not is_learned(wildcards.scale, run["adaptor"]):
                chosen["kind"] = adaptor["kind"]
    return json.dumps(chosen)
