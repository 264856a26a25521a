"""What a user adds is a line or two, in files that are there to be edited."""

import json
import re
from pathlib import Path

import numpy as np
from checkout import copy_checkout, jobs, snakemake
from PIL import Image

from clockwork_experiments.base import storage

LINKED = ("profiles", "resources/mini", "src")


def add(path: Path, below: str, *lines: str) -> None:
    """Put lines below the first place that is as a pattern says."""
    text = path.read_text("utf-8")
    found = re.search(below, text, re.M | re.S)
    assert found is not None
    text = text[: found.end()] + "".join(f"\n{line}" for line in lines)
    path.write_text(text + found.string[found.end() :], "utf-8")


def test_a_row_is_a_line_in_two_files_and_a_scheduler_none_of_ours(tmp_path):
    checkout = copy_checkout(tmp_path, linked=LINKED)
    add(
        checkout / "config.yaml",
        "^runs:$",
        "  sd_third: {teacher: sd, adaptor: identity, clock: 3, steps: 6}",
        "  sd_unipc: {teacher: sd, scheduler: UniPCMultistepScheduler}",
    )
    add(
        checkout / "workflow/papers/clockwork.yaml",
        r"^  table_1:\n    mini:\n.*?\n      rows:$",
        "        - {label: Identity with a clock of 3, run: sd_third, baseline: sd}",
        "        - {label: UniPC, run: sd_unipc, baseline: sd}",
    )
    table = "results/mini/tables/clockwork/table_1.csv"
    done = snakemake(checkout, "--dry-run", "--printshellcmds", table)
    assert done.returncode == 0, done.stdout[-3000:]
    third = next(line for line in done.stdout.split("\n\n") if "sd_third/0" in line)
    assert '"scheduler": "dpmpp", "steps": 6, "guidance": 2.0, "clock": 3' in third
    assert '"scheduler": "UniPCMultistepScheduler"' in done.stdout


def test_own_images_with_captions_are_a_line_and_their_run_another(tmp_path):
    checkout = copy_checkout(tmp_path, linked=LINKED)
    folder = checkout / "photos"
    folder.mkdir()
    lines = []
    for index in range(4):
        pixels = np.full((80, 80, 3), 40 * index, np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
        lines.append(json.dumps({"file_name": f"{index}.png", "text": f"grey {index}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    config = checkout / "config.yaml"
    add(config, "^runs:$", "  mine: {dataset: photos, only: mini}")
    photos = "datasets: {photos: {path: photos, count: 4, size: 64, only: mini}}"
    add(config, r"\Z", photos)
    target = "results/mini/images/photos/000.safetensors"
    done = snakemake(checkout, "--cores", "1", target)
    assert done.returncode == 0, done.stdout[-3000:]
    images = storage.read_arrays(checkout / target)["images"]
    assert images.shape == (4, 3, 64, 64)
    done = snakemake(checkout, "--dry-run", "results/mini/scores/mine.json")
    assert done.returncode == 0, done.stdout[-3000:]
    assert jobs(done.stdout)["sample_images"] == 1
