"""The conventions of Snakemake's catalog: called for from any folder."""

import json
import os

import pytest
import yaml
from checkout import ROOT, copy_checkout, jobs, snakemake

THERE = ("-s", str(ROOT / "workflow" / "Snakefile"))
SMALL = ("--configfile", str(ROOT / ".test" / "config" / "config.yaml"))
PROMPTS = "results/mini/prompts/test.json"


@pytest.fixture
def anywhere(tmp_path, monkeypatch):
    """Return an empty folder, in which the package is installed but not there."""
    ours = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    monkeypatch.setattr("checkout.environment", lambda folder: ours)
    return tmp_path


def test_an_empty_folder_plans_what_the_checkout_does(anywhere, tmp_path_factory):
    linked = ("profiles", "resources/mini", "src", "workflow")
    checkout = copy_checkout(tmp_path_factory.mktemp("checkout"), linked=linked)
    there, here = (
        snakemake(folder, *options, "--dry-run")
        for folder, options in ((anywhere, THERE), (checkout, ()))
    )
    assert there.returncode == here.returncode == 0, there.stdout[-3000:]
    assert jobs(there.stdout) == jobs(here.stdout)
    assert [path.name for path in anywhere.iterdir() if path.name[0] != "."] == [
        "resources"
    ]


def test_the_small_configuration_runs_there(anywhere):
    done = snakemake(anywhere, *THERE, *SMALL, "--cores", "1", "--", PROMPTS)
    assert done.returncode == 0, done.stdout[-3000:]
    prompts = json.loads((anywhere / PROMPTS).read_text("utf-8"))
    assert len(prompts) == 48
    again = snakemake(anywhere, *THERE, *SMALL, "--dry-run", "--", PROMPTS)
    assert "Nothing to be done" in again.stdout


def test_the_catalog_is_told_how_it_is_used():
    path = ROOT / ".snakemake-workflow-catalog.yml"
    usage = yaml.safe_load(path.read_text("utf-8"))["usage"]
    assert usage["report"] is True and "pip install" in usage["mandatory-flags"]["desc"]
    text = (ROOT / "config" / "README.md").read_text("utf-8")
    for named in ("workflow/Snakefile", ".test/config/config.yaml", "config.yaml"):
        assert named in text and (ROOT / named).is_file()
