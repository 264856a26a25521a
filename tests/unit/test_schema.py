"""Schemas say what types say, and data are checked by them as JSON Schema has it."""

import dataclasses
import json
import re
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from checkout import ROOT
from jsonschema import Draft202012Validator

from clockwork_diffusion.schedulers import SCHEDULERS
from clockwork_experiments.config import schema
from clockwork_experiments.config.load import read_config
from clockwork_experiments.config.types import Bounds, Items, OneOf, Ref, Text
from clockwork_experiments.config.validate import check, problems

FOLDER = ROOT / "workflow" / "schemas"


@dataclass(frozen=True)
class Cat:
    """A cat.

    Attributes:
        kind: What it is.
        age: In years, of
            which it has many.
        lives: How many are left.
    """

    kind: Literal["cat"]
    age: Annotated[float, Bounds(above=0, below=40)]
    lives: Annotated[int, Bounds(0, 9)] = 9


@dataclass(frozen=True)
class Dog:
    """A dog.

    Attributes:
        kind: What it is.
        name: What it answers to.
        trainer: Who trained it.
        tricks: What it can do.
    """

    kind: Literal["dog"]
    name: Annotated[str, Text("[A-Z][a-z]+")]
    trainer: Annotated[str, Ref("people")] = ""
    tricks: Annotated[
        tuple[Annotated[str, OneOf(("sit", "roll"))], ...], Items(1, unique=True)
    ] = ()


@dataclass(frozen=True)
class House:
    """A house.

    Attributes:
        pets: Who lives there.
        rooms: How many rooms it has.
        people: Who lives there, too.
    """

    pets: dict[str, Cat | Dog]
    rooms: int
    people: dict[str, str] = dataclasses.field(default_factory=dict)


SCHEMA = schema.schema_of(House, {"rooms": Annotated[int, Bounds(1)]})
GOOD = {
    "rooms": 2,
    "pets": {
        "tom": {"kind": "cat", "age": 3},
        "rex": {"kind": "dog", "name": "Rex", "trainer": "ann", "tricks": ["sit"]},
    },
    "people": {"ann": "Ann"},
}


def said(data: object) -> str:
    with pytest.raises(ValueError) as caught:
        check(data, SCHEMA, "house.yaml", lambda where, section: GOOD[section])
    return str(caught.value)


def test_types_become_a_schema():
    cat = SCHEMA["$defs"]["Cat"]
    assert cat["required"] == ["kind", "age"]
    assert cat["properties"]["age"] == {
        "description": "In years, of which it has many.",
        "type": "number",
        "exclusiveMinimum": 0,
        "exclusiveMaximum": 40,
    }
    assert SCHEMA["properties"]["rooms"]["minimum"] == 1
    assert SCHEMA["$defs"]["Dog"]["properties"]["trainer"]["reference"] == ["people"]
    Draft202012Validator.check_schema(SCHEMA)


WRONG = [
    ("rooms", 0, "rooms: 0 is less than the minimum of 1"),
    ("rooms", "two", "rooms: 'two' is not of type 'integer'"),
    ("rooms", True, "rooms: True is not of type 'integer'"),
    ("pets.tom.age", 0, "pets.tom.age: 0 is not greater than 0"),
    ("pets.tom.age", 40, "pets.tom.age: 40 is not less than 40"),
    ("pets.tom.lives", 10, "pets.tom.lives: 10 is greater than the maximum of 9"),
    ("pets.tom.kind", "bird", "pets.tom.kind: 'bird' is not one of 'cat'"),
    ("pets.tom.aeg", 2, "pets.tom: unknown key 'aeg'; known keys are kind, age, lives"),
    ("pets.rex.name", "rex", "pets.rex.name: 'rex' does not match '^([A-Z][a-z]+)$'"),
    ("pets.rex.tricks", [], "pets.rex.tricks: it is empty"),
    ("pets.rex.tricks", ["sit", "sit"], 'pets.rex.tricks: "sit" is there twice'),
    ("pets.rex.tricks", ["fly"], "pets.rex.tricks.0: 'fly' is not one of 'sit', 'ro"),
    ("pets.Rex", {"kind": "cat", "age": 1}, "pets: the id 'Rex' does not match"),
    ("pets", [], "pets: [] is not of type 'object'"),
    ("cellar", 1, "top level: unknown key 'cellar'; known keys are pets, rooms"),
]


def edited(keys: str, value: object) -> dict:
    data = json.loads(json.dumps(GOOD))
    *parents, last = keys.split(".")
    place = data
    for key in parents:
        place = place[key]
    place[last] = value
    return data


@pytest.mark.parametrize(("keys", "value", "message"), WRONG)
def test_what_is_wrong_is_said_as_json_schema_has_it(keys, value, message):
    data = edited(keys, value)
    assert said(data).startswith(f"house.yaml: {message}")
    assert not Draft202012Validator(SCHEMA).is_valid(data)


