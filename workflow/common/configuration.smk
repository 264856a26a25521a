"""The configuration, the code, paths: what all input functions use."""

import json
from pathlib import Path

from snakemake.exceptions import WorkflowError

from clockwork_experiments.base import texts
from clockwork_experiments.config.load import SCALES, read_config
from clockwork_experiments.config.needs.entries import SMALL
from clockwork_experiments.config.needs.files import model_files

ROOT = Path(workflow.basedir)
if not (ROOT / "workflow").is_dir():
    ROOT = ROOT.parent  # It is workflow/Snakefile that was asked for.
# What is shipped is read from any folder as it is here.
for shipped in map(Path, ("resources/mini", "resources/paper/sources.lock.json")):
    if not shipped.exists() and (ROOT / shipped).exists():
        shipped.parent.mkdir(parents=True, exist_ok=True)
        shipped.symlink_to(ROOT / shipped)

try:
    resolved = read_config(config, ROOT)
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


def files_of(get_path):
    """Return an input function: the files of the model whose folder it names."""
    return lambda wildcards: model_files(config, get_path(wildcards))


def prompts_of(section, wildcard):
    """Return an input function for the prompts that an entry uses."""
    name = setting(section, wildcard, "dataset")
    return lambda wildcards: f"results/{wildcards.scale}/prompts/{name(wildcards)}.json"
