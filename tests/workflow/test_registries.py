"""Every entry of the configuration becomes its dataclass, and nothing else fits."""

import dataclasses
import typing

import pytest
import yaml
from checkout import ROOT, resolved
from jsonschema import Draft202012Validator

from clockwork_diffusion.unet import CUTS
from clockwork_experiments.claims.levels import LevelCount, MultiRow
from clockwork_experiments.claims.registry import METRICS, ClaimsSpec, Part
from clockwork_experiments.claims.timesteps import StepAnswer
from clockwork_experiments.config.parse import parse
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
from clockwork_experiments.report.tables import joint
from clockwork_experiments.report.tables import levels as level_tables
from clockwork_experiments.report.tables import results as tables
from clockwork_experiments.report.tables.table import Results
from clockwork_experiments.report.tables.timesteps import METHODS as COMPARED
from clockwork_experiments.score.perturbation import PerturbationSpec
from clockwork_experiments.search.levels import PROBLEMS
from clockwork_experiments.search.methods import METHODS, StepSearchSpec
from clockwork_experiments.steps.sample_images import RunSpec
from clockwork_experiments.steps.search_depth import DepthSearchSpec
from clockwork_experiments.steps.translate_images import TranslateSpec
from clockwork_experiments.train.backbones import BackboneSpec
from clockwork_experiments.train.distillation import AdaptorSpec
from clockwork_experiments.train.trajectories import TrajectorySpec

LEVELS = 13
"""Levels of Stable Diffusion's UNet."""
SCALES = ("mini", "paper")
CONFIG = {scale: resolved(scale) for scale in SCALES}
PAPER = yaml.safe_load(
    (ROOT / "workflow" / "schemas" / "paper.schema.yaml").read_text("utf-8")
)["$defs"]


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
        assert adaptor["kind"] in ("identity", "extrapolation", "branch")


@pytest.mark.parametrize("dataset", entries("datasets"))
def test_datasets(dataset):
    # These two are the workflow's affair.
    own = {k: v for k, v in dataset.items() if k not in ("shards", "reference")}
    spec = parse(DatasetSpec, own)
    assert spec.count >= dataset["shards"]


@pytest.mark.parametrize("name", CONFIG["mini"]["training"]["translators"])
def test_recipes_of_the_mini_translators(name):
    spec = parse(TranslatorSpec, CONFIG["mini"]["training"]["translators"][name])
    shipped = {
        entry["path"]
        for entry in CONFIG["mini"]["translators"].values()
        if entry["task"] == spec.task and "over" not in entry
    }
    assert shipped == {f"resources/mini/{name}"}
    assert spec.optimisation.steps > 1


def test_the_distilled_stablesr_runs_as_it_was_trained():
    spec = parse(FewStepsSpec, CONFIG["mini"]["training"]["stablesr_distilled"])
    translators, runs = CONFIG["mini"]["translators"], CONFIG["mini"]["translations"]
    (name,) = [key for key, entry in translators.items() if "over" in entry]
    assert translators[name]["path"] == "resources/mini/stablesr-distilled"
    distilled = [run for run in runs.values() if run["translator"] == name]
    assert distilled
    for run in distilled:
        assert tuple(run["timesteps"]) == spec.timesteps
        assert run.get("scheduler", "ddim") == "ddim"
    # On scenes that its teacher has not learned from.
    made = CONFIG["mini"]["training"]["translators"][translators[name]["over"]]
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


@pytest.mark.parametrize("kind", kinds.names(kinds.TABLES))
def test_schema_and_tables_know_the_same_keys(kind):
    check_keys(PAPER[kind], kinds.find(kinds.TABLES, kind))


@pytest.mark.parametrize(
    "kind",
    [
        "grid",
        "curves",
        "edit_grid",
        "edit_timings",
        "pnp_caching",
        "translation_grid",
        "depth_curves",
        "step_plane",
        "step_ticks",
        "step_curves",
        "search_progress",
        "joint_pareto",
    ],
)
def test_schema_and_figures_know_the_same_keys(kind):
    check_keys(PAPER[kind], kinds.find(kinds.FIGURES, kind))


