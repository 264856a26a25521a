"""What the rules of sample.smk ask of the configuration."""

import json


def run_spec(wildcards):
    """Return a run as its dataclass takes it."""
    run = entry(wildcards.scale, "runs", wildcards.run)
    chosen = {key: run[key] for key in ("sampler", "seed", "batch_size")}
    if "level" in run:
        chosen["level"] = run["level"]
    light = light_pass(wildcards.scale, run.get("adaptor"))
    return json.dumps({**chosen, **light})