def test_what_is_right_is_right_for_both():
    check(GOOD, SCHEMA, "house.yaml", lambda where, section: GOOD[section])
    assert Draft202012Validator(SCHEMA).is_valid(GOOD)


def test_what_lacks_is_named():
    data = edited("rooms", 2)
    del data["pets"]["tom"]["age"]
    assert said(data) == "house.yaml: pets.tom: 'age' is a required property"


def test_references_name_what_there_is():
    assert said(edited("pets.rex.trainer", "anne")) == (
        "house.yaml: pets.rex.trainer: 'anne' is not one of the people (ann); "
        "did you mean 'ann'?"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_are_finite(value):
    assert "is not a finite number" in said(edited("pets.tom.age", value))


def test_nothing_ends_in_a_newline():
    assert "'Rex\\n' does not match" in said(edited("pets.rex.name", "Rex\n"))
    pet = {"kind": "cat", "age": 1}
    assert "the id 'tim\\n' does not match" in said(edited("pets", {"tim\n": pet}))


def test_keys_are_texts():
    assert "the key 3 is not a text" in said({**GOOD, "people": {3: "x"}})


def test_schemas_are_what_the_types_say():
    made = schema.schemas()
    assert {path.name for path in FOLDER.glob("*.json")} == set(made)
    for name, each in made.items():
        written = (FOLDER / name).read_text("utf-8")
        # If not: `python -m clockwork_experiments.config.schema` writes it again.
        assert written == schema.as_text(each), name
        Draft202012Validator.check_schema(each)


def test_every_key_is_described():
    for made in schema.schemas().values():
        for of in (made, *made["$defs"].values()):
            for key, each in of.get("properties", {}).items():
                assert each["description"], (of["description"], key)


def test_json_schema_allows_the_configuration():
    made = schema.schemas()["resolved.schema.json"]
    config = {k: v for k, v in read_config({}, ROOT).items() if k != "random"}
    errors = list(Draft202012Validator(made).iter_errors(config))
    assert not errors, errors[0]


def of_config(name: str, data: object) -> list[str]:
    """Return what is wrong with an entry of the configuration."""
    made = schema.schemas()["resolved.schema.json"]
    kind = made["$defs"]["Scale"]["properties"][name]["additionalProperties"]
    names = {"models": {"sd": {}}, "translators": {"stablesr": {}}}
    found = problems(data, kind, made["$defs"], lambda _, section: names[section])
    return [what for _, what in found]


def test_a_translator_is_a_pipeline_or_steers_a_model():
    pipeline = {"task": "edit", "path": "resources/edit", "tokens": 77}
    control = {"task": "control", "path": "resources/control", "model": "sd"}
    for right in (pipeline, {**pipeline, "task": "text"}, control):
        assert not of_config("translators", right)
    for wrong in (
        {"task": "text", "model": "sd"},
        {"task": "edit", "path": "resources/edit"},
        {**pipeline, "model": "sd"},
        {**control, "tokens": 77},
        {"task": "edit", "model": "sd"},
        {**pipeline, "over": "sd"},
    ):
        assert of_config("translators", wrong), wrong


@pytest.mark.parametrize(
    "kind", ["resnet", "unet_light", "my_package.my_module:MyAdaptor"]
)
def test_an_adaptor_may_come_from_elsewhere(kind):
    spec = {"kind": kind, "cut": "stage1", "clock": 2}
    spec["optimisation"] = {"steps": 1, "batch_size": 1, "lr": 0.1}
    made = schema.schemas()["resolved.schema.json"]
    kinds = made["$defs"]["AdaptorSpec"]
    assert not list(problems(spec, kinds, made["$defs"], lambda *_: {}))
    wrong = {**spec, "kind": f"{kind} x"}
    assert list(problems(wrong, kinds, made["$defs"], lambda *_: {}))


def test_a_search_method_may_come_from_elsewhere():
    made = schema.schemas()["resolved.schema.json"]
    methods = made["$defs"]["StepSearch"]["properties"]["methods"]

    def wrong(name: str) -> list[str]:
        found = problems({name: [5]}, methods, made["$defs"], lambda *_: {})
        return [what for _, what in found]

    assert not wrong("greedy") and not wrong("my_package.my_module:Mine")
    (said,) = wrong("gredy")
    assert said.startswith("unknown key 'gredy'; known keys are greedy, ")
    assert said.endswith("did you mean 'greedy'?")


@pytest.mark.parametrize("scheduler", [*SCHEDULERS, "UniPCMultistepScheduler"])
def test_any_scheduler_of_diffusers_is_one(scheduler):
    made = schema.schemas()["resolved.schema.json"]
    pattern = made["$defs"]["SamplerSpec"]["properties"]["scheduler"]["pattern"]
    assert re.search(pattern, scheduler)


def test_levels_are_those_of_the_unet():
    made = schema.schemas()["resolved.schema.json"]
    level = made["$defs"]["Run"]["properties"]["level"]
    assert (level["minimum"], level["maximum"]) == (1, 13)
