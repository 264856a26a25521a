"""Small versions of the tables' runs, by the steps themselves, as one digest each.

Digests are of tensors, not of files. They depend on the machine's arithmetic, on torch
and on the shipped weights, so all of these are noted beside them: `key`.

    python tests/reference.py          writes tests/reference.json

Of another machine than the kept ones' it is a test of nothing: run it in a checkout of
the commit before, and in yours, and compare.
"""

import hashlib
import json
import platform
import re
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# First of all: it makes torchvision importable, which diffusers needs.
# isort: off
import clockwork_experiments  # noqa: F401

# isort: on
import diffusers
import torch
import transformers

from clockwork_diffusion.adaptors import build_adaptor
from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.data.datasets import DatasetSpec
from clockwork_experiments.generate.inverting import InvertSpec
from clockwork_experiments.models import loading
from clockwork_experiments.steps import (
    edit_images,
    invert_images,
    perturb_features,
    prepare_edit_set,
    prepare_pairs,
    prepare_prompts,
    sample_images,
    sample_trajectories,
    translate_images,
)
from clockwork_experiments.world import edit_sets as scene_edits

HERE = Path(__file__).parent
MINI = HERE.parent / "resources" / "mini"
KEPT = HERE / "reference.json"
PIPELINES = {
    "sd": "stable-diffusion",
    "efficient": "efficient",
    "distilled": "distilled",
}
PROMPTS = DatasetSpec("scenes", 2)
CLIP_WIDTH = 64


def run(
    model: str, light: dict | str = "", scheduler: str = "dpmpp", **sampler
) -> dict:
    """Describe a run: a light pass is a kind without weights, or what to train."""
    guidance = 1.0 if model == "distilled" else 2.0
    settings = {"scheduler": scheduler, "steps": 6, "guidance": guidance, **sampler}
    return {"model": model, "light": light, "sampler": settings}


RESNET = {"kind": "resnet"}
RUNS: dict[str, dict] = {
    # Table 1
    **{name: run(name) for name in PIPELINES},
    **{f"{name}_clockwork": run(name, RESNET, clock=2) for name in PIPELINES},
    "sd_clockwork_4": run("sd", RESNET, clock=4),
    "sd_identity": run("sd", "identity", clock=2),
    "sd_identity_4": run("sd", "identity", clock=4),
    "sd_extrapolation": run("sd", "extrapolation", clock=2),
    "sd_extrapolation_resnet": run("sd", {"kind": "resnet_extrapolation"}, clock=2),
    "sd_d9": {**run("sd"), "level": 9},
    "sd_d8": {**run("sd"), "level": 8},
    "sd_d9_identity": {**run("sd", "identity", clock=2), "level": 9},
    "sd_branch0": {**run("sd", clock=2), "branch": 0},
    "sd_branch2": {**run("sd", clock=2), "branch": 2},
    # Table 3
    "efficient_unet": run("efficient", {"kind": "unet"}, clock=2),
    "efficient_unet_light": run("efficient", {"kind": "unet_light"}, clock=2),
    "efficient_late": run("efficient", RESNET, adaptor_steps=[3, 4, 5, 6]),
    "efficient_middle": run("efficient", RESNET, adaptor_steps=[2, 3, 4]),
    "efficient_stage2": run("efficient", {**RESNET, "cut": "stage2"}, clock=2),
    "efficient_identity_2": run(
        "efficient", {"kind": "identity", "cut": "stage2"}, clock=2
    ),
    # Table S1
    **{
        f"efficient_{scheduler}": run("efficient", "", scheduler)
        for scheduler in ("dpm", "pndm", "ddim", "heun")
    },
    **{
        f"efficient_{scheduler}_clockwork": run("efficient", RESNET, scheduler, clock=2)
        for scheduler in ("dpm", "pndm", "ddim", "heun")
    },
    # Table S2
    "distilled_r_in": run("distilled", {**RESNET, "inputs": ["r_in"]}, clock=2),
    "distilled_every_step": run(
        "distilled", {**RESNET, "inputs": ["r_in", "text"]}, every_step=True
    ),
}

