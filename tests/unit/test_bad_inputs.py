"""What people bring and cannot be used ends in one line, which `bad_inputs.yaml` lists.

No entry may pass, end in an error of another kind, or in a line that is not the list's.
"""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from clockwork_experiments.base import texts
from clockwork_experiments.data import captions, edit_sets, pair_sets, pictures

ROOT = Path(__file__).parents[2]
LIST = Path(__file__).with_name("bad_inputs.yaml")
BAD = texts.read_yaml(LIST)


def read_pairs(folder: Path, spec: dict[str, Any]) -> None:
    given = {"size": 8, "convert": True, **spec}
    chosen = pair_sets.PairSetSpec("inpainting", "folder", path=str(folder), **given)
    for part in pair_sets.picture_parts(pair_sets.read_list(chosen), chosen).values():
        list(part.parts)


def load_model(folder: Path, spec: dict[str, Any]) -> None:
    from clockwork_experiments.models import loading

    loading.load_pipeline(folder)


def load_clip(folder: Path, spec: dict[str, Any]) -> None:
    from clockwork_experiments.models import encoders

    encoders.load_clip(folder)


READERS: dict[str, Callable[[Path, dict[str, Any]], Any]] = {
    "captions": lambda folder, spec: captions.check(
        folder, spec.get("count", 1), opened=True
    ),
    "coco": lambda folder, spec: captions.read(folder),
    "pairs": read_pairs,
    "edits": lambda folder, spec: edit_sets.read_layout(folder, 8, convert=True),
    "image": lambda folder, spec: pictures.read(folder / "image"),
    "json": lambda folder, spec: texts.read_json(folder / "a.json"),
    "model": load_model,
    "clip": load_clip,
}
MODELS = {"model": "stable-diffusion", "clip": "clip"}
"""Our small models, by the reader that is given a copy with something changed."""
CONFIGS = {
    "tokenizer": "tokenizer/tokenizer_config.json",
    "clip tokenizer": "tokenizer_config.json",
    "clip .": "open_clip_config.json",
}
"""Where the settings of a part stand, if not in its config.json."""


def picture(name: str) -> bytes:
    """Return a file of the kind that a name says, 8×8 but for what is wrong with it."""
    what, _, kind = name.partition(".")
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    image, options = Image.fromarray(noise), {}
    if what == "animated":
        options = {"save_all": True, "append_images": [image.rotate(90)]}
    elif what in ("floats", "nan"):
        values = np.linspace(0, 255, 64, dtype=np.float32).reshape(8, 8)
        values[0, 0] = np.nan if what == "nan" else 0
        image = Image.fromarray(values)
    elif what == "int32":
        image = Image.fromarray(noise[..., 0].astype(np.int32))
    file = io.BytesIO()
    form = {"jpg": "jpeg", "": "png"}.get(kind, kind)
    image.save(file, form, **options)
    data = file.getvalue()
    if what == "truncated":
        return data[: len(data) * 2 // 3]
    if what == "flipped":
        middle = data.index(b"IDAT") + 20
        return data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]
    return data


def write(folder: Path, files: dict[str, Any]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        match content:
            case str():
                path.write_bytes(content.encode())
            case {"latin1": text}:
                path.write_bytes(text.encode("latin-1"))
            case {"repeat": text, "times": times}:
                path.write_text(text * times)
            case {"picture": kind}:
                path.write_bytes(picture(kind))


def spoil(folder: Path, reader: str, entry: dict[str, Any]) -> None:
    """Change a copy of a model as an entry says."""
    for part, settings in entry.get("config", {}).items():
        place = CONFIGS.get(f"{reader} {part}") or CONFIGS.get(part)
        path = folder / (place or f"{part}/config.json")
        path.write_text(json.dumps(merged(json.loads(path.read_text()), settings)))
    for part, change in entry.get("tensors", {}).items():
        (path,) = (folder / part).glob("*.safetensors")
        tensors = load_file(path)
        ((what, name),) = change.items()
        value = tensors.pop(name, np.zeros(1, np.float16))
        match what:
            case "rename":
                tensors[f"other.{name}"] = value
            case "cut":
                tensors[name] = value[:1].copy()
            case "whole":
                tensors[name] = value.astype(np.int8)
            case "nan" | "inf":
                value = np.array(value)
                value.reshape(-1)[0] = float(what)
                tensors[name] = value
            case "add":
                tensors[name] = value
        save_file(tensors, path, {"format": "pt"})
    for old, new in entry.get("moved", {}).items():
        (folder / old).rename(folder / new)
    for name in entry.get("gone", ()):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if "tokens" in entry:
        path = folder / "tokenizer" / "tokenizer.json"
        known = json.loads(path.read_text())
        for word in entry["tokens"]:
            place = 1 + max(known["model"]["vocab"].values())
            token = {"id": place, "content": word, "special": False}
            known["added_tokens"].append(
                token
                | dict.fromkeys(
                    ("single_word", "lstrip", "rstrip", "normalized"), False
                )
            )
        path.write_text(json.dumps(known))


def merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Lay settings over others, at any depth."""
    inner = {
        key: merged(one[key], value)
        for key, value in other.items()
        if isinstance(value, dict) and isinstance(one.get(key), dict)
    }
    return {**one, **other, **inner}


@pytest.mark.parametrize(
    ("reader", "entry"),
    [
        pytest.param(reader, entry, id=f"{reader}: {entry['name']}")
        for reader, entries in BAD.items()
        for entry in entries
    ],
)
def test_it_ends_in_its_line(tmp_path, reader, entry):
    folder = tmp_path / "given"
    if reader in MODELS:
        shutil.copytree(ROOT / "resources" / "mini" / MODELS[reader], folder)
        (folder / "SHA256SUMS").unlink()
    else:
        folder.mkdir()
    write(folder, entry.get("files", {}))
    spoil(folder, reader, entry)
    with pytest.raises(ValueError) as caught:
        READERS[reader](folder, entry.get("spec", {}))
    line = str(caught.value)
    assert "\n" not in line
    line = line.replace(f"{folder}/", "").replace(str(folder), "")
    wanted = entry["line"]
    if wanted.endswith("…"):
        assert line.startswith(wanted[:-1])
    else:
        assert line == wanted


def test_the_names_of_the_list_are_its_own():
    for reader, entries in BAD.items():
        names = [entry["name"] for entry in entries]
        assert len(set(names)) == len(names), reader


def test_a_merge_may_name_a_key_again_and_deep_files_end_in_a_line(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("b: &b {x: 1, y: 2}\nc: &c {<<: *b, y: 3}\nd: {<<: *c, x: 4}\n")
    assert texts.read_yaml(path)["d"] == {"x": 4, "y": 3}
    path.write_text("[" * 200_000 + "]" * 200_000)
    with pytest.raises(ValueError, match=r"a\.yaml is nested too deeply"):
        texts.read_yaml(path)
