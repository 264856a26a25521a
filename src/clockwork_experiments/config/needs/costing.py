"""What is counted and timed, and what the paper scale costs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from clockwork_experiments.base import texts
from clockwork_experiments.config.needs import editing, files, translating
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
from clockwork_experiments.config.needs.training import unet_need

SECTIONS = (
    *("datasets", "runs", "adaptors", "trajectories", "backbones", "perturbations"),
    *("translators", "translation_sets", "translations", "editing", "edit_sets"),
    *("depth_searches", "step_searches", "latency", "benchmark_tasks", "benchmark"),
)
"""Sections of the configuration that decide the costs."""

COUNTED = ("kind", "cut", "inputs", "branch", "rank")
"""What of an adaptor's settings decides what it costs."""


def cost_spec(config: Config, wildcards: Wildcards) -> str:
    """Return a scale's configuration, as far as it decides costs."""
    return as_json({name: entries(config, wildcards.scale, name) for name in SECTIONS})


def settings_of(path: Path) -> str:
    """Return a file of settings as a step's command line takes them."""
    return as_json(texts.read_yaml(path))


def unet_needs(config: Config, wildcards: Wildcards) -> Needs:
    """Return the UNet's configuration where the model is ours, not SD v1.5's."""
    return unet_need(entry(config, wildcards.scale, "models", wildcards.model))


def flops_spec(config: Config, wildcards: Wildcards) -> str:
    """Return what to count of a model: each adaptor of its own or of any model."""
    scale, name = wildcards.scale, wildcards.model
    runs = entries(config, scale, "runs").values()
    kept = {run["level"] for run in runs if run["model"] == name and "level" in run}
    return as_json({**_counted(config, scale, name), "levels": sorted(kept)})


def _counted(config: Config, scale: str, name: str) -> dict[str, Any]:
    model = entry(config, scale, "models", name)
    adaptors = entries(config, scale, "adaptors").items()
    return {
        "backbone": model["backbone"],
        "tokens": model["tokens"],
        "text_channels": files.text_channels(config, scale),
        "adaptors": {
            key: chosen(each.get("spec", each), *COUNTED)
            for key, each in adaptors
            if each.get("model", name) == name
        },
    }


def profile_spec(config: Config, wildcards: Wildcards) -> str:
    """Return which edited runs of a model to profile: those that are timed."""
    scale, name = wildcards.scale, wildcards.model
    timed = _timed_edits(config, scale).items()
    runs = {key: run for key, run in timed if run["model"] == name}
    # Nothing is computed on torch's meta device, which is slower for a small UNet.
    device = "cpu" if scale in SMALL else "meta"
    return as_json({**_counted(config, scale, name), "runs": runs, "device": device})


def levels_needs(config: Config, wildcards: Wildcards) -> Needs:
    """Return the configurations that are not those of the published model."""
    found = translating.translator(config, wildcards.scale, wildcards.translator)
    if "model" not in found:
        return unet_need(found)
    needs = unet_need(entry(config, wildcards.scale, "models", found["model"]))
    if needs and "path" in found:
        needs["branch"] = Need((f"{found['path']}/config.json",))
    return needs


def levels_spec(config: Config, wildcards: Wildcards) -> str:
    """Return which UNet's levels to count, of a model for a task, and light passes."""
    return as_json(_levels(config, wildcards))


def _levels(config: Config, wildcards: Wildcards) -> dict[str, Any]:
    scale = wildcards.scale
    found = translating.translator(config, scale, wildcards.translator)
    tokens = found.get("tokens")
    if "model" in found:
        tokens = entry(config, scale, "models", found["model"])["tokens"]
    used = {
        run["adaptor"]
        for section in ("translations", "step_searches")
        for run in entries(config, scale, section).values()
        if run["translator"] == wildcards.translator and "adaptor" in run
    }
    cuts = {
        name: entry(config, scale, "adaptors", name)["cut"] for name in sorted(used)
    }
    spec = {"task": found["task"], "tokens": tokens}
    return {**spec, "adaptors": cuts} if cuts else spec