EDITS: dict[str, dict] = {
    "pnp": {"inversion": {}, "generation": {}},
    "pnp_clock2": {
        "inversion": {"clock": 2},
        "generation": {"clock": 2},
        "kind": "identity",
    },
}

TRANSLATIONS: dict[str, dict] = {
    "ip2p": {"task": "edit", "path": "instruct-pix2pix", "guidance": 2.0},
    "ip2p_both": {
        "task": "edit",
        "path": "instruct-pix2pix",
        "guidance": 2.0,
        "image_guidance": 1.5,
    },
    "ip2p_dpmpp": {
        "task": "edit",
        "path": "instruct-pix2pix",
        "guidance": 2.0,
        "scheduler": "dpmpp",
    },
    "ip2p_d9_clock2": {
        "task": "edit",
        "path": "instruct-pix2pix",
        "guidance": 2.0,
        "clock": 2,
        "level": 9,
    },
    "canny": {
        "task": "control",
        "path": "controlnet",
        "model": "stable-diffusion",
        "guidance": 2.0,
    },
    "canny_clock2": {
        "task": "control",
        "path": "controlnet",
        "model": "stable-diffusion",
        "guidance": 2.0,
        "clock": 2,
    },
    "restored": {"task": "restoration", "path": "stablesr"},
    "restored_d9": {"task": "restoration", "path": "stablesr", "level": 9},
    "restored_clock2": {"task": "restoration", "path": "stablesr", "clock": 2},
    "restored_stochastic": {
        "task": "restoration",
        "path": "stablesr",
        "scheduler": "ddim_stochastic",
    },
    "restored_distilled": {
        "task": "restoration",
        "path": "stablesr-distilled",
        "timesteps": [999, 749, 499, 249],
    },
    "inpainted": {"task": "inpainting", "path": "instruct-pix2pix"},
    "inpainted_d8": {"task": "inpainting", "path": "instruct-pix2pix", "level": 8},
    "sharpened": {"task": "synthesis", "path": "instruct-pix2pix"},
    "drawn": {"task": "text", "path": "stable-diffusion", "guidance": 2.0},
}

TRAJECTORIES: dict[str, dict] = {
    "sd": {"sampler": run("sd")["sampler"]},
    "sd_heun": {"sampler": run("sd", scheduler="heun")["sampler"]},
    "sd_latents": {"sampler": run("sd")["sampler"], "stored": "latents"},
    "sd_noised": {"sampler": run("sd")["sampler"], "source": "noised"},
    "sd_inverted": {
        "sampler": run("sd", scheduler="ddim", guidance=1.0)["sampler"],
        "source": "inverted",
    },
}


def digest(tensors: dict[str, torch.Tensor]) -> str:
    """Return a short SHA-256 of named tensors."""
    total = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        total.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        total.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()[:16]


def of_file(path: Path) -> str:
    return digest(storage.read_tensors(path)[0])


def processor() -> str:
    """Return what decides how sums are rounded: the processor, and what torch uses."""
    described = Path("/proc/cpuinfo")
    text = described.read_text() if described.exists() else ""
    names = ("vendor_id", "cpu family", "model")
    found = [re.search(rf"^{name}\s*: (.*)$", text, re.M) for name in names]
    which = [match[1] for match in found if match] or [platform.processor()]
    return " ".join([*which, torch.backends.cpu.get_cpu_capability()])


def key(folder: Path) -> dict[str, Any]:
    """Return what the digests depend on beside our code."""
    # The shipped adaptors are not: those of the digests have weights of a fixed seed.
    models = (each for each in MINI.iterdir() if each.is_dir())
    weights = sorted(each for each in models if each.name != "adaptors")
    made = [of_file(path) for path in sorted(folder.glob("pairs_*.safetensors"))]
    listed = (folder / "prompts.json").read_text()
    return {
        "torch": torch.__version__.split("+")[0],
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
        "machine": f"{platform.machine()} {processor()}",
        "weights": {each.name: storage.sha256_folder(each)[:16] for each in weights},
        "inputs": hashlib.sha256(json.dumps([made, listed]).encode()).hexdigest()[:16],
    }


