"""Every entry of the configuration becomes its dataclass, and nothing else fits."""

import dataclasses

import pytest
import yaml
from checkout import ROOT, check_all, resolved, written

from clockwork_diffusion.unet import CUTS
from clockwork_experiments.claims.registry import ClaimsSpec
from clockwork_experiments.config.needs.training import OF_THE_WORKFLOW
from clockwork_experiments.config.parse import parse
from clockwork_experiments.config.schema import schemas
from clockwork_experiments.cost.architectures import BACKBONES
from clockwork_experiments.data.datasets import DatasetSpec
from clockwork_experiments.data.pair_sets import PairSetSpec
from clockwork_experiments.generate.tasks import TASKS
from clockwork_experiments.generate.text import SamplerSpec
from clockwork_experiments.generate.translate import TranslationSpec
from clockwork_experiments.mini.few_steps import FewStepsSpec
from clockwork_experiments.mini.finetuning import FineTuneSpec
from clockwork_experiments.mini.translators import TranslatorSpec
from clockwork_experiments.report import kinds
from clockwork_experiments.report.tables import levels as level_tables
from clockwork_experiments.report.tables import results as tables
from clockwork_experiments.report.tables.table import Results
from clockwork_experiments.score.perturbation import PerturbationSpec
from clockwork_experiments.search.depth import DepthSearchSpec
from clockwork_experiments.search.methods import StepSearchSpec
from clockwork_experiments.steps.sample_images import RunSpec
from clockwork_experiments.steps.translate_images import TranslateSpec
from clockwork_experiments.train.backbones import BackboneSpec
from clockwork_experiments.train.distillation import AdaptorSpec
from clockwork_experiments.train.trajectories import TrajectorySpec

LEVELS = 13
"""Levels of Stable Diffusion's UNet."""
SCALES = ("mini", "paper")
CONFIG = {scale: resolved(scale) for scale in SCALES}


def entries(section: str):
    return [
        pytest.param(entry, id=f"{scale}-{name}")
        for scale in SCALES
        for name, entry in CONFIG[scale].get(section, {}).items()
    ]


def items(kind: str, *, by_scale: bool = True):
    registered = [
        (name, item)
        for path in sorted((ROOT / "workflow" / "papers").glob("*.yaml"))
        for name, item in yaml.safe_load(path.read_text("utf-8"))[kind].items()
    ]
    if not by_scale:
        return [pytest.param(item, id=name) for name, item in registered]
    return [
        pytest.param(settings, id=f"{name}-{scale}")
        for name, item in registered
        for scale, settings in item.items()
    ]


@pytest.mark.parametrize("run", entries("runs"))
def test_runs(run):
    chosen = {key: run[key] for key in ("sampler", "seed", "batch_size")}
    chosen |= {"level": run["level"]} if "level" in run else {}
    sampler = parse(SamplerSpec, parse(RunSpec, chosen).sampler)
    assert sampler.phases.needs_adaptor == ("adaptor" in run)


@pytest.mark.parametrize("trajectory", entries("trajectories"))
def test_trajectories(trajectory):
    assert parse(TrajectorySpec, trajectory["spec"]).cut in CUTS


@pytest.mark.parametrize("adaptor", entries("adaptors"))
def test_adaptors(adaptor):
    if "spec" in adaptor:
        assert parse(AdaptorSpec, adaptor["spec"]).cut in CUTS
    else:
        assert adaptor["kind"] in ("identity", "extrapolation", "taylor", "branch")


@pytest.mark.parametrize("dataset", entries("datasets"))
def test_datasets(dataset):
    own = {k: v for k, v in dataset.items() if k not in OF_THE_WORKFLOW}
    spec = parse(DatasetSpec, own)
    assert spec.count >= dataset["shards"]


@pytest.mark.parametrize("name", CONFIG["mini"]["training"]["translators"])
def test_recipes_of_the_mini_translators(name):
    spec = parse(TranslatorSpec, CONFIG["mini"]["training"]["translators"][name])
    shipped = {
        entry["path"]
        for entry in CONFIG["mini"]["translators"].values()
        if entry["task"] == spec.task
    }
    assert f"resources/mini/{name}" in shipped
    assert spec.optimisation.steps > 1