def check_keys(place: dict, spec: type) -> None:
    """Compare the keys of a schema and of a dataclass, and of what these list."""
    # For the workflow: what it is, and when it is made.
    theirs = {"kind", "on_request"}
    assert set(place["properties"]) - theirs == fields(spec) - theirs
    required = {
        field.name
        for field in dataclasses.fields(spec)
        if field.default is field.default_factory is dataclasses.MISSING
    }
    assert set(place["required"]) - {"kind"} == required
    for name, hint in typing.get_type_hints(spec).items():
        listed = next(iter(typing.get_args(hint)), None)
        if dataclasses.is_dataclass(listed):
            check_keys(place["properties"][name]["items"], listed)


def test_edited_runs_have_names_of_two_parts():
    curve = {
        "kind": "edit_curves",
        "title": "T",
        "caption": "C",
        "x_label": "TFLOPs",
        "panels": [{"score": "real/clip"}],
        "series": [
            {
                "label": "PnP",
                "group": "pnp",
                "style": "baseline",
                "points": [{"run": "pnp/steps50"}],
            }
        ],
    }
    validator = Draft202012Validator({"$defs": PAPER, "$ref": "#/$defs/figure"})
    assert validator.is_valid(curve)
    for wrong in ("clip", "real/clip/high"):
        panel = {**curve["panels"][0], "score": wrong}
        assert not validator.is_valid({**curve, "panels": [panel]})
    series = {**curve["series"][0], "points": [{"run": "pnp"}]}
    assert not validator.is_valid({**curve, "series": [series]})
    # A plain curve's runs and scores have one.
    assert validator.is_valid({**curve, "kind": "curves", "series": [series]})
    assert not validator.is_valid({**curve, "edit_set": "real"})


def test_tables_are_of_results_unless_they_say_otherwise():
    row = {"label": "Guidance", "published": "15.0", "ours": "generation.guidance"}
    table = {"title": "T", "caption": "C", "run": "real/pnp/steps50", "rows": [row]}
    validator = Draft202012Validator({"$defs": PAPER, "$ref": "#/$defs/table"})
    assert not validator.is_valid(table)
    assert validator.is_valid({**table, "kind": "settings"})
    both = {**row, "text": "15"}
    assert not validator.is_valid({**table, "kind": "settings", "rows": [both]})
    results = {"title": "T", "caption": "C", "columns": ["clip"], "rows": [row]}
    assert not validator.is_valid(results)
    assert validator.is_valid({**results, "rows": [{"label": "SD", "run": "sd"}]})


def test_schema_and_code_know_the_same_choices():
    for item, package in (("figure", kinds.FIGURES), ("table", kinds.TABLES)):
        named, _ = PAPER[item]["properties"]["kind"]["anyOf"]
        assert {*named["enum"]} == {*kinds.names(package)}
    metrics = PAPER["part"]["properties"]["metrics"]["items"]["enum"]
    assert set(metrics) == set(METRICS)
    parts = PAPER["part"]["properties"]
    assert set(parts) == fields(Part)
    assert set(parts["level"]["properties"]) == fields(LevelCount)
    assert set(parts["multi"]["properties"]) == fields(MultiRow)
    assert parts["multi"]["properties"]["problem"]["enum"] == list(PROBLEMS)
    assert set(parts["steps"]["properties"]) == fields(StepAnswer)
    assert PAPER["step_method"]["enum"] == list(COMPARED)
    costs = PAPER["level_costs"]["properties"]
    assert costs["unit"]["enum"] == list(level_tables.UNITS)
    published = PAPER["levels"]["properties"]["published"]["properties"]
    assert {f"{name}_published" for name in published} <= set(
        level_tables.LEVEL_COLUMNS
    )
    rows = PAPER["multi_depth"]["properties"]["rows"]["items"]["properties"]
    assert rows["problem"]["enum"] == list(PROBLEMS)
    assert {f"{name}_published" for name in rows["published"]["properties"]} <= set(
        level_tables.MULTI_COLUMNS
    )
    for name in ("joint", "joint_pareto"):
        together = PAPER[name]["properties"]
        assert set(together["unit"]["enum"]) == set(joint.UNITS)
        assert together["method"]["enum"] == list(METHODS)
        scores = together["models"]["items"]["properties"]["scores"]["items"]
        assert {joint.PSNR, *scores["enum"]} == set(joint.SCORES)


def test_every_kind_of_column_has_a_source():
    results = fields(Results)
    for name, column in tables.COLUMNS.items():
        source = tables.SOURCES[column.kind]
        assert source in results if source else column.kind == "published", name
