"""COCO's archives become the folders that paper scale reads."""

import io
import json
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.data import captions, coco, datasets, pair_sets
from clockwork_experiments.data.coco import CocoSpec
from clockwork_experiments.steps import prepare_coco

SPLITS = {"val2017": "{:012d}.jpg", "val2014": "COCO_val2014_{:012d}.jpg"}


def picture(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (12, 9), shade).save(file, "JPEG")
    return file.getvalue()


def archives_of(folder: Path, split: str, ids: list[int]) -> dict[str, str]:
    """Write archives as COCO does, and return them as settings."""
    name = SPLITS[split].format
    images = [{"id": i, "file_name": name(i)} for i in ids]
    notes = [
        # The one of the lowest id comes last.
        {"id": 100 * i + rank, "image_id": i, "caption": f" shade {i}\nrank {rank} "}
        for i in ids
        for rank in (2, 1)
    ]
    paths = {"images": folder / f"{split}.zip", "annotations": folder / "notes.zip"}
    with zipfile.ZipFile(paths["images"], "w") as file:
        file.writestr(f"{split}/", "")
        for i in reversed(ids):
            file.writestr(f"{split}/{name(i)}", picture(i))
    with zipfile.ZipFile(paths["annotations"], "a") as file:
        content = {"images": images, "annotations": notes}
        file.writestr(f"annotations/captions_{split}.json", json.dumps(content))
        file.writestr(f"annotations/instances_{split}.json", "{}")
    return {"split": split, **{key: str(path) for key, path in paths.items()}}


@pytest.fixture
def made(tmp_path):
    """Return a function that makes a set of captions."""

    def make(split="val2017", ids=(7, 3, 250)) -> Path:
        folder = tmp_path / split
        settings = archives_of(tmp_path, split, list(ids))
        coco.prepare(CocoSpec(str(folder), **settings))
        return folder

    return make


def test_captions_and_images_are_in_the_order_of_names(made):
    folder = made()
    assert datasets.folder_prompts(folder, 3) == [
        f"shade {i} rank 1" for i in (3, 7, 250)
    ]
    assert captions.check(folder, 3, opened=True) == (3, 3)
    spec = datasets.DatasetSpec("folder", 3, path=str(folder), size=8)
    images = datasets.folder_images(spec, range(3))
    shades = images.float().mean(dim=(1, 2, 3))
    assert [round(float(shade)) for shade in shades] == [3, 7, 250]


def test_pairs_point_to_the_images(made, tmp_path):
    made("val2014", (3, 7, 9, 12))
    made("val2017", (7, 12))
    spec = CocoSpec(
        str(tmp_path / "pairs"),
        of=str(tmp_path / "val2014"),
        without=str(tmp_path / "val2017"),
    )
    coco.prepare(spec)
    listed = pair_sets.read_list(
        pair_sets.PairSetSpec(
            "control", "folder", path=spec.path, size=8, convert=True, canny=True
        )
    )
    assert listed.pairs.prompts == ("shade 3 rank 1", "shade 9 rank 1")
    assert [path.read_bytes() for path in listed.inputs] == [picture(3), picture(9)]
    # No copy, and the folder may be moved with what it is of.
    link = tmp_path / "pairs" / "inputs"
    assert link.is_symlink() and not link.readlink().is_absolute()


def run_step(spec: dict, output: Path, placed=False) -> dict:
    chosen = parse(CocoSpec, spec)
    prepare_coco.prepare_coco(output.stem, chosen, output, placed)
    return storage.read_json(output)


def test_the_manifest_says_whether_the_folder_was_made(tmp_path):
    settings = archives_of(tmp_path, "val2017", [1, 2])
    spec = {"path": str(tmp_path / "coco"), **settings}
    manifest = run_step(spec, tmp_path / "coco.json")
    assert manifest["made_from"] == [settings["images"], settings["annotations"]]
    assert manifest["others"]["count"] == 2
    assert set(manifest["files"]) == {"prompts.txt"}
    Path(settings["images"]).unlink()
    assert "made_from" not in run_step(spec, tmp_path / "coco.json", placed=True)
    (tmp_path / "coco" / "prompts.txt").write_text("one line\n")
    with pytest.raises(ValueError, match="holds 2 files"):
        run_step(spec, tmp_path / "coco.json", placed=True)


def test_what_a_killed_run_left_is_removed(made, tmp_path):
    left = tmp_path / ".val2017.123.partial"
    left.mkdir()
    (left / "x").write_text("x")
    made()
    assert not left.exists()


def replace(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)


MEMBER = "annotations/captions_val2017.json"


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"x": b""}, f"holds no {MEMBER}"),
        ({MEMBER: b"{"}, "is not valid JSON"),
        ({MEMBER: b"\xff"}, "line 1 is not UTF-8 text"),
        ({MEMBER: b"[]"}, "is not a list of captions"),
        (
            {MEMBER: b'{"images": [{"id": 1}], "annotations": []}'},
            "file_name None is not",
        ),
    ],
)
def test_wrong_captions_are_named(tmp_path, members, message):
    settings = archives_of(tmp_path, "val2017", [1])
    replace(Path(settings["annotations"]), members)
    with pytest.raises(ValueError, match=message):
        coco.prepare(CocoSpec(str(tmp_path / "coco"), **settings))
    assert not (tmp_path / "coco").exists()


def test_names_that_leave_the_folder_are_refused(tmp_path):
    settings = archives_of(tmp_path, "val2017", [1])
    notes = {
        "images": [{"id": 1, "file_name": "../../x.jpg"}],
        "annotations": [{"id": 1, "image_id": 1, "caption": "x"}],
    }
    replace(Path(settings["annotations"]), {MEMBER: json.dumps(notes).encode()})
    replace(Path(settings["images"]), {"val2017/../../x.jpg": picture(1)})
    with pytest.raises(
        ValueError, match=r"images\[0\]: file_name '../../x.jpg' is not"
    ):
        coco.prepare(CocoSpec(str(tmp_path / "coco"), **settings))


def test_missing_images_are_named(tmp_path):
    settings = archives_of(tmp_path, "val2017", [1, 2])
    replace(Path(settings["images"]), {"val2017/000000000001.jpg": picture(1)})
    with pytest.raises(ValueError, match=r"holds 1 of the 2.*0002\.jpg is missing"):
        coco.prepare(CocoSpec(str(tmp_path / "coco"), **settings))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"images": "a", "annotations": "b"},
        {"of": "a", "images": "b"},
        {"images": "a", "annotations": "b", "split": "../val"},
        {"images": "a", "annotations": "b", "split": "val2017", "without": "x"},
    ],
)
def test_settings_are_checked(settings):
    with pytest.raises(ValueError):
        CocoSpec("x", **settings)