def adaptor_of(folder: Path, chosen: dict) -> Path:
    """Return the folder of a learned adaptor with weights of a fixed seed."""
    light, model = dict(chosen["light"]), MINI / PIPELINES[chosen["model"]]
    sampler = chosen["sampler"]
    kind, cut = light.pop("kind"), light.pop("cut", "stage1")
    made_for = {
        "model": storage.sha256_folder(model),
        **{name: sampler[name] for name in ("scheduler", "steps")},
        "cut": cut,
        "loop": "sampling",
    }
    unet = loading.load_pipeline(model).unet
    adaptor = build_adaptor(kind, unet, cut, CLIP_WIDTH, made_for=made_for, **light)
    for name, value in adaptor.named_parameters():
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        drawn = torch.randn(value.shape, generator=generator)
        value.data = drawn * (0.5 / max(1, value[0].numel()) ** 0.5)
    adaptor.save_pretrained(folder)
    storage.write_checksums(folder)
    return folder


def sampled(folder: Path, name: str) -> str:
    chosen, learned, settings = RUNS[name], None, {}
    light = chosen["light"]
    if isinstance(light, str):
        settings = {"kind": light} if light else {}
    elif light["kind"] == "identity":
        settings = light
    else:
        learned = adaptor_of(folder / "adaptor" / name, chosen)
        settings = {"cut": light.get("cut", "stage1")}
    for key in ("level", "branch"):
        if key in chosen:
            settings[key] = chosen[key]
    output = folder / f"{name}.safetensors"
    spec = {"sampler": chosen["sampler"], "seed": 0, "batch_size": 2, **settings}
    sample_images.sample_images(
        spec=json.dumps(spec),
        model=MINI / PIPELINES[chosen["model"]],
        adaptor=learned,
        clip=MINI / "clip" if learned else None,
        prompts=folder / "prompts.json",
        shard=0,
        shards=1,
        state=folder / "state" / name,
        output=output,
    )
    return of_file(output)


def prepare(folder: Path) -> None:
    """Write the sets that the runs are of."""
    prompts = folder / "prompts.json"
    prepare_prompts.prepare_prompts(spec=PROMPTS, output=prompts)
    for task in sorted({each["task"] for each in TRANSLATIONS.values()}):
        spec = {"task": task, "source": "scenes", "count": 2}
        if task == "synthesis":
            spec["restorer"] = str(MINI / "restorer")
        output = folder / f"pairs_{task}.json"
        prepare_pairs.prepare_pairs(spec=json.dumps(spec), output=output)
    kinds = scene_edits.SceneEditsSpec(count=2, kinds=("recolour",))
    scene_edits.write_layout(kinds, folder / "scenes")
    prepare_edit_set.prepare_edit_set(
        spec='{"source": "scenes", "size": 64}',
        folder=folder / "scenes",
        output=folder / "edits.json",
    )


def edited(folder: Path, name: str) -> str:
    chosen = EDITS[name]
    light = {"kind": chosen["kind"]} if "kind" in chosen else {}
    shared = {
        "model": MINI / "stable-diffusion",
        "adaptor": None,
        "clip": None,
        "set": folder / "edits.json",
    }
    index = folder / name / "index.json"
    inverting = {
        "inversions": [{"steps": 8, **chosen["inversion"]}],
        "generations": [8],
        "batch_size": 2,
        **light,
    }
    sources = folder / "edits.safetensors"
    invert_images.invert_images(
        spec=parse(InvertSpec, inverting),
        sources=sources,
        output=[index],
        **shared,
    )
    generating = {"steps": 8, "guidance": 2.0, "tau_f": 0.8, "tau_a": 0.5}
    generating |= {"conv_layer": "up_blocks.2.resnets.0", **chosen["generation"]}
    output = folder / f"{name}.safetensors"
    edit_images.edit_images(
        spec=json.dumps({"generations": [generating], "batch_size": 2, **light}),
        inversion=[index],
        state=folder / "state" / name,
        output=[output],
        **shared,
    )
    latents = [
        storage.read_tensors(path)[0]["latents"]
        for path in sorted((folder / name).glob("*.safetensors"))
    ]
    images = storage.read_tensors(output)[0]
    return digest({**images, "latents": torch.stack(latents)})