def level_timing_spec(config: Config, wildcards: Wildcards) -> str:
    """Return what to time of a UNet's levels, as often as runs are timed."""
    timing = chosen(entries(config, wildcards.scale, "latency"), "repeats", "dtype")
    return as_json({**_levels(config, wildcards), **timing})


def _timed_runs(config: Config, scale: str) -> dict[str, dict[str, Any]]:
    names = entries(config, scale, "latency")["runs"]
    return {name: entry(config, scale, "runs", name) for name in names}


def _timed_pair(config: Config, wildcards: Wildcards) -> dict[str, dict[str, Any]]:
    """Return a run and its teacher, which takes the first turn.

    Raises:
        ValueError: If it has none, or one of them is cut, which is not timed here.
    """
    scale, name = wildcards.scale, wildcards.run
    teacher = entry(config, scale, "runs", name).get("teacher")
    if teacher is None:
        raise ValueError(f"{scale}: run {name!r} has no teacher to be timed with")
    runs = {each: entry(config, scale, "runs", each) for each in (teacher, name)}
    for each, run in runs.items():
        if "level" in run:
            raise ValueError(f"{scale}: run {each!r} keeps a level; it is not timed")
    return runs


def _timed_edits(config: Config, scale: str) -> dict[str, dict[str, Any]]:
    names = entries(config, scale, "editing")["latency"]["runs"]
    return {name: editing.edit_run(config, scale, name) for name in names}


def timed_models(config: Config, wildcards: Wildcards) -> list[str]:
    """Return the models of timed runs, and their learned adaptors."""
    return _models(config, wildcards.scale, _timed_runs(config, wildcards.scale))


def pair_models(config: Config, wildcards: Wildcards) -> list[str]:
    """Return the models of a run and of its teacher, and their learned adaptors."""
    return _models(config, wildcards.scale, _timed_pair(config, wildcards))


def timed_edit_models(config: Config, wildcards: Wildcards) -> list[str]:
    """Return the models of timed edits, and their learned adaptors."""
    return _models(config, wildcards.scale, _timed_edits(config, wildcards.scale))


