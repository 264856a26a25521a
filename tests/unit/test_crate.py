"""A run as a Workflow Run RO-Crate: whole, and saying what made what."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from pathlib import Path

import pytest

from clockwork_experiments.report import crate
from clockwork_experiments.steps.pack_results import pack_results

RESULTS = {"results/mini/tables/a.csv": "x,y\n1,2\n", "results/mini/figures/b.png": "B"}


@pytest.fixture
def run(tmp_path, monkeypatch) -> dict:
    monkeypatch.chdir(tmp_path)
    files = {"Snakefile": "rule all:\n", "config.yaml": "runs: {}\n", **RESULTS}
    for number, (name, text) in enumerate(files.items()):
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (1_800_000_000 + 60 * number,) * 2)
    return {
        "spec": crate.CrateSpec("mini"),
        "workflow": Path("Snakefile"),
        "sources": [Path("config.yaml")],
        "results": [Path(name) for name in RESULTS],
        "output": Path("run.crate.zip"),
    }


@pytest.fixture
def graph(run) -> dict[str, dict]:
    pack_results(**run)
    with zipfile.ZipFile(run["output"]) as file:
        told = json.loads(file.read("ro-crate-metadata.json"))
    assert told["@context"][0].startswith("https://w3id.org/ro/crate/1.1")
    entities = {each["@id"]: each for each in told["@graph"]}
    assert len(entities) == len(told["@graph"])
    return entities


def references(value: object) -> set[str]:
    if isinstance(value, list):
        return set().union(*map(references, value))
    if isinstance(value, dict):
        return {value["@id"]} if set(value) == {"@id"} else set()
    return set()


def test_it_follows_the_profile(graph):
    assert graph["ro-crate-metadata.json"]["about"] == {"@id": "./"}
    root = graph["./"]
    assert {"@id": "https://w3id.org/ro/wfrun/workflow/0.5"} in root["conformsTo"]
    workflow = graph[root["mainEntity"]["@id"]]
    assert "ComputationalWorkflow" in workflow["@type"]
    language = graph[workflow["programmingLanguage"]["@id"]]
    assert language["@type"] == "ComputerLanguage"
    action = graph[root["mentions"]["@id"]]
    assert action["@type"] == "CreateAction"
    assert action["instrument"] == root["mainEntity"]
    assert references(action["object"]) == {"config.yaml"}
    assert references(action["result"]) == set(RESULTS)
    assert (action["startTime"], action["endTime"]) == (
        "2027-01-15T08:02:00+00:00",
        "2027-01-15T08:03:00+00:00",
    )


def test_whatever_is_named_is_described(graph):
    known = {*graph, "https://w3id.org/ro/crate/1.1"}
    known.add("http://schema.org/CompletedActionStatus")
    for entity in graph.values():
        for value in entity.values():
            assert references(value) <= known, entity["@id"]


def test_each_file_is_in_it_with_its_checksum(graph, run):
    with zipfile.ZipFile(run["output"]) as file:
        inside = {name: file.read(name) for name in file.namelist()}
    assert set(inside) == {
        "ro-crate-metadata.json",
        "Snakefile",
        "config.yaml",
        *RESULTS,
    }
    for name, data in inside.items():
        if name != "ro-crate-metadata.json":
            assert graph[name]["sha256"] == hashlib.sha256(data).hexdigest()
            assert graph[name]["contentSize"] == len(data)
    assert graph["results/mini/tables/a.csv"]["encodingFormat"] == "text/csv"


def test_equal_content_makes_equal_bytes(run):
    pack_results(**run)
    first = run["output"].read_bytes()
    pack_results(**{**run, "output": Path("again.zip")})
    assert Path("again.zip").read_bytes() == first
