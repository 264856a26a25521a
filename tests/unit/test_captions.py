"""A folder of captions is checked before a run reads it."""

import json
import subprocess
import sys

import pytest
from PIL import Image

from clockwork_experiments.base.failures import Kind
from clockwork_experiments.data import captions, datasets


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n", encoding="utf-8")
    (tmp_path / "images").mkdir()
    for name in ("0.jpg", "1.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / name)
    return tmp_path


def test_a_good_folder_is_counted(folder):
    assert captions.check(folder, 2, opened=True) == (2, 2)
    (folder / "images" / "0.jpg").unlink()
    (folder / "images" / "1.jpg").unlink()
    (folder / "images").rmdir()
    assert captions.check(folder, 1) == (2, 0)


@pytest.mark.parametrize("text", ["a\nb", "a\nb\n", "a\r\nb\r\n", "ä — é\n漢字\n"])
def test_what_passes_is_read_line_by_line(folder, text):
    (folder / "prompts.txt").write_bytes(text.encode())
    assert captions.check(folder, 2)[0] == 2
    assert len(datasets.folder_prompts(folder, 2)) == 2


def test_a_byte_order_mark_is_none_of_the_captions(folder):
    (folder / "prompts.txt").write_bytes("\ufeffa cat\r\na dog\r\n".encode())
    assert captions.read(folder).captions == ("a cat", "a dog")


def test_a_line_ends_at_a_newline_alone(folder):
    (folder / "prompts.txt").write_text("a\u2028cat\x85\na\x0bdog\x1c\n")
    assert captions.read(folder).captions == ("a cat", "a dog")


def test_repeated_captions_are_said(folder, caplog):
    (folder / "prompts.txt").write_text("a cat\na cat\n")
    assert captions.read(folder).captions == ("a cat", "a cat")
    assert "1 of 2 captions repeat an earlier one, such as 'a cat'" in caplog.text


def test_what_a_system_leaves_behind_is_no_image(folder):
    for name in (".DS_Store", "._0.jpg", "Thumbs.db", "desktop.ini"):
        (folder / "images" / name).write_bytes(b"x")
    assert [path.name for path in captions.read(folder).images] == ["0.jpg", "1.jpg"]


def test_the_layout_imagefolder_is_read_in_the_order_of_its_list(tmp_path):
    lines = [
        {"file_name": "train/2.png", "text": "a caf\u00e9", "id": 3},
        {"file_name": "1.png", "text": " a\u2028cat "},
    ]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (tmp_path / "metadata.jsonl").write_text("\ufeff" + text, encoding="utf-8")
    for name in ("1.png", "train/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    found = captions.read(tmp_path)
    assert found.captions == ("a caf\u00e9", "a cat")
    assert found.images == (tmp_path / "train" / "2.png", tmp_path / "1.png")


def coco(folder, images, annotations, split="val2017"):
    """Unpack a COCO of a split."""
    path = folder / "annotations" / f"captions_{split}.json"
    path.parent.mkdir(exist_ok=True)
    listed = [{"id": n, "file_name": f"{n:012}.jpg"} for n in images]
    given = [{"id": i, "image_id": n, "caption": text} for i, n, text in annotations]
    path.write_text(json.dumps({"images": listed, "annotations": given}))
    (folder / split).mkdir()
    for n in images:
        Image.new("RGB", (8, 8)).save(folder / split / f"{n:012}.jpg")


def test_an_unpacked_coco_is_read_in_place(tmp_path, caplog):
    coco(
        tmp_path,
        [10, 9, 8],
        [(5, 10, "late"), (4, 10, "ten\n again"), (7, 9, " "), (6, 9, "nine")]
        + [(1, 77, "an orphan")],
    )
    found = captions.read(tmp_path)
    assert found.captions == ("nine", "ten again")
    names = [f"{n:012}.jpg" for n in (9, 10)]
    assert [path.name for path in found.images] == names
    assert (
        "1 captions are of images that it does not list, and are left out, such as "
        "annotation 1 of image 77"
    ) in caplog.text
    coco(tmp_path, [1], [(1, 1, "one")], "train2017")
    assert captions.read(tmp_path / "train2017").captions == ("one",)
    assert captions.read(tmp_path / "val2017").captions == found.captions


def test_the_command_says_how_many(folder):
    command = [sys.executable, "-m", "clockwork_experiments.steps.check_captions"]
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True)
    assert done.returncode == 0 and "2 captions, 2 images" in done.stderr
    done = subprocess.run(
        [*command, str(folder), "--count", "3"], capture_output=True, text=True
    )
    assert done.returncode == Kind.PERMANENT
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and "and 3 are needed" in last