def translated(folder: Path, name: str) -> str:
    chosen = dict(TRANSLATIONS[name])
    path, model = chosen.pop("path"), chosen.pop("model", None)
    level = chosen.pop("level", None)
    chosen.setdefault("steps", len(chosen.get("timesteps", range(4))))
    spec = {"translation": chosen, "seed": 0, "batch_size": 2}
    if level is not None:
        spec["level"] = level
    if chosen.get("clock", 1) > 1:
        spec["kind"] = "identity"
    pairs = folder / f"pairs_{chosen['task']}.json"
    output = folder / f"{name}.safetensors"
    translate_images.translate_images(
        spec=json.dumps(spec),
        translator=MINI / path,
        model=None if model is None else MINI / model,
        set=pairs,
        images=pairs.with_suffix(".safetensors"),
        searched=None,
        method=None,
        shard=0,
        shards=1,
        state=folder / "state" / name,
        output=output,
    )
    return of_file(output)


def perturbed(folder: Path, name: str) -> str:
    spec = {
        "sampler": {**run("sd", scheduler=name)["sampler"], "steps": 4},
        "layers": ["up_blocks.1", "bottleneck", "conv_in"],
        "alphas": [0.3],
        "starts": [0, 2],
        "seed": 3,
        "batch_size": 2,
        "kept": 2,
    }
    output = folder / f"perturbed_{name}.safetensors"
    perturb_features.perturb_features(
        spec=json.dumps(spec),
        model=MINI / "stable-diffusion",
        prompts=folder / "prompts.json",
        state=folder / "state" / output.stem,
        output=output,
        distances=output.with_suffix(".json"),
    )
    found = storage.read_json(output.with_suffix(".json"))
    values = {"sampler", "seed", "prompts", "model", "versions"}
    measured = {name: each for name, each in found.items() if name not in values}
    plain = json.dumps(measured, sort_keys=True).encode()
    return f"{of_file(output)} {hashlib.sha256(plain).hexdigest()[:16]}"


def recorded(folder: Path, name: str) -> str:
    chosen = {"cut": "stage1", "seed": 1, "batch_size": 2, **TRAJECTORIES[name]}
    images = None
    if chosen.get("source", "unroll") != "unroll":
        images = folder / "originals.safetensors"
        inputs = storage.read_tensors(folder / "edits.safetensors")[0]
        storage.write_tensors(images, {"images": inputs["sources"]}, {})
    output = folder / f"trajectories_{name}.safetensors"
    sample_trajectories.sample_trajectories(
        spec=json.dumps(chosen),
        model=MINI / "stable-diffusion",
        clip=MINI / "clip",
        prompts=folder / "prompts.json",
        images=images,
        shard=0,
        shards=1,
        state=folder / "state" / output.stem,
        output=output,
    )
    tensors = storage.read_tensors(output)[0]
    # Of the schedule alone, and younger than the digests.
    tensors.pop("log_snr", None)
    return digest(tensors)


GROUPS: dict[str, tuple[Callable[[Path, str], str], tuple[str, ...]]] = {
    "images": (sampled, tuple(RUNS)),
    "edits": (edited, tuple(EDITS)),
    "translations": (translated, tuple(TRANSLATIONS)),
    "perturbations": (perturbed, ("dpmpp", "pndm")),
    "trajectories": (recorded, tuple(TRAJECTORIES)),
}
"""What makes a kind of result, and the names of its small versions."""


def digests(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Yield kind, name and digest of each result; `prepare` the folder first."""
    for kind, (make, names) in GROUPS.items():
        for name in names:
            yield kind, name, make(folder, name)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        prepare(Path(made))
        found: dict[str, Any] = {"key": key(Path(made))}
        for kind, name, value in digests(Path(made)):
            found.setdefault(kind, {})[name] = value
    KEPT.write_text(json.dumps(found, indent=2) + "\n")
