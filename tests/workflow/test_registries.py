"""Every entry of the configuration becomes its dataclass, and nothing else fits."""

import dataclasses

import pytest
import yaml
from checkout import ROOT

from clockwork_diffusion import tables
from clockwork_diffusion.architectures import BACKBONES
from clockwork_diffusion.backbones import BackboneSpec
from clockwork_diffusion.datasets import DatasetSpec
from clockwork_diffusion.distillation import AdaptorSpec
from clockwork_diffusion.mini.autoencoder import AutoencoderSpec
from clockwork_diffusion.mini.classifier import ClassifierSpec
from clockwork_diffusion.mini.clip import ClipSpec
from clockwork_diffusion.mini.features import FeaturesSpec
from clockwork_diffusion.mini.structure import StructureSpec
from clockwork_diffusion.mini.teacher import TeacherSpec
from clockwork_diffusion.perturbation import PerturbationSpec
from clockwork_diffusion.sampling import SCHEDULERS, SamplerSpec
from clockwork_diffusion.specs import parse
from clockwork_diffusion.split import CUTS
from clockwork_diffusion.steps import draw_figure
from clockwork_diffusion.steps.sample_images import RunSpec
from clockwork_diffusion.training import Optimisation
from clockwork_diffusion.trajectories import TrajectorySpec

CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text("utf-8"))
SCHEMA = yaml.safe_load(
    (ROOT / "workflow" / "schemas" / "config.schema.yaml").read_text("utf-8")
)["$defs"]
RECIPES = {
    "autoencoder": AutoencoderSpec,
    "teacher": TeacherSpec,
    "clip": ClipSpec,
    "classifier": ClassifierSpec,
    "features": FeaturesSpec,
    "structure": StructureSpec,
}


def entries(section: str):
    return [
        pytest.param(entry, id=f"{scale}-{name}")
        for scale in CONFIG
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


@pytest.mark.parametrize("name", CONFIG["mini"]["training"])
def test_recipes_of_the_mini_models(name):
    spec = parse(RECIPES[name], CONFIG["mini"]["training"][name])
    stages = spec.stages if name == "teacher" else (spec,)
    assert all(stage.optimisation.steps > 1 for stage in stages)


@pytest.mark.parametrize("backbone", entries("backbones"))
def test_backbones(backbone):
    spec = parse(BackboneSpec, backbone["spec"])
    assert spec.backbone in BACKBONES
    # Without guidance there is no use for the empty prompt, and with it there is.
    assert (spec.empty_captions > 0) == BACKBONES[spec.backbone].guided


@pytest.mark.parametrize("table", items("tables"))
def test_tables(table):
    assert parse(tables.TableSpec, table).rows


@pytest.mark.parametrize("table", items("tables", by_scale=False))
def test_each_published_value_is_shown_at_one_scale_at_least(table):
    specs = [parse(tables.TableSpec, settings) for settings in table.values()]
    columns = [tables.COLUMNS[name] for spec in specs for name in spec.columns]
    shown = {column.key for column in columns if column.kind == "published"}
    for row in (row for spec in specs for row in spec.rows):
        assert set(row.published) <= shown, row.label


@pytest.mark.parametrize("figure", items("figures"))
def test_figures(figure):
    references = ("kind", "model", "perturbation")
    spec = {key: value for key, value in figure.items() if key not in references}
    parse(draw_figure.SPECS[figure.get("kind", "grid")], spec)


@pytest.mark.parametrize("perturbation", entries("perturbations"))
def test_perturbations(perturbation):
    assert parse(PerturbationSpec, perturbation["spec"]).layers


def fields(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


def test_schema_and_dataclasses_know_the_same_keys():
    def keys(name: str, *below: str) -> set[str]:
        place = SCHEMA[name]
        for key in below:
            place = place["properties"][key]
        return set(place["properties"])

    assert keys("sampler") == fields(SamplerSpec)
    assert keys("dataset") == fields(DatasetSpec) | {"shards", "reference"}
    assert keys("trajectory", "spec") == fields(TrajectorySpec)
    assert keys("adaptor", "spec") == fields(AdaptorSpec)
    recipe = keys("adaptor", "spec", "optimisation")
    assert recipe == fields(Optimisation)


def test_schema_and_code_know_the_same_choices():
    paper = (ROOT / "workflow" / "schemas" / "paper.schema.yaml").read_text("utf-8")
    figure = yaml.safe_load(paper)["$defs"]["figure"]
    assert figure["properties"]["kind"]["enum"] == list(draw_figure.SPECS)
    sampler = SCHEMA["sampler"]["properties"]
    assert sampler["scheduler"]["enum"] == list(SCHEDULERS)
    model = SCHEMA["model"]["properties"]
    assert model["backbone"]["enum"] == list(BACKBONES)
    assert SCHEMA["weightless"]["properties"]["cut"]["enum"] == list(CUTS)


def test_every_kind_of_column_has_a_source():
    results = fields(tables.Results) - {"runs"}
    for name, column in tables.COLUMNS.items():
        source = tables.SOURCES[column.kind]
        assert source in results if source else column.kind == "published", name
