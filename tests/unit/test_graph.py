"""What rules ask of papers and models, without Snakemake."""

from __future__ import annotations

import json
import os
import time
from types import SimpleNamespace

import pytest
import yaml
from checkout import ROOT, check_all, written

from clockwork_experiments.config.needs.papers import Known
from clockwork_experiments.graph import (
    binding,
    guards,
    jobs,
    listed,
    models,
    reporting,
    shown,
    sizes,
)


def job(**wildcards: str) -> SimpleNamespace:
    return SimpleNamespace(**{"scale": "mini", **wildcards})


@pytest.fixture(scope="module")
def registry():
    config, papers = written()
    found = check_all(config, papers)
    found.others["random"] = config["random"]
    for name in ("mini_models", "mini_adaptors"):
        text = (ROOT / "workflow" / f"{name}.yaml").read_text("utf-8")
        found.others[name] = yaml.safe_load(text)
    return found


def test_functions_are_told_what_their_first_argument_is(registry):
    told = binding.bound(listed, {"registry": registry})
    assert told.tables("mini") == listed.tables(registry, "mini")
    assert told.packed_spec(job()) == '{"scale": "mini"}'
    assert told.DRAWN == listed.DRAWN


def test_tables_and_figures_of_both_papers_are_listed_once(registry):
    for kind in (listed.tables, listed.figures):
        found = kind(registry, "mini")
        assert len(found) == len(set(found))
        assert {path.split("/")[3] for path in found} >= {"clockwork", "compression"}
    on_request = set(listed.on_request(registry, "mini"))
    assert on_request and not on_request & set(listed.figures(registry, "mini"))
    # Drawn from the architecture or from what is printed, so that nothing is loaded.
    drawn = {path for path in listed.drawn_figures(registry, "paper")}
    assert drawn < set(listed.figures(registry, "paper"))


def test_numbered_tables_come_in_the_papers_order(registry):
    names = [
        path.removeprefix("results/mini/tables/").removesuffix(".tex")
        for path in listed.numbered_tables(registry, job())
    ]
    ours = [name for name in names if name.startswith("clockwork")]
    assert ours[:3] == ["clockwork/table_1", "clockwork/table_2", "clockwork/table_3"]
    assert names.index("compression/table_3") > names.index("clockwork/table_s4")


@pytest.mark.parametrize("scale", ["mini", "study", "paper"])
def test_every_table_and_figure_is_of_a_kind_that_takes_it(registry, scale):
    for kind in ("tables", "figures"):
        for paper, name, _ in registry.items(scale, kind):
            wildcards = job(scale=scale, paper=paper, **{kind[:-1]: name})
            needed = shown.item_inputs(registry, wildcards)
            told = shown.item_options(registry, wildcards, None)
            assert all(path in told for paths in needed.values() for path in paths)
            module = shown.item_module(registry, wildcards)
            assert module.startswith(f"clockwork_experiments.report.{kind}."), name


def test_paper_tables_show_scores_where_these_are_measured(registry):
    wildcards = job(scale="paper", paper="clockwork", table="table_1")
    assert Known(registry.config, "paper").measured is bool(registry.config["measured"])
    whole = {**registry.config, "measured": True}
    with_scores = shown.item_of(type(registry)(whole, registry.papers), wildcards)
    plain = type(registry)({**whole, "measured": False}, registry.papers)
    added = set(with_scores["columns"]) - set(
        shown.item_of(plain, wildcards)["columns"]
    )
    assert {"frechet", "clip"} <= added


def test_claims_name_what_they_are_judged_by(registry):
    for paper in listed.claiming(registry, "mini"):
        wildcards = job(paper=paper)
        told = shown.claims_options(registry, wildcards, None)
        needed = shown.claims_inputs(registry, wildcards)
        assert all(path in told for paths in needed.values() for path in paths)
        units = json.loads(
            shown.power_counts(registry, job(paper=paper, scale="study"))
        )
        claims = json.loads(shown.claims_told(registry, wildcards))["claims"]
        assert units.keys() == claims.keys()
        assert all(study >= quick for quick, study in units.values())


