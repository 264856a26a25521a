"""What the rules of profile.smk ask of the configuration."""

import json
import subprocess
import sys


def flops_spec(wildcards):
    """Return what to count of a model: each adaptor of its own or of any model."""
    model = entry(wildcards.scale, "models", wildcards.model)
    counted = {}
    for name, adaptor in entries(wildcards.scale, "adaptors").items():
        if adaptor.get("model", wildcards.model) == wildcards.model:
            chosen = adaptor.get("spec", adaptor)
            counted[name] = {
                key: chosen[key]
                for key in ("kind", "cut", "inputs", "branch")
                if key in chosen
            }
    return json.dumps(
        {
            "backbone": model["backbone"],
            "tokens": model["tokens"],
            "text_channels": text_channels(wildcards),
            "adaptors": counted,
            "levels": run_levels(wildcards.scale, wildcards.model),
        }
    )


def run_levels(scale, model):
    """Return the levels at which runs keep a model's UNet."""
    runs = entries(scale, "runs").values()
    return sorted(
        {run["level"] for run in runs if run["model"] == model and "level" in run}
    )


def edit_profile_spec(wildcards):
    """Return which edited runs of a model to profile: those that are timed."""
    runs = {
        name: run
        for name, run in timed_edits(wildcards).items()
        if run["model"] == wildcards.model
    }
    # Nothing is computed on torch's meta device, which is slower for a small UNet.
    device = {"mini": "cpu", "paper": "meta"}[wildcards.scale]
    spec = json.loads(flops_spec(wildcards))
    del spec["levels"]  # edits run the whole UNet
    return json.dumps({**spec, "runs": runs, "device": device})


def unet_of_model(wildcards):
    """Return the UNet's configuration where the model is ours, not SD v1.5's."""
    model = entry(wildcards.scale, "models", wildcards.model)
    return {"unet": model["unet"]} if "unet" in model else {}


def architecture_of(wildcards):
    """Return a translator, or the one that it lies over and computes like."""
    chosen = entry(wildcards.scale, "translators", wildcards.translator)
    return entry(
        wildcards.scale, "translators", chosen.get("over", wildcards.translator)
    )


def levels_spec(wildcards):
    """Return which UNet's levels to count, of a model for a task, and light passes."""
    chosen = architecture_of(wildcards)
    tokens = chosen.get("tokens")
    if "model" in chosen:
        tokens = entry(wildcards.scale, "models", chosen["model"])["tokens"]
    spec = {"task": chosen["task"], "tokens": tokens}
    scale = wildcards.scale
    kinds = ("translations", "step_searches")
    used = sorted(
        {
            run["adaptor"]
            for kind in kinds
            for run in entries(scale, kind).values()
            if run["translator"] == wildcards.translator and "adaptor" in run
        }
    )
    cuts = {name: entry(wildcards.scale, "adaptors", name)["cut"] for name in used}
    return json.dumps({**spec, "adaptors": cuts} if cuts else spec)


def levels_inputs(wildcards):
    """Return the configurations that are not those of the published model."""
    chosen = architecture_of(wildcards)
    if "model" not in chosen:
        return {"unet": chosen["unet"]} if "unet" in chosen else {}
    model = entry(wildcards.scale, "models", chosen["model"])
    if "unet" not in model:
        return {}
    branch = {"branch": f"{chosen['path']}/config.json"} if "path" in chosen else {}
    return {"unet": model["unet"], **branch}


def level_timing_spec(wildcards):
    """Return what to time of a UNet's levels, as often as runs are timed."""
    chosen = entries(wildcards.scale, "latency")
    timing = {key: chosen[key] for key in ("repeats", "dtype") if key in chosen}
    return json.dumps({**json.loads(levels_spec(wildcards)), **timing})


def level_timings(scale, names):
    """Return the timings of some models' levels."""
    return [f"results/{scale}/latency/levels/{name}.json" for name in names]


def timed_runs(wildcards):
    """Return the runs that are timed at a scale, id to settings."""
    names = entries(wildcards.scale, "latency")["runs"]
    return {name: entry(wildcards.scale, "runs", name) for name in names}


