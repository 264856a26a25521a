"""Files of models and data sets, and the options that name them to a step."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from clockwork_experiments.config.needs.entries import (
    Config,
    Wildcards,
    chosen,
    entries,
    entry,
)
from clockwork_experiments.config.needs.fetching import manifest_of

ADAPTOR_FILES = ("config.json", "diffusion_pytorch_model.safetensors", "SHA256SUMS")
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""Suffixes of what is no text in a user's folder."""


@dataclass(frozen=True)
class Need:
    """What a step reads under one name.

    Attributes:
        files: What is watched: an edit of one runs the step again.
        path: What the step's option of that name says; the files, if empty.
        more: Further words of the command line that go with it.
        hidden: Whether it has no option.
    """

    files: tuple[str, ...]
    path: str = ""
    more: tuple[str, ...] = ()
    hidden: bool = False


Needs = Mapping[str, Need]


def inputs(needs: Needs) -> dict[str, list[str]]:
    """Return the files of needs by name, as a rule's named inputs."""
    return {name: [*need.files] for name, need in needs.items() if need.files}


def options(needs: Needs) -> str:
    """Return the part of a command line that names them, quoted for a shell."""
    words: list[str] = []
    for name, need in needs.items():
        if not need.hidden:
            named = [need.path] if need.path else [*need.files]
            words += [f"--{name.replace('_', '-')}", *named]
        words += need.more
    return shlex.join(words)


def is_made(path: str | Path) -> bool:
    """Tell whether a rule makes a folder or file, rather than a user or a fetch."""
    return Path(path).parts[:1] == ("results",)


def model_files(config: Config, path: str) -> list[str]:
    """Return the files of a model, by its folder or file.

    Files have checksums, so that touching them reruns nothing; folders have none. Of a
    model that a rule makes, the list of checksums stands for all files, and of one that
    is fetched, its manifest.
    """
    folder = Path(path)
    brought = manifest_of(config, folder)
    if brought:
        return brought
    if is_made(folder):
        # Of a weight file, the checksums beside it.
        made = folder.parent if folder.suffix == ".pth" else folder
        return [str(made / "SHA256SUMS")]
    if not folder.is_dir():
        return [str(folder)]
    return [file for file in files_within(folder) if Path(file).name != "README.md"]


def files_within(folder: Path) -> list[str]:
    """Return all files in a folder and below, sorted, but for hidden ones."""
    found: list[str] = []
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        shown = (os.path.join(here, name) for name in files if name[0] != ".")
        found += filter(os.path.isfile, shown)
    return sorted(found)


def model(config: Config, path: str) -> Need:
    """Return what a step reads of a model."""
    return Need(tuple(model_files(config, path)), path)


def own_files(config: Config, path: str, *, made: str, texts: bool = False) -> Need:
    """Return what stands for the folder of a data set, which has no option.

    Args:
        config: The configuration.
        path: The folder.
        made: The list in it by which a folder is known that a rule makes.
        texts: Of a user's folder, all files but images; otherwise all.
    """
    if is_made(path):
        return Need((f"{path}/{made}",), hidden=True)
    brought = manifest_of(config, path)
    if brought:
        return Need(tuple(brought), hidden=True)
    folder = Path(path)
    if folder.is_file():
        return Need((path,), hidden=True)
    found: Iterable[str] = files_within(folder) if folder.is_dir() else ()
    if texts:
        found = [file for file in found if Path(file).suffix.lower() not in IMAGES]
    # What there is not, Snakemake names.
    return Need(tuple(found) or (f"{path}/{made}",), hidden=True)


def shards(
    config: Config, kind: str, scale: str, dataset: str, *names: str
) -> list[str]:
    """Return the files of a kind of runs on a data set, or of the data set itself."""
    count = entry(config, scale, "datasets", dataset)["shards"]
    return [
        f"results/{scale}/{kind}/{name}/{index:03d}.safetensors"
        for name in names or (dataset,)
        for index in range(count)
    ]


def shard_index(config: Config, wildcards: Wildcards) -> int:
    """Return the index of a job's shard, from 0."""
    return int(wildcards.shard)


def encoder(config: Config, scale: str, name: str) -> dict[str, str]:
    """Return the settings of one of a scale's scoring networks."""
    found: dict[str, str] = entry(config, scale, "encoders", name)
    return found


