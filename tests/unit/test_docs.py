"""The README and the pages: limits, links, numbers, names, and code that runs."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import clockwork_diffusion as cd
from clockwork_experiments.report.places import PLACE, VALUE, embed

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = sorted(
    path
    for path in (ROOT / "docs").rglob("*.md")
    if "reference" not in path.relative_to(ROOT / "docs").parts
)
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
IMPORTS = (ast.Import, ast.ImportFrom)
TORCHVISION = "import clockwork_experiments, runpy, sys; sys.argv = sys.argv[1:]; "
"""Some builds of torchvision cannot be imported without; see `base._torchvision`."""


def prose(text: str) -> str:
    """Return what somebody has typed: no code, no link's target, nothing put in."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    text = VALUE.sub("", PLACE.sub("", text))
    text = re.sub(r"`[^`]*`", "", text)
    return re.sub(r"\]\([^)]*\)", "]", text)


def visible(text: str) -> str:
    return re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)


def test_the_readme_is_short():
    text = README.read_text("utf-8")
    assert len(text.splitlines()) <= 200
    assert len(text.split()) <= 1500


def test_the_readmes_table_has_five_rows_and_its_python_four_statements():
    text = README.read_text("utf-8")
    (table,) = re.findall(r"<!-- rows: \w+ -->\n(.*?)<!-- end of rows", text, re.DOTALL)
    assert len([line for line in table.splitlines() if line.startswith("|")]) == 2 + 5
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    said = [each for each in ast.parse(code).body if not isinstance(each, IMPORTS)]
    assert len(said) == 4


NAMES = r"""
    Stable\ Diffusion\ v1\.5 | Python\ 3\.11 | \b(CVPR|ACCV)\ 20\d\d | Apache-2\.0
    | InstructPix2Pix
    | \bD9\b | \b[CK]\d+\b | \bTable\ S?\d+ | \b(8|5|20)\ steps\b | 95\ %\ intervals
"""


def test_no_number_of_the_readme_is_typed():
    """But in names, of claims and tables too, and settings: how many steps."""
    said = re.sub(
        NAMES, "", " ".join(prose(README.read_text("utf-8")).split()), flags=re.X
    )
    assert re.findall(r"[^ ]*\d[^ ]*", said) == []


RESULT = r"""
    \d+\.\d+                                       # a measure
    | \d+\ (?:%|dB|ms|[µm]?s\b|minutes|hours|[GMk]B) # one with a unit
    | \d\ \[[−\d]                                  # one with its interval
"""
PRINTED = {"results/clockwork.md": {"32 %", "2.9"}}
"""What the papers print, which no run of ours changes."""


@pytest.mark.parametrize("name", ["index", "clockwork", "compression"])
def test_no_result_on_a_page_of_results_is_typed(name):
    text = (ROOT / "docs" / "results" / f"{name}.md").read_text("utf-8")
    said = re.sub(r"SD v1\.5", "", prose(text))
    found = {" ".join(each.split()) for each in re.findall(RESULT, said, re.X)}
    assert found == PRINTED.get(f"results/{name}.md", set())


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda path: path.name)
def test_what_was_put_in_is_what_the_results_say(page):
    text = page.read_text("utf-8")
    assert embed(text, ROOT, page.parent) == text, "`make embed` puts it right"


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda path: path.name)
def test_no_value_begins_a_line(page):
    """There a comment is a block of its own, which breaks the paragraph."""
    text = page.read_text("utf-8")
    assert re.findall(r"^ *<!-- value: .*", text, re.M) == []


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", head).lower().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda path: path.name)
def test_every_link_leads_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    lost = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        target, _, anchor = link.partition("#")
        if target.startswith("https://arxiv.org/abs/"):
            continue
        path = page if not target else page.parent / target
        if not path.exists() or (anchor and anchor not in anchors(path)):
            lost.append(link)
    assert lost == []


def test_every_page_is_in_the_menu_and_every_result_is_reached():
    menu = (ROOT / "mkdocs.yml").read_text("utf-8")
    docs = ROOT / "docs"
    assert [p.name for p in PAGES if p.relative_to(docs).as_posix() not in menu] == []
    linked = menu + "".join(page.read_text("utf-8") for page in (README, *PAGES))
    kept = [*docs.glob("reference/*/*/**/*.md"), *docs.glob("reference/**/*.png")]
    others = [p for p in kept if p.relative_to(docs).as_posix() not in linked]
    assert {p.name for p in others} <= {"efficient.png", "distilled.png"}


def test_every_public_name_is_documented():
    page = (ROOT / "docs" / "api.md").read_text("utf-8")
    shown = re.findall(r"^::: clockwork_diffusion\.(\w+)$", page, re.M)
    assert sorted(set(shown) & set(cd.__all__)) == sorted(cd.__all__)
    for name in cd.__all__:
        assert getattr(cd, name).__doc__


def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    done = subprocess.run(
        [*command, "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0 and done.stderr + done.stdout == ""
    page = (tmp_path / "site" / "api.html").read_text("utf-8")
    for name in cd.__all__:
        assert f'id="clockwork_diffusion.{name}"' in page
    assert "Apply Clockwork within a block" in page and "<blockquote>" not in page
    home = (tmp_path / "site" / "index.html").read_text("utf-8")
    assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="https?://', home)


def test_there_are_six_short_examples():
    assert len(EXAMPLES) == 6
    for path in EXAMPLES:
        assert len(path.read_text("utf-8").splitlines()) <= 60, path.name


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_as_it_stands(example, tmp_path):
    (tmp_path / "resources").symlink_to(ROOT / "resources")
    code = TORCHVISION + "runpy.run_path(sys.argv[0], run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(example)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "FLOPs saved" in done.stdout or example.stem == "editing"
    assert list(tmp_path.glob("*.png"))


def test_the_notebook_runs_and_draws():
    path = ROOT / "examples" / "redraw_figure.ipynb"
    notebook = nbformat.read(path, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)
    client = NotebookClient(notebook, resources={"metadata": {"path": path.parent}})
    client.execute()
    shown = [each for cell in notebook.cells for each in cell.get("outputs", [])]
    assert any("image/png" in each.get("data", {}) for each in shown)