def test_the_distilled_stablesr_runs_as_it_was_trained():
    spec = parse(FewStepsSpec, CONFIG["mini"]["training"]["stablesr_distilled"])
    translators, runs = CONFIG["mini"]["translators"], CONFIG["mini"]["translations"]
    name = "stablesr_distilled"
    assert translators[name]["path"] == "resources/mini/stablesr-distilled"
    distilled = [run for run in runs.values() if run["translator"] == name]
    assert distilled
    for run in distilled:
        assert tuple(run["timesteps"]) == spec.timesteps
        assert run.get("scheduler", "ddim") == "ddim"
    # On scenes that its teacher has not learned from.
    made = CONFIG["mini"]["training"]["translators"]["stablesr"]
    assert spec.offset >= made["offset"] + made["pairs"]


@pytest.mark.parametrize("backbone", entries("backbones"))
def test_backbones(backbone):
    spec = parse(BackboneSpec, backbone["spec"])
    assert spec.backbone in BACKBONES
    # Without guidance there is no use for the empty prompt, and with it there is.
    assert (spec.empty_captions > 0) == BACKBONES[spec.backbone].guided


@pytest.mark.parametrize("search", entries("depth_searches"))
def test_depth_searches(search):
    keys = ("seed", "batch_size", "levels", "thresholds", "multi")
    own = {key: search[key] for key in keys if key in search}
    spec = parse(DepthSearchSpec, {"translation": {}, **own})
    assert spec.levels == tuple(range(LEVELS, 0, -1))
    if spec.multi is not None:
        # The full model is among the levels, or else nothing could be deeper.
        assert max(spec.multi.levels) == LEVELS
        assert 1 < spec.multi.groups <= search["steps"]


@pytest.mark.parametrize("search", entries("step_searches"))
def test_step_searches(search):
    told = {"translator", "set", "heldout", "evolution_set", "adaptor", "also"}
    keys = fields(StepSearchSpec)
    own = {key: search[key] for key in search.keys() & keys}
    spec = parse(StepSearchSpec, {"translation": {}, **own})
    sampled = search.keys() - told - keys
    assert sampled <= {"reference", *fields(TranslationSpec)}
    # The reference is what few steps are to look like.
    assert max(spec.steps) < search["reference"]
    assert spec.direction == (1 if "stablesr" in search["translator"] else -1)


@pytest.mark.parametrize("finetuned", entries("finetuned"))
def test_finetuned(finetuned):
    recipe = dict(CONFIG["mini"]["training"]["translators"][finetuned["recipe"]])
    recipe["optimisation"] = {**recipe["optimisation"], **finetuned["optimisation"]}
    chosen = {"level": finetuned["level"], "recipe": recipe}
    spec = parse(FineTuneSpec, chosen)
    # Fewer updates than the translator was made with, and other samples.
    made = CONFIG["mini"]["training"]["translators"][finetuned["recipe"]]
    assert finetuned["pairs"] <= made["pairs"]
    assert spec.recipe.optimisation.steps < made["optimisation"]["steps"]
    assert spec.recipe.optimisation.seed != made["optimisation"]["seed"]


@pytest.mark.parametrize("table", items("tables"))
def test_tables(table):
    spec = {key: value for key, value in table.items() if key != "kind"}
    assert parse(kinds.find(kinds.TABLES, table.get("kind", "results")), spec).title


@pytest.mark.parametrize("table", items("tables", by_scale=False))
def test_each_published_value_is_shown_at_one_scale_at_least(table):
    shown = [s for s in table.values() if s.get("kind", "results") == "results"]
    specs = [
        parse(tables.TableSpec, {k: v for k, v in settings.items() if k != "kind"})
        for settings in shown
    ]
    columns = [tables.COLUMNS[name] for spec in specs for name in spec.columns]
    shown = {column.key for column in columns if column.kind == "published"}
    for row in (row for spec in specs for row in spec.rows):
        assert set(row.published) <= shown, row.label


@pytest.mark.parametrize("figure", items("figures"))
def test_figures(figure):
    own = {key: figure[key] for key in figure if key not in ("kind", "on_request")}
    parse(kinds.find(kinds.FIGURES, figure.get("kind", "grid")), own)


@pytest.mark.parametrize("claimed", items("claims", by_scale=False))
def test_claims(claimed):
    assert parse(ClaimsSpec, claimed).claims


@pytest.mark.parametrize("perturbation", entries("perturbations"))
def test_perturbations(perturbation):
    assert parse(PerturbationSpec, perturbation["spec"]).layers


@pytest.mark.parametrize("pairs", entries("translation_sets"))
def test_translation_sets(pairs):
    # Shards are the workflow's affair.
    own = {key: pairs[key] for key in pairs.keys() - {"shards"}}
    assert parse(PairSetSpec, own).task in TASKS