def timed_models(timed):
    """Return an input function: the models of timed runs, and their learned adaptors.

    ``timed`` returns the runs, which name adaptors themselves or in both loops.
    """

    def files(wildcards):
        scale, runs = wildcards.scale, timed(wildcards).values()
        models = dict.fromkeys(run["model"] for run in runs)
        paths = [entry(scale, "models", name)["path"] for name in models]
        loops = [
            run.get(name, {}) for run in runs for name in ("inversion", "generation")
        ]
        names = {loop.get("adaptor") for loop in (*runs, *loops)} - {None, ""}
        parts = [files_of(lambda _, p=path: p)(wildcards) for path in paths]
        parts += [
            adaptor_files(scale, name) for name in names if is_learned(scale, name)
        ]
        return sorted(sum(parts, []))

    return files


def timed_light_pass(scale, name):
    """Return what light steps run, as steps that time take it: by folder or kind."""
    chosen = light_pass(scale, name)
    if "cut" in chosen:
        chosen["adaptor"] = chosen.pop("kind", adaptor_path(scale, name))
    return chosen


def timing_spec(wildcards):
    """Return what to time."""
    runs = {}
    for name, run in timed_runs(wildcards).items():
        model = entry(wildcards.scale, "models", run["model"])
        runs[name] = {
            "model": model["path"],
            "tokens": model["tokens"],
            "sampler": run["sampler"],
        }
        runs[name] |= timed_light_pass(wildcards.scale, run.get("adaptor"))
    chosen = dict(entries(wildcards.scale, "latency"))
    width = text_channels(wildcards)
    return json.dumps({**chosen, "runs": runs, "text_channels": width})


def overhead_model(wildcards):
    """Return the model whose passes are compared with their bare modules."""
    run = next(iter(timed_runs(wildcards).values()))
    return entry(wildcards.scale, "models", run["model"])


def overhead_files(wildcards):
    """Return the files of that model."""
    return files_of(lambda wildcards: overhead_model(wildcards)["path"])(wildcards)


def overhead_spec(wildcards):
    """Return what to measure: that model, and a wider UNet of SD's topology."""
    model = overhead_model(wildcards)
    return json.dumps(
        {
            "model": model["path"],
            "tokens": model["tokens"],
            "text_channels": text_channels(wildcards),
            "adaptor": "resnet",
            "cases": [
                {"batch": 2, "pairs": 400},
                {"batch": 16, "pairs": 100},
                {
                    "batch": 2,
                    "pairs": 40,
                    "channels": [160, 320, 640, 640],
                    "size": 32,
                },
            ],
        }
    )


def unet_timing_spec(wildcards):
    """Return which UNets to time: the paper scale's timed runs, as Table S3 prints."""
    rows = {
        row["run"]: row
        for row in PAPERS["clockwork"]["tables"]["table_s3"]["paper"]["rows"]
    }
    runs = {}
    for name in entries("paper", "latency")["runs"]:
        run, row = entry("paper", "runs", name), rows.get(name, {})
        model = entry("paper", "models", run["model"])
        runs[name] = {
            "backbone": model["backbone"],
            "label": row.get("label", name),
            "sampler": run["sampler"],
            "baseline": row.get("baseline", ""),
            "published": row.get("published", {}),
        }
        if "adaptor" in run:
            adaptor = entry("paper", "adaptors", run["adaptor"])
            chosen = adaptor.get("spec", adaptor)
            runs[name] |= {"adaptor": chosen["kind"], "cut": chosen["cut"]}
    chosen = entries("paper", "latency")
    return json.dumps({**chosen, "runs": runs})


def gpu_timings(wildcards):
    """Return the timings of this machine's GPU; asks torch, which takes seconds."""
    ask = "from clockwork_experiments.cost.latency import gpu_slug; print(gpu_slug())"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True)
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1].removeprefix("ValueError: ")
        raise WorkflowError(f"gpu_latency: {why}")
    (gpu,) = done.stdout.split()
    return [f"results/paper/latency/{gpu}/sampling.{kind}" for kind in ("json", "md")]


OTHER_UNETS = "workflow/other_unets.yaml"


def other_unets_spec():
    """Return the table of UNets that neither paper has, as JSON."""
    return json.dumps(texts.read_yaml(Path(workflow.basedir) / OTHER_UNETS))
