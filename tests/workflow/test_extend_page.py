"""The additions of docs/extend.md, made from the page's own blocks in a checkout."""

import re

import pytest
from checkout import ROOT, copy_checkout, jobs, snakemake

BLOCK = re.compile(r'```\w+ title="([^"]+)"\n(.*?)```', re.DOTALL)
BELOW = {
    "runs": "^runs:$",
    "adaptors": "^adaptors:$",
    "figures": "^figures:$",
    "benchmark": "^benchmark:$",
    "table_1": r"^  table_1:\n    mini:\n.*?\n      rows:$",
}
"""After which line of a file a block goes; a block that names none goes to the end."""


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    linked = ("profiles", "resources/mini", "src")
    checkout = copy_checkout(tmp_path_factory.mktemp("extended"), linked=linked)
    for title, block in BLOCK.findall((ROOT / "docs/extend.md").read_text("utf-8")):
        name, _, place = title.partition(": ")
        path = checkout / name
        text = path.read_text("utf-8") if path.exists() else ""
        end = len(text)
        if place:
            found = re.search(BELOW[place], text, re.M | re.S)
            assert found is not None, title
            end = found.end() + 1
        path.write_text(text[:end] + block + text[end:], "utf-8")
    (checkout / "photos").mkdir()
    (checkout / "photos/metadata.jsonl").touch()
    return checkout


def test_all_six_are_made_by_the_lines_and_files_of_the_page(extended):
    targets = [
        "results/mini/tables/clockwork/table_1.csv",
        "results/mini/figures/clockwork/figure_mine.png",
        "results/mini/scores/mine.json",
        "results/mini/benchmark/t2i/tables/slice.csv",
    ]
    done = snakemake(extended, "--dry-run", "--printshellcmds", *targets)
    assert done.returncode == 0, done.stdout[-3000:]
    assert '"steps": 6, "guidance": 2.0, "clock": 3' in done.stdout
    assert '"scheduler": "UniPCMultistepScheduler"' in done.stdout
    assert '"kind": "my_adaptors:Mix"' in done.stdout
    assert "--kind my_figures:Bars" in done.stdout
    assert '"kind": "my_methods:Late"' in done.stdout
    assert "results/mini/benchmark/t2i/methods/mine.json" in done.stdout
    assert "images=photos" in done.stdout or "photos/000" in done.stdout
    for run in ("sd_third", "sd_unipc", "sd_mine", "mine"):
        assert f"results/mini/scores/{run}.json" in done.stdout, run
    assert jobs(done.stdout)["draw_figure"] == 1


def test_each_addition_is_as_few_lines_as_it_was():
    found = BLOCK.findall((ROOT / "docs/extend.md").read_text("utf-8"))
    lines = [(title, block.strip("\n").count("\n") + 1) for title, block in found]
    yaml = [
        count for title, count in lines if "yaml" in title and "figures" not in title
    ]
    assert len(yaml) == 10 and set(yaml) == {1}
    assert [title for title, _ in lines if title.endswith(".py")] == [
        "my_adaptors.py",
        "my_figures.py",
        "my_methods.py",
    ]
