"""The configuration, the code, paths: what all input functions use."""

import json
from pathlib import Path

from snakemake.exceptions import WorkflowError

from clockwork_experiments.base import texts
from clockwork_experiments.config.load import SCALES, read_config

try:
    resolved = read_config(config, Path(workflow.basedir))
except ValueError as error:
    raise WorkflowError(str(error)) from None
config.clear()
config.update(resolved)


def entries(scale, section):
    """Return a section of the configuration, ids to settings."""
    return config[scale].get(section, {})


def entry(scale, section, name):
    """Return one entry of the configuration, or say which there are."""
    known = entries(scale, section)
    if name not in known:
        listed = ", ".join(known) or "none"
        raise WorkflowError(f"{scale}: {name!r} is not one of the {section} ({listed})")
    return known[name]


def shards(kind, scale, dataset, *names):
    """Return the files of a kind of runs on a data set, or of the data set itself."""
    count = entry(scale, "datasets", dataset)["shards"]
    return [
        f"results/{scale}/{kind}/{name}/{index:03d}.safetensors"
        for name in names or (dataset,)
        for index in range(count)
    ]


def setting(section, wildcard, *keys):
    """Return an input or params function for an entry, or a value deep within it."""

    def get(wildcards):
        value = entry(wildcards.scale, section, wildcards[wildcard])
        for key in keys:
            value = value[key]
        return value

    return get


def spec(section, wildcard, *keys):
    """Return a params function for the same, as JSON text."""
    get = setting(section, wildcard, *keys)
    return lambda wildcards: json.dumps(get(wildcards))


def via(section, wildcard, key, target):
    """Return a function for the entry of ``target`` that an entry names by ``key``."""
    get = setting(section, wildcard, key)
    return lambda wildcards: entry(wildcards.scale, target, get(wildcards))


def model_path(section, wildcard):
    """Return an input function for the folder of the model that an entry uses."""
    model = via(section, wildcard, "model", "models")
    return lambda wildcards: model(wildcards)["path"]


def is_made(path):
    """Tell whether a rule makes a folder or file, rather than a user or a fetch."""
    return Path(path).parts[:1] == ("results",)


def files_of(get_path):
    """Return an input function: the files of the model whose folder it names.

    Files have checksums, so that touching them reruns nothing; folders have none. Of a
    model that a rule makes, the list of checksums stands for all files, and of one that
    is fetched, its manifest.
    """

    def get(wildcards):
        folder = Path(get_path(wildcards))
        brought = manifest_of(folder)
        if brought:
            return brought
        if is_made(folder):
            # Of a weight file, the checksums beside it.
            made = folder.parent if folder.suffix == ".pth" else folder
            return [str(made / "SHA256SUMS")]
        if not folder.is_dir():
            return [str(folder)]
        return sorted(
            str(path)
            for path in folder.rglob("*")
            if path.is_file() and path.name != "README.md"
        )

    return get


def clip_path(wildcards):
    """Return the folder of the scale's CLIP."""
    return entry(wildcards.scale, "encoders", "clip")["path"]


def text_channels(wildcards):
    """Return the width of that CLIP's pooled text embedding."""
    return entry(wildcards.scale, "encoders", "clip")["width"]


def prompts_of(section, wildcard):
    """Return an input function for the prompts that an entry uses."""
    name = setting(section, wildcard, "dataset")
    return lambda wildcards: f"results/{wildcards.scale}/prompts/{name(wildcards)}.json"


def shard_count(section, wildcard):
    """Return a params function for the number of shards of an entry's prompts."""
    dataset = via(section, wildcard, "dataset", "datasets")
    return lambda wildcards: dataset(wildcards)["shards"]


ADAPTOR_FILES = ("config.json", "diffusion_pytorch_model.safetensors", "SHA256SUMS")


def adaptor_path(scale, name):
    """Return the folder of a learned adaptor."""
    return f"results/{scale}/adaptors/{name}"


def adaptor_files(scale, name):
    """Return the files of a learned adaptor."""
    return [f"{adaptor_path(scale, name)}/{file}" for file in ADAPTOR_FILES]


def is_learned(scale, name):
    """Tell whether an adaptor has weights."""
    return "model" in entry(scale, "adaptors", name)


def adaptor_of(get):
    """Return an input function: the learned adaptor that settings name, and its CLIP.

    ``get`` returns the settings, as `setting` does; without such an adaptor, nothing.
    """

    def files(wildcards):
        name = get(wildcards).get("adaptor")
        if name is None or not is_learned(wildcards.scale, name):
            return {}
        return {
            "adaptor": adaptor_files(wildcards.scale, name),
            "clip": files_of(clip_path)(wildcards),
        }

    return files


def adaptor_options(wildcards, input):
    """Return the command-line options for the same."""
    if not hasattr(input, "adaptor"):
        return ""
    folder = Path(input.adaptor[0]).parent
    return f"--adaptor {folder} --clip {clip_path(wildcards)}"


def light_pass(scale, name):
    """Return what light steps run, as the steps take it; nothing without a name."""
    if not name:
        return {}
    adaptor = entry(scale, "adaptors", name)
    if adaptor.get("kind") == "branch":
        return {"branch": adaptor["branch"]}
    chosen = {"cut": adaptor.get("spec", adaptor)["cut"]}
    return chosen if is_learned(scale, name) else {**chosen, "kind": adaptor["kind"]}


def reference_of(scale, dataset):
    """Return the data set that a data set's Fréchet distances refer to, or itself."""
    return entry(scale, "datasets", dataset).get("reference", dataset)


def input_options(*names):
    """Return a params function: ``--name files`` for those inputs that there are."""

    def options(wildcards, input):
        return " ".join(
            f"--{name} {getattr(input, name)}" for name in names if hasattr(input, name)
        )

    return options
