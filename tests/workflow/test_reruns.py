"""What an edit reruns, and what paths do to a shell; some steps really run."""

import os
import shutil

import pytest
import yaml
from checkout import copy_checkout, jobs, snakemake
from PIL import Image

LINKED = ("profiles", "resources/mini", "src", "workflow")
SETS = {
    "results/mini/prompts/mine.json": "prepare_prompts",
    "results/mini/images/mine/000.safetensors": "prepare_images",
    "results/mini/edit_sets/mine.json": "prepare_edit_set",
    "results/mini/pairs/mine.json": "prepare_pairs",
}
# A folder's name with what a shell would not leave alone.
OWN = "my sets $(touch PWNED)"


def draw(path, colour):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64), colour).save(path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A checkout in which a user's own sets are prepared; its folder has a space."""
    folder = tmp_path_factory.mktemp("made") / "a checkout"
    folder.mkdir()
    copy = copy_checkout(folder, linked=LINKED)
    own = copy / OWN
    for index, colour in enumerate(("red", "blue")):
        draw(own / "ds" / "images" / f"{index}.png", colour)
    (own / "ds" / "prompts.txt").write_text("one\ntwo\n", encoding="utf-8")
    draw(own / "es" / "a.png", "red")
    (own / "es" / "set.yaml").write_text(
        "- init_img: a.png\n  source_prompt: a red ring\n"
        "  target_prompts: [a blue ring]\n",
        encoding="utf-8",
    )
    draw(own / "ps" / "inputs" / "a.png", "red")
    (own / "ps" / "pairs.jsonl").write_text(
        '{"input": "a.png", "prompt": "make it blue",'
        ' "source_caption": "a red ring", "target_caption": "a blue ring"}\n',
        encoding="utf-8",
    )
    mine = {
        "datasets": {"source": "folder", "path": f"{OWN}/ds", "count": 2, "shards": 1},
        "edit_sets": {"source": "folder", "path": f"{OWN}/es", "size": 64},
        "translation_sets": {
            **{"task": "edit", "source": "folder", "path": f"{OWN}/ps"},
            **{"size": 64, "shards": 1},
        },
    }
    settings = {"mini": {section: {"mine": each} for section, each in mine.items()}}
    (copy / "my.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    done = run(copy, "--cores", "1")
    assert done.returncode == 0, done.stdout[-3000:]
    return copy


def run(copy, *options):
    return snakemake(copy, "--configfile", "my.yaml", *options, "--", *SETS)


def due(copy):
    done = run(copy, "--dry-run")
    assert done.returncode == 0, done.stdout[-3000:]
    return jobs(done.stdout).keys()


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copy", symlinks=True)


def test_no_path_is_run_as_a_command(finished):
    assert not list(finished.rglob("PWNED"))


def test_touching_own_files_reruns_nothing(copy):
    for path in (copy / OWN).rglob("*.*"):
        path.touch()
    assert not due(copy)


@pytest.mark.parametrize(
    ("file", "concerned"),
    [
        ("ds/prompts.txt", {"prepare_prompts", "prepare_images"}),
        ("ds/images/0.png", {"prepare_images"}),
        ("es/set.yaml", {"prepare_edit_set"}),
        ("es/a.png", {"prepare_edit_set"}),
        ("ps/pairs.jsonl", {"prepare_pairs"}),
        ("ps/inputs/a.png", {"prepare_pairs"}),
    ],
)
def test_editing_any_file_of_an_own_set_reruns_what_follows(copy, file, concerned):
    path = copy / OWN / file
    if path.suffix == ".png":
        draw(path, "green")
    else:
        path.write_text(path.read_text("utf-8") + "\n", encoding="utf-8")
    assert set(due(copy)) - {"all"} == concerned


def test_a_source_file_of_the_future_reruns_nothing(copy):
    source = copy / "src"
    real = source.resolve()
    source.unlink()
    shutil.copytree(real, source, ignore=shutil.ignore_patterns("__pycache__"))
    for path in source.rglob("*.py"):
        os.utime(path, (4e9, 4e9))
    assert not due(copy)
