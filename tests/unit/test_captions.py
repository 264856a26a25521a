"""A folder of captions is checked before a run reads it."""

import subprocess
import sys

import pytest
from PIL import Image

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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has 0 captions, and 2 are needed"),
        (b"a cat\n", "has 1 captions, and 2 are needed"),
        (b"a cat\n\na dog\n", "line 2 is empty"),
        (b"a cat\n   \n", "line 2 is empty"),
        (b"a cat\n\xff\xfe\n", "line 2 is not UTF-8 text"),
        ("a\nb\u2028c\n".encode(), r"line 2 has the character U\+2028"),
        (b"a\rb\n", r"line 1 has the character U\+000D"),
        (b"a\n" + b"x" * 10_001, "line 2 has 10001 characters, and at most 10000"),
        (b"a\nb\nc\n", "holds 2 files, and .*3 captions"),
    ],
)
def test_what_is_wrong_is_named(folder, content, message):
    (folder / "prompts.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        captions.check(folder, 2)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_an_image_that_is_none_is_named(folder):
    (folder / "images" / "1.jpg").write_bytes(b"no image")
    assert captions.check(folder, 2) == (2, 2)
    with pytest.raises(ValueError, match=r"1\.jpg is not a readable image"):
        captions.check(folder, 2, opened=True)


def test_the_command_says_how_many(folder):
    command = [sys.executable, "-m", "clockwork_experiments.steps.check_captions"]
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True)
    assert done.returncode == 0 and "2 captions, 2 images" in done.stderr
    done = subprocess.run(
        [*command, str(folder), "--count", "3"], capture_output=True, text=True
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and "and 3 are needed" in last
