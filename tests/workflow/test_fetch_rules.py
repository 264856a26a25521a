"""What paper scale reads is fetched or accepted, and nothing else is touched."""

import hashlib
import io
import json
import shutil
import zipfile
from pathlib import Path

import loopback
import pytest
from checkout import copy_checkout, edit_yaml, jobs, resolved, snakemake
from PIL import Image

LINKED = ("profiles", "resources/mini", "src", "workflow")
PAPER = resolved("paper")
COUNT = 40
"""More than a figure shows."""
BY_HAND = {name for name, source in PAPER["sources"].items() if "by_hand" in source}


@pytest.fixture
def checkout(tmp_path) -> Path:
    return copy_checkout(tmp_path / "checkout", linked=LINKED)


def brought() -> set[str]:
    """Return every folder and file that a source or a set of COCO brings."""
    paths = set()
    for source in (*PAPER["sources"].values(), *PAPER["coco"].values()):
        paths.add(source["path"])
        paths |= {f"{source['path']}/{file}" for file in source.get("files", ())}
    return paths


def read(value) -> set[str]:
    """Return every path under resources/paper in a part of the configuration."""
    if isinstance(value, dict):
        return set().union(*map(read, value.values()))
    if isinstance(value, list):
        return set().union(*map(read, value))
    return {value} if str(value).startswith("resources/paper/") else set()


def test_whatever_paper_scale_reads_has_a_source():
    sections = [v for k, v in PAPER.items() if k not in ("sources", "coco")]
    assert read(sections)
    assert read(sections) <= brought()


def test_no_two_sources_bring_the_same_file():
    files = [
        f"{source['path']}/{file}"
        for source in PAPER["sources"].values()
        for file in source["files"]
    ]
    assert len(files) == len(set(files))


def test_every_address_is_pinned():
    for name, source in PAPER["sources"].items():
        for place, file in source["files"].items():
            if "url" in file or "package" in file:
                assert len(file["sha256"]) == 64 and file["size"], f"{name}: {place}"


def test_targets_list_what_can_be_fetched_and_what_must_be_placed(checkout):
    done = snakemake(checkout, "--dry-run", "fetched")
    assert done.returncode == 0, done.stdout
    fetched = len(PAPER["sources"]) - len(BY_HAND)
    assert jobs(done.stdout) == {
        "fetch_source": fetched,
        "prepare_coco": len(PAPER["coco"]),
        "fetched": 1,
    }
    done = snakemake(checkout, "--dry-run", "placed")
    assert jobs(done.stdout) == {"fetch_source": len(BY_HAND), "placed": 1}


def picture(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, shade, shade)).save(file, "JPEG")
    return file.getvalue()


def coco_archives() -> dict[str, bytes]:
    """Return archives like COCO's, of few images."""
    images, notes = io.BytesIO(), io.BytesIO()
    names = [f"{i:012d}.jpg" for i in range(COUNT)]
    with zipfile.ZipFile(images, "w") as file:
        for index, name in enumerate(names):
            file.writestr(f"val2017/{name}", picture(index))
    content = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
        "annotations": [
            {"id": i, "image_id": i, "caption": f"caption {i}"} for i in range(COUNT)
        ],
    }
    with zipfile.ZipFile(notes, "w") as file:
        file.writestr("annotations/captions_val2017.json", json.dumps(content))
    return {
        "val2017.zip": images.getvalue(),
        "annotations_trainval2017.zip": notes.getvalue(),
    }


def small(checkout: Path) -> None:
    """Make the configuration's COCO one of few images."""
    config = checkout / "config.yaml"
    for key, value in {"count": COUNT, "size": 8, "shards": 1}.items():
        edit_yaml(config, f"paper.datasets.coco2017.{key}", value)
    edit_yaml(config, "paper.translation_sets.coco_edges.count", 2)
    edit_yaml(config, "paper.translation_sets.coco_edges.size", 8)


TARGETS = (
    "results/paper/prompts/coco2017.json",
    "results/paper/images/coco2017/000.safetensors",
    "results/paper/pairs/coco_edges.json",
)


