"""Kinds of figures and tables: what they need, and how one's own is found."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from checkout import ROOT
from matplotlib.image import imread

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.report import kinds

OWN = """
from dataclasses import dataclass
from typing import ClassVar

from matplotlib.figure import Figure

from clockwork_experiments.report.kinds import Kind


@dataclass(frozen=True)
class Bars(Kind):
    kind: ClassVar[str] = "bars"
    runs: tuple[str, ...]

    def needs(self, known):
        return {"scores": known.scores(self.runs)}

    def make(self, given):
        figure = Figure(figsize=(3, 2))
        scores = given.each("scores")
        values = [scores[name]["scores"]["clip"]["value"] for name in self.runs]
        figure.add_subplot(title=self.title).bar(self.runs, values)
        return figure
"""


class Known:
    """A scale with two runs of one model, an edited one, and a translation."""

    base = "results/mini"

    def __init__(self, measured: bool = True) -> None:
        self.measured = measured

    def entry(self, section, name):
        known = {"models": ["sd"], "translators": ["ip2p"], "runs": ["a", "b"]}
        if name not in known[section]:
            raise ValueError(f"{name!r} is not one of the {section}")
        return {"dataset": "test"}

    def entries(self, section):
        return {"any": {}}

    def run(self, name):
        if name in ("a", "b"):
            return {"model": "sd", "sampler": {}}
        return {"translator": "ip2p", "steps": 8} if name[:1] == "t" else {}

    def scores(self, names):
        return [f"results/mini/scores/{name}.json" for name in names]

    def shards(self, kind, dataset, names):
        return [f"results/mini/{kind}/{name}/000.safetensors" for name in names]

    def translated(self, names):
        return [f"results/mini/translated/{name}/000.safetensors" for name in names]


def item(package: str, kind: str, **spec) -> kinds.Kind:
    return parse(kinds.find(package, kind), {"title": "T", "caption": "C", **spec})


def test_each_kind_has_a_name_of_its_own_and_is_found():
    listed = {name for p in (kinds.FIGURES, kinds.TABLES) for name in kinds.names(p)}
    assert len(listed) == 36
    for package in (kinds.FIGURES, kinds.TABLES):
        for name in kinds.names(package):
            assert kinds.find(package, name).kind == name


def test_every_registered_item_is_of_a_kind():
    for paper in ("clockwork", "compression"):
        path = ROOT / "workflow/papers" / f"{paper}.yaml"
        registry = yaml.safe_load(path.read_text("utf-8"))
        for key, package in (("figures", kinds.FIGURES), ("tables", kinds.TABLES)):
            for scales in registry[key].values():
                for told in scales.values():
                    default = "grid" if key == "figures" else "results"
                    own = {k: told[k] for k in told if k not in ("kind", "on_request")}
                    assert parse(kinds.find(package, told.get("kind", default)), own)


def test_a_grid_needs_images_and_prompts_and_timings_if_it_shows_them():
    runs = [{"run": "a", "label": ""}, {"run": "b", "label": ""}]
    spec = {"runs": runs, "prompts": [0], "columns": 1}
    needs = item(kinds.FIGURES, "grid", **spec).needs(Known())
    assert needs == {
        "images": [f"results/mini/images/{n}/000.safetensors" for n in ("a", "b")],
        "prompts": ["results/mini/prompts/test.json"],
    }
    timed = item(kinds.FIGURES, "grid", **spec, latency=True).needs(Known())
    assert timed == {**needs, "latency": ["results/mini/latency/sampling.json"]}


def test_a_map_needs_the_counts_of_a_model_that_there_is():
    chosen = item(kinds.FIGURES, "block_map", model="sd")
    assert chosen.needs(Known()) == {"flops": ["results/mini/flops/sd.json"]}
    with pytest.raises(ValueError, match="'other' is not one of the models"):
        item(kinds.FIGURES, "block_map", model="other").needs(Known())


def test_a_table_needs_what_its_columns_show_and_no_more():
    rows = [
        {"label": "A", "run": "a"},
        {"label": "B", "run": "b", "baseline": "a"},
        {"label": "T", "run": "t"},
        {"label": "as it is", "run": "set/unedited/s50"},
    ]

    def needs(*columns):
        table = item(kinds.TABLES, "results", columns=columns, rows=rows)
        return table.needs(Known())

    assert needs("clip_published") == {}
    assert needs("n") == {"scores": Known().scores(["a", "b", "t", "set/unedited/s50"])}
    assert needs("tflops", "latency") == {
        "levels": ["results/mini/levels/ip2p.json"],
        "flops": ["results/mini/flops/sd.json"],
        "latency": ["results/mini/latency/sampling.json"],
    }


def test_what_is_made_on_request_is_wished_for_where_nothing_waits_for_it():
    table = item(kinds.TABLES, "levels", translator="ip2p")
    counts = {"levels": ["results/mini/levels/ip2p.json"]}
    timings = {"level_latency": ["results/mini/latency/levels/ip2p.json"]}
    assert table.needs(Known()) == {**counts, **timings}
    assert table.wishes(Known()) == {}
    unmeasured = Known(measured=False)
    assert table.needs(unmeasured) == counts and table.wishes(unmeasured) == timings


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pie", "kind 'pie' is not one of benchmark_pareto, "),
        ("nowhere:Pie", "kind 'nowhere:Pie': No module named 'nowhere'"),
        ("json:Pie", "kind 'json:Pie': module 'json' has no attribute 'Pie'"),
        ("json:JSONDecoder", "is no clockwork_experiments.report.kinds.Kind"),
    ],
)
def test_unknown_kinds_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        kinds.find(kinds.FIGURES, name)


def test_an_own_kind_of_figure_is_one_file(tmp_path):
    """As a user would: its file, and ``kind: my_figures:Bars`` in a registry."""
    (tmp_path / "my_figures.py").write_text(OWN, encoding="utf-8")
    for name, value in (("a", 0.3), ("b", 0.4)):
        scores = {"run": name, "scores": {"clip": {"value": value}}}
        storage.write_json(tmp_path / f"{name}.json", scores)
    command = [
        *(sys.executable, "-m", "clockwork_experiments.steps.draw_figure"),
        *("--kind", "my_figures:Bars", "--output", "bars.png", "--inputs"),
        *("scores=a.json", "scores=b.json", "--spec"),
        json.dumps({"title": "T", "caption": "C", "runs": ["a", "b"]}),
    ]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin"},
    )
    assert done.returncode == 0, done.stderr
    assert imread(tmp_path / "bars.png").shape[1] == 600
    assert (tmp_path / "bars.pdf").is_file()


def test_the_file_of_an_own_kind_is_what_its_jobs_depend_on(tmp_path, monkeypatch):
    (tmp_path / "my_own.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    module, file = kinds.source(kinds.FIGURES, "my_own:Bars")
    assert (module, Path(file)) == ("my_own", tmp_path / "my_own.py")
    name, file = kinds.source(kinds.FIGURES, "grid")
    assert (name, file) == ("clockwork_experiments.report.figures.grid", "")


def test_a_job_depends_on_its_own_kind_alone():
    def code(name):
        return {path.name for path in provenance.code_of(name)}

    step, depth = code("steps.draw_figure"), code("report.figures.depth")
    assert "depth.py" in depth - step
    assert not {"editing.py", "perturbation.py", "training.py"} & (depth | step)
    step, levels = code("steps.set_table"), code("report.tables.levels")
    assert "levels.py" in levels - step
    assert "results.py" not in levels | step