def _models(config: Config, scale: str, runs: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    for name in dict.fromkeys(run["model"] for run in runs.values()):
        found += files.model_files(config, files.pipeline_path(config, scale, name))
    # A run names an adaptor itself, an edit in both of its loops.
    parts = ("inversion", "generation")
    loops = [each.get(part, {}) for each in runs.values() for part in parts]
    for name in {each.get("adaptor") for each in (*runs.values(), *loops)}:
        if name and files.is_learned(config, scale, name):
            found += files.adaptor_files(scale, name)
    return sorted(found)


def adaptor_kinds(config: Config, wildcards: Wildcards) -> str:
    """Return the kinds of a scale's adaptors, any of which may be timed."""
    scale = wildcards.scale
    names = entries(config, scale, "adaptors")
    return " ".join(sorted({files.adaptor_kind(config, scale, n) for n in names}))


def _light_pass(config: Config, scale: str, name: str | None) -> dict[str, str]:
    """Return what light steps run, as steps that time take it: by folder or kind."""
    found = files.light_pass(config, scale, name)
    if name and "cut" in found:
        found["adaptor"] = found.pop("kind", files.adaptor_path(scale, name))
    return found


def _model(config: Config, scale: str, name: str) -> dict[str, Any]:
    model = entry(config, scale, "models", name)
    return {"model": model["path"], "tokens": model["tokens"]}


def timing_spec(config: Config, wildcards: Wildcards) -> str:
    """Return which runs to time, and how often."""
    scale = wildcards.scale
    return _timing(config, scale, _timed_runs(config, scale))


def pair_timing_spec(config: Config, wildcards: Wildcards) -> str:
    """Return a run and its teacher to time, as often as others are."""
    return _timing(config, wildcards.scale, _timed_pair(config, wildcards))


def _timing(config: Config, scale: str, chosen_runs: Mapping[str, Any]) -> str:
    runs = {
        name: {
            **_model(config, scale, run["model"]),
            "sampler": run["sampler"],
            **_light_pass(config, scale, run.get("adaptor")),
        }
        for name, run in chosen_runs.items()
    }
    timing = entries(config, scale, "latency")
    width = files.text_channels(config, scale)
    return as_json({**timing, "runs": runs, "text_channels": width})


def edit_timing_spec(config: Config, wildcards: Wildcards) -> str:
    """Return which edited runs to time, and how often."""
    scale, runs = wildcards.scale, {}
    for name, run in _timed_edits(config, scale).items():
        runs[name] = _model(config, scale, run["model"])
        for loop in ("inversion", "generation"):
            light = _light_pass(config, scale, run[loop].pop("adaptor"))
            runs[name][loop] = {**run[loop], **light}
    timing = {**entries(config, scale, "editing")["latency"], "runs": runs}
    return as_json({**timing, "text_channels": files.text_channels(config, scale)})


def _first_timed(config: Config, scale: str) -> dict[str, Any]:
    return next(iter(_timed_runs(config, scale).values()))


def overhead_files(config: Config, wildcards: Wildcards) -> list[str]:
    """Return the model whose passes are compared with their bare modules."""
    scale = wildcards.scale
    name = _first_timed(config, scale)["model"]
    return files.model_files(config, files.pipeline_path(config, scale, name))


def overhead_spec(config: Config, wildcards: Wildcards) -> str:
    """Return what to measure: that model, and a wider UNet of SD's topology."""
    scale = wildcards.scale
    wide = {"channels": [160, 320, 640, 640], "size": 32}
    return as_json(
        {
            **_model(config, scale, _first_timed(config, scale)["model"]),
            "text_channels": files.text_channels(config, scale),
            "adaptor": "resnet",
            "cases": [
                {"batch": 2, "pairs": 400},
                {"batch": 2, "pairs": 400, "compiled": True},
                {"batch": 2, "pairs": 40, **wide},
            ],
        }
    )


def throughput_spec(config: Config, wildcards: Wildcards) -> str:
    """Return what to time: sampling of a run, and trajectories of the same model."""
    scale, run = wildcards.scale, _first_timed(config, wildcards.scale)
    recorded = entry(config, scale, "trajectories", f"{run['model']}_train")["spec"]
    return as_json(
        {
            "model": files.pipeline_path(config, scale, run["model"]),
            "text_channels": files.text_channels(config, scale),
            "sampler": run["sampler"],
            "trajectory": recorded,
            "batch_size": run["batch_size"],
            "pairs": 5 if scale == "random" else 7,
        }
    )


def unet_timing_spec(config: Config, rows: Iterable[Mapping[str, Any]]) -> str:
    """Return which UNets to time: the paper scale's timed runs.

    Args:
        config: The configuration.
        rows: Those of Table S3, which says what each is called and compared with.
    """
    printed, runs = {row["run"]: row for row in rows}, {}
    for name, run in _timed_runs(config, "paper").items():
        row = printed.get(name, {})
        runs[name] = {
            "backbone": entry(config, "paper", "models", run["model"])["backbone"],
            "label": row.get("label", name),
            "sampler": run["sampler"],
            "baseline": row.get("baseline", ""),
            "published": row.get("published", {}),
        }
        if "adaptor" in run:
            adaptor = entry(config, "paper", "adaptors", run["adaptor"])
            found = adaptor.get("spec", adaptor)
            runs[name] |= {"adaptor": found["kind"], "cut": found["cut"]}
    return as_json({**entries(config, "paper", "latency"), "runs": runs})


def gpu_timings(config: Config, wildcards: Wildcards) -> list[str]:
    """Return the timings of this machine's GPU; asks torch, which takes seconds.

    Raises:
        ValueError: If there is no GPU.
    """
    ask = "from clockwork_experiments.cost.latency import gpu_slug; print(gpu_slug())"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True)
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1].removeprefix("ValueError: ")
        raise ValueError(f"gpu_latency: {why}")
    (gpu,) = done.stdout.split()
    return [f"results/paper/latency/{gpu}/sampling.{kind}" for kind in ("json", "md")]