def test_coco_is_fetched_unpacked_and_read(checkout):
    small(checkout)
    files: dict[str, dict] = {}
    with loopback.serving() as server:
        for name, content in coco_archives().items():
            server.files[f"/{name}"] = content
            sha256 = hashlib.sha256(content).hexdigest()
            url = server.url(f"/{name}")
            given = {"url": url, "sha256": sha256, "size": None}
            folder = "paper.sources.coco2017_archives.files"
            # The name has a dot, as the keys' separator.
            edit_yaml(checkout / "config.yaml", folder, files | {name: given})
            files[name] = given
        done = snakemake(checkout, "--cores", "1", *TARGETS)
        assert done.returncode == 0, done.stdout[-3000:]
        assert len(server.requests()) == 2
        # Again, and without the archives: nothing.
        shutil.rmtree(checkout / "resources/paper/archives")
        done = snakemake(checkout, "--cores", "1", *TARGETS)
        assert "Nothing to be done" in done.stdout, done.stdout[-3000:]
        assert len(server.requests()) == 2
    prompts = json.loads((checkout / TARGETS[0]).read_text())
    assert prompts == [f"caption {index}" for index in range(COUNT)]
    pairs = json.loads((checkout / TARGETS[2]).read_text())["pairs"]
    assert [pair["prompt"] for pair in pairs] == prompts[:2]
    # What changes behind the manifest's back is refused.
    text = checkout / "resources/paper/coco2017/prompts.txt"
    text.write_text("another\n" * COUNT)
    done = snakemake(checkout, "--dry-run", *TARGETS)
    assert done.returncode == 1
    assert "coco2017/prompts.txt is not as resources/paper/manifests" in done.stdout


def test_a_folder_that_the_user_placed_is_accepted(checkout):
    small(checkout)
    folder = checkout / "resources/paper/coco2017"
    (folder / "images").mkdir(parents=True)
    (folder / "prompts.txt").write_text("mine\n" * COUNT)
    for index in range(COUNT):
        (folder / "images" / f"{index:012d}.jpg").write_bytes(picture(index))
    done = snakemake(checkout, "--cores", "1", *TARGETS)
    assert done.returncode == 0, done.stdout[-3000:]
    # The set of pairs is made of it: the user did not place that.
    assert jobs(done.stdout).get("fetch_source") is None
    assert json.loads((checkout / TARGETS[0]).read_text()) == ["mine"] * COUNT
    manifest = checkout / "resources/paper/manifests/coco2017.json"
    assert "made_from" not in json.loads(manifest.read_text())
    done = snakemake(checkout, "--dry-run", *TARGETS)
    assert "Nothing to be done" in done.stdout, done.stdout[-3000:]


def test_a_text_is_written_and_what_is_by_hand_is_said(checkout):
    target = "results/paper/prompts/astronaut.json"
    done = snakemake(checkout, "--cores", "1", target)
    assert done.returncode == 0, done.stdout[-3000:]
    prompt = "image of an astronaut riding a horse on mars."
    assert json.loads((checkout / target).read_text()) == [prompt]
    done = snakemake(checkout, "--cores", "1", "results/paper/prompts/laion.json")
    assert done.returncode == 1
    said = "error: laion is to be placed by hand in resources/paper/laion, which lacks"
    assert said in done.stdout
    assert not (checkout / "resources/paper/laion").exists()


def test_a_folder_of_ones_own_needs_no_source(checkout):
    folder = checkout / "mine"
    folder.mkdir()
    edit_yaml(checkout / "config.yaml", "paper.datasets.astronaut.path", "mine")
    (folder / "prompts.txt").write_text("mine\n")
    target = "results/paper/prompts/astronaut.json"
    done = snakemake(checkout, "--cores", "1", target)
    assert jobs(done.stdout) == {"prepare_prompts": 1}, done.stdout[-3000:]
    edit_yaml(checkout / "config.yaml", "paper.models.sd.path", "elsewhere/sd")
    done = snakemake(checkout, "--dry-run", "results/paper/scores/sd.json")
    assert done.returncode == 1
    assert "MissingInputException" in done.stdout and "elsewhere/sd" in done.stdout


def test_offline_is_what_the_configuration_says(checkout):
    edit_yaml(checkout / "config.yaml", "paper.offline", True)
    target = "resources/paper/manifests/lpips.json"
    done = snakemake(checkout, "--cores", "1", target)
    assert done.returncode == 1
    assert "is not asked while offline" in done.stdout, done.stdout[-3000:]