@pytest.mark.parametrize("scale", SCALES)
def test_translations(scale):
    for name, run in CONFIG[scale]["translations"].items():
        task = CONFIG[scale]["translators"][run["translator"]]["task"]
        keys = fields(TranslationSpec) & set(run)
        spec = {"task": task, **{key: run[key] for key in keys}}
        assert parse(TranslationSpec, spec, name).visited[0] == 999
        keys = fields(TranslateSpec) & set(run)
        parse(TranslateSpec, {"translation": spec, **{key: run[key] for key in keys}})


def fields(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


def test_an_edited_curve_has_names_of_two_parts():
    _, papers = written()
    curve = papers["clockwork"]["figures"]["figure_6b"]["mini"]
    assert curve["kind"] == "edit_curves"
    for wrong in ("clip", "real/clip/high"):
        assert "has not two parts" in refused(curve, "panels", [{"score": wrong}])
    series = [{**curve["series"][0], "points": [{"run": "pnp"}]}]
    assert "'pnp' has not two parts" in refused(curve, "series", series)
    assert "unknown key 'edit_set'" in refused(curve, "edit_set", "real")


def test_a_setting_is_ours_or_a_text():
    _, papers = written()
    table = papers["clockwork"]["tables"]["table_s4"]["mini"]
    row = {"label": "Guidance", "ours": "generation.guidance", "text": "15"}
    said = "row 'Guidance' has ours, and a text"
    assert said in refused(table, "rows", [row], "tables", "table_s4")
    # Tables are of results unless they say otherwise.
    assert "mini: unknown key 'run'" in refused(
        table, "kind", None, "tables", "table_s4"
    )


def refused(item, key, value, of="figures", name="figure_6b"):
    """Return what is said of a table or figure with one key set, or left out."""
    config, papers = written()
    edited = {**item, key: value}
    if value is None:
        del edited[key]
    papers["clockwork"][of][name]["mini"] = edited
    with pytest.raises(ValueError) as caught:
        check_all(config, papers)
    return str(caught.value)


def test_published_values_have_columns():
    defs = schemas()["paper.schema.json"]["$defs"]
    for kind, columns in (
        ("LevelTableSpec", level_tables.LEVEL_COLUMNS),
        ("MultiTableRow", level_tables.MULTI_COLUMNS),
    ):
        named = defs[kind]["properties"]["published"]["propertyNames"]["enum"]
        assert {f"{name}_published" for name in named} <= set(columns)


def test_every_kind_of_column_has_a_source():
    results = fields(Results)
    for name, column in tables.COLUMNS.items():
        source = tables.SOURCES[column.kind]
        assert source in results if source else column.kind == "published", name


def test_the_study_is_the_mini_scale_with_larger_numbers():
    mini, study = resolved("mini"), resolved("study")
    again = study.pop("replicates")
    assert mini.keys() == study.keys()
    more = {
        f"{name}_seed{seed}"
        for run in again["runs"]
        for name in (run, study["runs"][run]["adaptor"])
        for seed in again["seeds"]
    }
    for section, entries_of_mini in mini.items():
        others = study[section].keys() - entries_of_mini.keys()
        assert entries_of_mini.keys() <= study[section].keys(), section
        assert others <= more and (not others or section in ("runs", "adaptors"))
    primary = (
        each["parts"][0]
        for each in check_all(*written())
        .papers["clockwork"]["claims"]["study"]["claims"]
        .values()
    )
    for part in primary:
        # What was trained is not judged by one training.
        for name in (part.get("of", ""), *part.get("over", ())):
            kind = study["adaptors"].get(study["runs"].get(name, {}).get("adaptor"), {})
            assert "spec" not in kind or name in again["runs"], name
    larger = 0
    for section in ("datasets", "edit_sets", "translation_sets"):
        for name, entry in mini[section].items():
            assert study[section][name]["count"] >= entry["count"], (section, name)
            larger += study[section][name]["count"] > entry["count"]
    assert larger > 20
    papers = check_all(*written()).papers
    for paper, registry in papers.items():
        assert registry["claims"]["study"] == registry["claims"]["mini"], paper
        for kind in ("tables", "figures"):
            for item in registry[kind].values():
                assert ("study" in item) == ("mini" in item)


def test_what_a_scale_chooses_is_there():
    scales = yaml.safe_load((ROOT / "workflow" / "scales.yaml").read_text("utf-8"))
    pilot = resolved("pilot")
    for section, names in scales["pilot"]["chosen"].items():
        assert list(pilot[section]) and set(pilot[section]) == set(names), section
    assert "trajectories" not in pilot and "translations" not in pilot
