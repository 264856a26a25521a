"""Sets of pairs: from scenes, from folders, and back from disk."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from peaks import needs_proc, peak_mb
from PIL import Image

from clockwork_experiments.base import storage
from clockwork_experiments.data import canny, datasets, pair_sets
from clockwork_experiments.data.pair_sets import PairSet, PairSetSpec
from clockwork_experiments.generate.tasks import TASKS
from clockwork_experiments.mini import restorer
from clockwork_experiments.models import mini
from clockwork_experiments.steps import prepare_images, prepare_pairs
from clockwork_experiments.world import pairs


def prepare(output: Path, **spec) -> tuple[PairSet, torch.Tensor, torch.Tensor | None]:
    prepare_pairs.prepare_pairs(spec=json.dumps(spec), output=output)
    found = pair_sets.read_set(output)
    return found, *pair_sets.read_images(output.with_suffix(".safetensors"), found)


def picture(path: Path, seed: int, size: int = 32, mode: str = "RGB") -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return pixels


@pytest.fixture
def folder(tmp_path) -> Path:
    for index in range(3):
        picture(tmp_path / "inputs" / "cats" / f"{index}.png", index)
        picture(tmp_path / "targets" / f"{index}.png", 10 + index)
    return tmp_path


def write_list(folder: Path, *lines: object) -> None:
    text = "\n".join(
        line if isinstance(line, str) else json.dumps(line) for line in lines
    )
    (folder / "pairs.jsonl").write_text(text + "\n", encoding="utf-8")


def edits(count: int = 3, **changed) -> list[dict]:
    return [
        {
            "input": f"cats/{index}.png",
            "target": f"{index}.png",
            "prompt": f"make it {index}",
            "source_caption": "a cat",
            "target_caption": f"cat number {index}",
            "kind": "style",
            **changed,
        }
        for index in range(count)
    ]


def tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)


# --- scenes ---------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_scenes_become_a_set(tmp_path, task):
    settings, restore = {}, None
    if task == "synthesis":
        network = mini.Restorer(8, 1)
        mini.save(network, tmp_path / "restorer")
        network = mini.load(mini.Restorer, tmp_path / "restorer")
        settings["restorer"] = str(tmp_path / "restorer")
        restore = partial(restorer.restore, network)
    chosen = {"task": task, "source": "scenes", "split": "test", "count": 3}
    found, inputs, targets = prepare(
        tmp_path / "set.json", **chosen, offset=7, **settings
    )
    made = pairs.scene_pairs(task, "test", 3, 7, restore)
    assert found.task == task
    assert found.ids == ("scene_1100007", "scene_1100008", "scene_1100009")
    assert found.prompts == made.prompts
    assert found.source_captions == made.source_captions
    assert found.target_captions == made.target_captions
    assert found.kinds == made.kinds
    assert torch.equal(inputs, made.inputs) and torch.equal(targets, made.targets)


# --- folders --------------------------------------------------------------------------


def test_a_folder_becomes_a_set(folder, tmp_path):
    write_list(folder, *edits())
    found, inputs, targets = prepare(
        tmp_path / "set.json", task="edit", source="folder", path=str(folder), size=32
    )
    assert found.ids == ("cats-0", "cats-1", "cats-2")
    assert found.prompts == ("make it 0", "make it 1", "make it 2")
    assert found.target_captions[2] == "cat number 2" and found.kinds[0] == "style"
    for index in range(3):
        assert torch.equal(inputs[index], tensor(picture(tmp_path / "x.png", index)))
        other = tensor(picture(tmp_path / "x.png", 10 + index))
        assert torch.equal(targets[index], other)


@pytest.mark.parametrize("target", [None, "1.png"])
def test_captioned_images_are_the_targets_of_text(folder, tmp_path, target):
    line = {"input": "cats/0.png", "prompt": "a cat"}
    write_list(folder, line if target is None else {**line, "target": target})
    found, inputs, targets = prepare(
        tmp_path / "set.json", task="text", source="folder", path=str(folder), size=32
    )
    assert found.prompts == found.target_captions == ("a cat",)
    assert inputs.shape == (1, 3, 32, 32) and not inputs.any()
    seed = 0 if target is None else 11
    assert torch.equal(targets[0], tensor(picture(tmp_path / "x.png", seed)))


def test_lines_are_counted_from_the_offset(folder, tmp_path):
    write_list(folder, *edits(), "", *edits(1))
    spec = {"task": "edit", "source": "folder", "path": str(folder), "size": 32}
    found, _, _ = prepare(tmp_path / "set.json", **spec, count=2, offset=2)
    assert found.ids == ("cats-2", "cats-0")
    found, _, _ = prepare(tmp_path / "set.json", **spec)
    assert found.ids == ("cats-0", "cats-1", "cats-2", "cats-0.2")


def test_edges_are_made_of_plain_images_which_become_the_targets(folder, tmp_path):
    write_list(folder, {"input": "cats/0.png", "prompt": "a cat"})
    spec = {"task": "control", "source": "folder", "path": str(folder), "size": 32}
    found, inputs, targets = prepare(tmp_path / "set.json", **spec, canny=True)
    plain = tensor(picture(tmp_path / "x.png", 0))[None]
    assert torch.equal(targets, plain)
    assert torch.equal(inputs, canny.edge_images(plain))
    assert found.source_captions == found.target_captions == ("a cat",)
    _, inputs, targets = prepare(tmp_path / "set.json", **spec)
    assert torch.equal(inputs, plain) and targets is None


def test_small_inputs_are_enlarged(folder, tmp_path):
    picture(folder / "inputs" / "small.png", 5, size=8)
    write_list(folder, {"input": "small.png", "target": "0.png"})
    spec = {"task": "restoration", "source": "folder", "path": str(folder)}
    _, inputs, targets = prepare(tmp_path / "s.json", **spec, size=32, input_size=8)
    assert inputs.shape == targets.shape == (1, 3, 32, 32)
    small = tensor(picture(tmp_path / "x.png", 5, size=8)).float()
    means = inputs.float().unflatten(2, (8, 4)).unflatten(4, (8, 4)).mean((3, 5))
    assert (means[0] - small).abs().mean() < 20


def test_images_are_converted_on_request_alone(folder, tmp_path):
    picture(folder / "inputs" / "grey.png", 5, size=48, mode="L")
    write_list(folder, {"input": "grey.png"}, {"input": "cats/0.png"})
    spec = {"task": "inpainting", "source": "folder", "path": str(folder), "size": 32}
    with pytest.raises(ValueError, match=r"1 of 2 images .*grey.png \(48×48 L\)"):
        prepare(tmp_path / "set.json", **spec)
    _, inputs, _ = prepare(tmp_path / "set.json", **spec, convert=True)
    assert inputs.shape == (2, 3, 32, 32)


@needs_proc
def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path):
    picture(tmp_path / "inputs" / "0.png", 0, size=256)
    spec = {"task": "control", "source": "folder", "path": str(tmp_path), "size": 256}
    peaks = []
    for count in (64, 512):
        write_list(tmp_path, *[{"input": "0.png", "prompt": "a cat"}] * count)
        chosen = json.dumps({**spec, "canny": True})
        output = tmp_path / f"{count}.json"
        peaks.append(
            peak_mb("prepare_pairs", "--spec", chosen, "--output", str(output))
        )
    # Inputs and targets are 24 MB at first, then 192 MB.
    assert peaks[1] - peaks[0] < 30, peaks
    found, _ = pair_sets.image_rows(
        output.with_suffix(".safetensors"), pair_sets.read_set(output)
    )
    assert len(found) == 512


@pytest.mark.parametrize(
    ("task", "lines", "message"),
    [
        ("edit", [], "pairs.jsonl lists no pair"),
        ("edit", ["{"], "line 1 is not valid JSON"),
        ("edit", ["3"], "line 1 is not a mapping: 3"),
        ("edit", [{"inputs": "0.png"}], "line 1: unknown key 'inputs'; known are inp"),
        ("edit", [{"input": 3}], "line 1: input 3 is not a text"),
        ("edit", edits(1, prompt=" "), "line 1 lacks prompt, which task 'edit' needs"),
        ("edit", edits(1, source_caption=""), "line 1 lacks source_caption"),
        ("edit", edits(1, target_caption="a cat"), "line 1: the captions do not diff"),
        ("control", [{"input": "cats/0.png"}], "lacks prompt, which task 'control'"),
        ("text", [{"input": "cats/0.png"}], "lacks prompt, which task 'text'"),
        ("synthesis", edits(1), "line 1 has a prompt, and task 'synthesis' takes none"),
        ("inpainting", [{"target": "0.png"}], "line 1 lacks input"),
        ("inpainting", [{"input": "../0.png"}], "line 1: input '../0.png' leaves its"),
        ("inpainting", [{"input": "/0.png"}], "line 1: input '/0.png' leaves its"),
        ("edit", [*edits(2), *edits(1, target="")], "2 of 3 lines have a target"),
        ("edit", edits(1, input="dog.png"), "1 images are missing: .*inputs/dog.png"),
        ("edit", edits(1, target="dog.png"), "1 images are missing: .*targets/dog.pn"),
    ],
)
def test_wrong_lists_are_named(folder, tmp_path, task, lines, message):
    write_list(folder, *lines)
    with pytest.raises(ValueError, match=message) as caught:
        prepare(
            tmp_path / "s.json", task=task, source="folder", path=str(folder), size=32
        )
    assert "\n" not in str(caught.value)
    assert str(folder / "pairs.jsonl") in str(caught.value)
    assert not (tmp_path / "s.json").exists()


def test_folders_that_are_not_there_are_named(tmp_path):
    spec = {"task": "edit", "source": "folder", "size": 32}
    with pytest.raises(ValueError, match="none is not a folder"):
        prepare(tmp_path / "set.json", **spec, path=str(tmp_path / "none"))
    with pytest.raises(ValueError, match=r"pairs.jsonl does not exist"):
        prepare(tmp_path / "set.json", **spec, path=str(tmp_path))
    write_list(tmp_path, *edits())
    with pytest.raises(ValueError, match="lists 3 pairs, and 5 are needed"):
        prepare(tmp_path / "s.json", **spec, path=str(tmp_path), count=2, offset=3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "draw"}, "task 'draw' is not one of edit, control"),
        ({"source": "web"}, "source 'web' is not scenes or folder"),
        ({"count": 0}, "count 0 is less than 1"),
        ({"count": -1}, "is below 0"),
        ({"size": 64}, "size is for source 'folder'"),
        ({"canny": True}, "canny is for source 'folder'"),
        ({"restorer": "net"}, "synthesis of scenes and a restorer need each other"),
        ({"task": "synthesis"}, "synthesis of scenes and a restorer need each other"),
        ({"source": "folder"}, "source 'folder' needs a path and a size"),
        (
            {"source": "folder", "path": "x", "size": 64, "canny": True},
            "canny is for task 'control', not 'edit'",
        ),
        (
            {"source": "folder", "path": "x", "size": 64, "input_size": 128},
            "input_size 128 is not between 0 and size 64",
        ),
        (
            {"source": "folder", "path": "x", "size": 64, "restorer": "net"},
            "a restorer is for source 'scenes'",
        ),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        PairSetSpec(**{"task": "edit", "source": "scenes", "count": 3, **settings})


# --- prepared sets --------------------------------------------------------------------


def test_damaged_sets_are_named(tmp_path):
    path = tmp_path / "set.json"
    pair = {"id": "a", "prompt": "", "source_caption": "", "target_caption": ""}
    for data, message in (
        ([], "is not a mapping of task and pairs"),
        ({"task": "edit", "pairs": {}}, "pairs is not a list"),
        ({"task": "edit", "pairs": [pair]}, r"pairs\[0\] is not a mapping of texts"),
        ({"task": "edit", "pairs": []}, "the set has no pair"),
        ({"task": "x", "pairs": [{**pair, "kind": ""}]}, "task 'x' is not one of"),
        ({"task": "edit", "pairs": [{**pair, "kind": ""}] * 2}, "an id is repeated"),
    ):
        storage.write_json(path, data)
        with pytest.raises(ValueError, match=message) as caught:
            pair_sets.read_set(path)
        assert str(path) in str(caught.value)


def test_images_of_another_set_are_refused(tmp_path):
    found = PairSet("inpainting", ("a", "b"), *[("", "")] * 4)
    path = tmp_path / "set.safetensors"
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    storage.write_tensors(path, {"inputs": images, "targets": images[..., :4]})
    with pytest.raises(ValueError, match="targets are .*not U8"):
        pair_sets.read_images(path, found)
    storage.write_tensors(path, {"inputs": images[:1]})
    with pytest.raises(ValueError, match=r"inputs are .*not U8 \(2, 3"):
        pair_sets.read_images(path, found)
    storage.write_tensors(path, {"images": images})
    with pytest.raises(ValueError, match="lacks the tensor 'inputs'"):
        pair_sets.read_images(path, found)


@pytest.mark.parametrize("step", ["prepare_pairs", "prepare_images"])
def test_every_step_reads_photographs_upright_and_scales_sixteen_bits(tmp_path, step):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    half = np.zeros((32, 32, 3), np.uint8)
    half[16:] = 255
    ramp = np.linspace(0, 65535, 1024).astype(np.uint16).reshape(32, 32)
    for place in ("inputs", "images"):
        (tmp_path / place).mkdir()
        Image.fromarray(half).save(tmp_path / place / "1.png", exif=exif)
        Image.fromarray(ramp).save(tmp_path / place / "2.png")
    (tmp_path / "prompts.txt").write_text("a\nb\n")
    write_list(tmp_path, {"input": "1.png"}, {"input": "2.png"})
    given = {"source": "folder", "path": str(tmp_path), "size": 32, "count": 2}
    if step == "prepare_pairs":
        spec = {**given, "task": "inpainting", "convert": True}
        _, images, _ = prepare(tmp_path / "set.json", **spec)
    else:
        path = tmp_path / "0.safetensors"
        prepare_images.prepare_images(
            spec=datasets.DatasetSpec(**given), shard=0, shards=1, output=path
        )
        images = storage.read_tensors(path)[0]["images"]
    assert images[0].float().mean((0, 1))[[0, -1]].tolist() == [255, 0]
    assert images[1, 0, 0, 0] == 0 and images[1, 0, -1, -1] == 255
    assert abs(images[1].float().mean() - 127.5) < 0.1