def encoder_path(config: Config, scale: str, name: str) -> str:
    """Return the folder or file of one of a scale's scoring networks."""
    return encoder(config, scale, name)["path"]


def encoder_need(config: Config, scale: str, name: str) -> Need:
    """Return what a step reads of such a network whose kind it is told."""
    found = encoder(config, scale, name)
    path = found["path"]
    kind = (f"--{name}-kind", found["kind"])
    return Need(tuple(model_files(config, path)), path, kind)


def judge_needs(
    config: Config, scale: str, found: Mapping[str, object]
) -> dict[str, Need]:
    """Return the judge of scenes, for a set that shows some; nothing for others."""
    judge = entries(config, scale, "encoders").get("judge")
    if judge is None or "path" in found:
        return {}
    return {"judge": model(config, judge["path"])}


def clip_path(config: Config, wildcards: Wildcards) -> str:
    """Return the folder of the scale's CLIP."""
    return encoder_path(config, wildcards.scale, "clip")


def clip_files(config: Config, wildcards: Wildcards) -> list[str]:
    """Return its files."""
    return model_files(config, clip_path(config, wildcards))


def frechet_path(config: Config, wildcards: Wildcards) -> str:
    """Return the folder or file of the network behind the Fréchet distance."""
    return encoder_path(config, wildcards.scale, "frechet")


def frechet_files(config: Config, wildcards: Wildcards) -> list[str]:
    """Return its files."""
    return model_files(config, frechet_path(config, wildcards))


def frechet_kind(config: Config, wildcards: Wildcards) -> str:
    """Return the kind of that network."""
    return encoder(config, wildcards.scale, "frechet")["kind"]


def text_channels(config: Config, scale: str) -> int:
    """Return the width of a scale's CLIP's pooled text embedding."""
    return int(encoder(config, scale, "clip")["width"])


def pipeline_path(config: Config, scale: str, name: str) -> str:
    """Return the folder of one of a scale's text-to-image pipelines."""
    path: str = entry(config, scale, "models", name)["path"]
    return path


def pipeline(config: Config, scale: str, name: str) -> Need:
    """Return what a step reads of such a pipeline."""
    return model(config, pipeline_path(config, scale, name))


def prompts_file(scale: str, dataset: str) -> str:
    """Return the prompts of a data set."""
    return f"results/{scale}/prompts/{dataset}.json"


def pair_files(scale: str, name: str) -> tuple[str, str]:
    """Return the pairs of a set to translate: their list, and their images."""
    pairs = f"results/{scale}/pairs/{name}"
    return f"{pairs}.json", f"{pairs}.safetensors"


def adaptor_path(scale: str, name: str) -> str:
    """Return the folder of a learned adaptor."""
    return f"results/{scale}/adaptors/{name}"


def adaptor_files(scale: str, name: str) -> list[str]:
    """Return the files of a learned adaptor."""
    return [f"{adaptor_path(scale, name)}/{file}" for file in ADAPTOR_FILES]


def is_learned(config: Config, scale: str, name: str) -> bool:
    """Tell whether an adaptor has weights."""
    return "model" in entry(config, scale, "adaptors", name)


def learned_adaptor(config: Config, scale: str, name: str | None) -> Needs:
    """Return a learned adaptor and the CLIP that pools its prompts; or nothing."""
    if not name or not is_learned(config, scale, name):
        return {}
    return {
        "adaptor": Need(tuple(adaptor_files(scale, name)), adaptor_path(scale, name)),
        "clip": model(config, encoder_path(config, scale, "clip")),
    }


def adaptor_kind(config: Config, scale: str, name: str | None) -> str:
    """Return the kind of an adaptor, which settings do not say where it is learned."""
    adaptor = entry(config, scale, "adaptors", name) if name else {}
    kind: str = adaptor.get("spec", adaptor).get("kind", "")
    return kind


def light_pass(config: Config, scale: str, name: str | None) -> dict[str, str]:
    """Return what light steps run, as the steps take it; nothing without a name."""
    if not name:
        return {}
    adaptor = entry(config, scale, "adaptors", name)
    if adaptor.get("kind") == "branch":
        return chosen(adaptor, "branch")
    cut = chosen(adaptor.get("spec", adaptor), "cut")
    return cut if is_learned(config, scale, name) else {**cut, "kind": adaptor["kind"]}