def test_models_are_trained_from_those_that_they_read(registry):
    for name, model in registry.others["mini_models"].items():
        wildcards = job(mini_model=name)
        read = models.reads(registry, wildcards)
        assert read.keys() == model.get("reads", {}).keys()
        assert models.options(registry, wildcards).count("=") == len(read)
        assert isinstance(json.loads(models.spec(registry, wildcards)), dict)
    assert set(json.loads(models.mini_teachers(registry))) <= {
        *models.mini_models(registry),
        *registry.others["mini_models"],
    }


def test_backbones_may_be_made_from_one_another(registry):
    made = {
        name: models.backbone_teacher(registry, job(backbone=name))
        for name in registry.entries("mini", "backbones")
    }
    assert made["efficient"] == "resources/mini/stable-diffusion"
    assert made["distilled"] == "results/mini/models/efficient"
    option = models.quality_option(registry, job(backbone="efficient"))
    assert (ROOT / option.removeprefix("--quality ")).is_file()


def test_random_weights_stand_in_for_what_the_scale_reads(registry):
    random = registry.others["random"]
    for name in random["weights"]:
        spec = json.loads(sizes.weights_spec(registry, job(weights=name)))
        assert spec == random["weights"][name]
    assert set(sizes.costed(registry, job(scale="random"))) == set(
        sizes.real_sizes(registry)
    )
    assert sizes.costed(registry, job()) == []
    assert "Random weights" in sizes.costs_note(registry, job(scale="random"))


def test_a_run_makes_all_and_a_report_shows_what_there_is(
    registry, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    files = reporting.of_a_run(registry, ["a", "b"], ["c"])
    assert files == ["a", "b", "c"]
    there = tmp_path / "results/mini/tables/clockwork/table_1.html"
    there.parent.mkdir(parents=True)
    there.touch()
    monkeypatch.setattr(reporting, "REPORTING", True)
    assert reporting.of_a_run(registry, ["a"]) == [str(there.relative_to(tmp_path))]


def test_memory_and_time_grow_with_attempts_up_to_their_limits():
    config = {"max_mem_mb": 10000, "max_runtime": 100, "gpu_model": ""}
    ask = jobs.memory(config, 4000, paper=9000)
    assert [ask(job(), n) for n in (1, 2, 3)] == [4000, 8000, 10000]
    assert ask(job(scale="paper"), 1) == 9000
    # Of rules without a scale.
    assert ask(SimpleNamespace(), 1) == 4000
    assert jobs.memory(config, 4000)(job(scale="paper"), 1) == 4000
    assert [jobs.walltime(config, 60)(job(), n) for n in (1, 2)] == [60, 100]
    assert jobs.gpu_model(config, job()) is None


def test_placeholders_and_dates_are_refused_in_a_line(tmp_path, monkeypatch):
    account = {"slurm_account": SimpleNamespace(raw="YOUR_ACCOUNT")}
    with pytest.raises(ValueError, match="slurm_account is still YOUR_ACCOUNT"):
        guards.check_account(account)
    guards.check_account(None)
    partitions = tmp_path / "partitions.yaml"
    partitions.write_text("partitions: {YOUR_PARTITION: {}}")
    settings = SimpleNamespace(partition_config=str(partitions))
    with pytest.raises(ValueError, match="YOUR_PARTITION is a placeholder"):
        guards.check_cluster(settings)
    partitions.write_text("partitions: {gpu: {}}")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="there is no sbatch here"):
        guards.check_cluster(settings)
    guards.check_cluster(SimpleNamespace())
    late = tmp_path / "late"
    late.touch()
    guards.check_dates([SimpleNamespace(input=[str(late)])])
    os.utime(late, (time.time() + 99,) * 2)
    with pytest.raises(ValueError, match="late is dated in the future"):
        guards.check_dates([SimpleNamespace(input=[str(late)])])
