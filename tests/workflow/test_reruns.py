"""What an edit reruns, and what paths do to a shell; some steps really run."""

import os
import re
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


def test_inputs_of_the_future_are_refused_before_anything_is_lost(copy):
    for path in (copy / OWN).rglob("*.*"):
        os.utime(path, (4e9, 4e9))
    assert not due(copy)
    made = {name: (copy / name).read_bytes() for name in SETS}
    again = ("--cores", "1", "--forcerun", *SETS.values())
    refused = run(copy, *again)
    assert refused.returncode == 1
    assert "is dated in the future; `touch` it first" in refused.stdout
    assert made == {name: (copy / name).read_bytes() for name in SETS}
    for path in (copy / OWN).rglob("*.*"):
        path.touch()
    done = run(copy, *again)
    assert done.returncode == 0, done.stdout[-3000:]
    assert made == {name: (copy / name).read_bytes() for name in SETS}


def test_a_retry_of_what_failed_for_good_ends_at_once_with_its_line(copy):
    prompts = copy / OWN / "ds" / "prompts.txt"
    good = prompts.read_bytes()
    prompts.write_bytes("one\ntw\xf6\n".encode("latin-1"))
    options = ("--configfile", "my.yaml", "--cores", "1", "--retries", "2")
    target = "results/mini/prompts/mine.json"
    log = copy / "logs/mini/prepare_prompts/mine.log"
    done = snakemake(copy, *options, "--", target)
    assert done.returncode == 1
    line = rf"^error: .*{re.escape('prompts.txt')}.* line 2.*$"
    said = re.findall(line, done.stdout, re.MULTILINE)
    assert len(said) >= 3 and len(set(said)) == 1, done.stdout
    # The log is of the first attempt, with where it failed.
    assert log.read_text("utf-8").count("clockwork_experiments.run traceback") == 1
    prompts.write_bytes(good)
    assert snakemake(copy, *options, "--", target).returncode == 0
    assert [path.name for path in log.parent.iterdir()] == [log.name]
