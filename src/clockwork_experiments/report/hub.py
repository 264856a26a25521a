"""Make folders that can be uploaded to a hub as they are, each with its model card.

A card of a hub is ``README.md`` with YAML in front of the text. What it says is read
from the folder: the kind of model from its configuration, what was measured from the
card that training wrote, from ``quality.json`` beside it, and from the results that the
card shows.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from clockwork_experiments.base import storage, texts
from clockwork_experiments.models import overlay

LIBRARY = "clockwork-diffusion"
LICENSE = "apache-2.0"

PIPELINES = {
    "StableDiffusionPipeline": "text-to-image",
    "StableDiffusionInstructPix2PixPipeline": "image-to-image",
    "StableSRPipeline": "image-to-image",
}
"""What a pipeline of a class is for, as the hub calls it."""

FILES = (
    ("open_clip_config.json", "open_clip", "zero-shot-image-classification"),
    ("preprocessor_config.json", "transformers", "image-feature-extraction"),
)
"""Files that tell other kinds: the file, the library that loads it, the task."""

NOT_THE_MODELS = ("renderings",)
"""What results say of other images, to compare with."""

_SHOWN = re.compile(r"<!-- (?:table: (?P<table>\S+)|end of table) -->\n+")
_MEASURED = re.compile(
    r"^## Measured\n(?P<rows>.*?)(?=^#|\Z)", re.MULTILINE | re.DOTALL
)
_ROW = re.compile(r"^\| (?P<name>[^|]+?) \| (?P<value>-?[\d.]+(?:e-?\d+)?) \|$", re.M)


@dataclass(frozen=True)
class HubSpec:
    """What a folder cannot say of itself.

    Attributes:
        name: The repository's name.
        owner: Who owns it.
        base: The repository that it was made from, of the same owner.
        data: What it was trained and measured on.
    """

    name: str
    owner: str
    base: str = ""
    data: str = "generated 64×64 scenes"


@dataclass(frozen=True)
class Made:
    """What a folder holds.

    Attributes:
        library: The library that loads it.
        task: What it is for, as the hub calls it.
        use: How to load it, in Python; empty if there is no short way.
    """

    library: str
    task: str
    use: str = ""


def what(folder: Path, place: str) -> Made:
    """Return what kind of model a folder holds.

    Args:
        folder: The folder.
        place: What its users call it: the repository's id.
    """
    index, config = folder / "model_index.json", folder / "config.json"
    for name, library, task in FILES:
        if (folder / name).is_file():
            return Made(library, task)
    if index.is_file():
        kind = texts.read_json(index)["_class_name"]
        source = "clockwork_diffusion.stablesr.pipeline"
        source = source if kind == "StableSRPipeline" else "diffusers"
        library = LIBRARY if kind == "StableSRPipeline" else "diffusers"
        use = f'from {source} import {kind}\n\npipe = {kind}.from_pretrained("{place}")'
        return Made(library, PIPELINES[kind], use)
    kind = texts.read_json(config).get("_class_name", "") if config.is_file() else ""
    if kind == "ControlNetModel":
        use = (
            f'from diffusers import {kind}\n\nmodel = {kind}.from_pretrained("{place}")'
        )
        return Made("diffusers", "image-to-image", use)
    if kind:
        use = (
            "from clockwork_diffusion import clockwork, load_adaptor\n\n"
            f'adaptor = load_adaptor("{place}")\n'
            "with clockwork(pipe, clock=2, adaptor=adaptor):\n"
            "    images = pipe(prompt).images"
        )
        return Made(LIBRARY, "text-to-image", use)
    tasks = {
        "judge": "object-detection",
        "features": "image-feature-extraction",
    }
    return Made(LIBRARY, tasks.get(folder.name, "image-to-image"))


def measured(folder: Path, root: Path) -> list[dict[str, Any]]:
    """Return what was measured of a model, each with type, name and value.

    Args:
        folder: Its folder.
        root: The checkout, where the results lie that its card shows.
    """
    card = (folder / "README.md").read_text(encoding="utf-8")
    found: dict[str, float] = {}
    section = _MEASURED.search(card)
    for row in _ROW.finditer(section["rows"] if section else ""):
        found[row["name"]] = float(row["value"])
    beside = [folder / "quality.json"]
    beside += [
        (root / match["table"]).with_suffix(".json")
        for match in _SHOWN.finditer(card)
        if match["table"]
    ]
    for path in filter(Path.is_file, beside):
        found |= _values(texts.read_json(path))
    return [
        {"type": _key(name), "name": name, "value": round(value, 6)}
        for name, value in found.items()
    ]


def _values(read: Any, name: str = "") -> dict[str, float]:
    """Return the values of results, named by their keys; counts are whole numbers."""
    if not isinstance(read, dict):
        return {name: read} if isinstance(read, float) else {}
    if "value" in read:
        return {f"{name} (n {read['n']})" if "n" in read else name: read["value"]}
    found: dict[str, float] = {}
    for key, value in read.items():
        if key not in NOT_THE_MODELS:
            found |= _values(value, f"{name} {key}".strip())
    return found


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def card(folder: Path, spec: HubSpec, root: Path) -> str:
    """Return the text of a folder's card: the front matter, then its own card.

    Args:
        folder: The folder.
        spec: What it cannot say of itself.
        root: The checkout.
    """
    place = f"{spec.owner}/{spec.name}"
    made = what(folder, place)
    front: dict[str, Any] = {
        "license": LICENSE,
        "library_name": made.library,
        "pipeline_tag": made.task,
        "tags": [LIBRARY, "clockwork"],
    }
    if spec.base:
        front["base_model"] = f"{spec.owner}/{spec.base}"
        adapted = made.library == LIBRARY and "load_adaptor" in made.use
        front["base_model_relation"] = "adapter" if adapted else "finetune"
    metrics = measured(folder, root)
    if metrics:
        result = {
            "task": {"type": made.task},
            "dataset": {"name": spec.data, "type": _key(spec.data)},
            "metrics": metrics,
        }
        front["model-index"] = [{"name": spec.name, "results": [result]}]
    text = _SHOWN.sub("", (folder / "README.md").read_text(encoding="utf-8"))
    if made.use:
        text = f"{text.rstrip()}\n\n## Use\n\n```python\n{made.use}\n```\n"
    shown = yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=88)
    return f"---\n{shown}---\n\n{text}"


def make_folder(folder: Path, spec: HubSpec, root: Path, output: Path) -> None:
    """Make a copy of a model's folder with a card for the hub; weights are all there.

    Args:
        folder: The model.
        spec: What it cannot say of itself.
        root: The checkout.
        output: The folder to make; what is there is replaced.
    """
    text = card(folder, spec, root)
    if output.exists():
        shutil.rmtree(output)
    if overlay.is_over(folder):
        overlay.unpack(folder, output)
    else:
        shutil.copytree(folder, output)
    storage.write_text(output / "README.md", text)
