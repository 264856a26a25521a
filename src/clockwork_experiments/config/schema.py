"""Make JSON Schema of types, for `validate` and for editors.

``python -m clockwork_experiments.config.schema`` writes the files of
``workflow/schemas``; a test fails when they are not what the types say.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clockwork_experiments.config.load import WRITTEN
from clockwork_experiments.config.types import Bounds, Items, OneOf, Ref, Text

Schema = dict[str, Any]

MAKING = {
    "like": "Another entry of the section, all of whose keys are taken.",
    "matrix": "Keys, each with a list: an entry is made of every combination.",
    "only": "The only scale that it is at.",
}
"""What any entry of `config.yaml` may say of how it is made."""

ALSO = {
    "adaptors": {
        "trajectories": "What differs of the trajectories it is trained on.",
        "also_steps": "Further numbers of steps that it is trained for.",
    },
    "benchmark": {
        "steps": "Number of sampling steps.",
        "grid": "Which rule chooses the time steps; the scheduler's own if left out.",
        "clock": "Runs the whole UNet once in so many steps.",
        "mask": "A digit for each step, 1 where it is full, instead of a clock.",
        "gate": "Of T-GATE: so many steps compute cross-attention.",
        "ratio": "Of ToMe: the share of the tokens that is merged away.",
        "budget": "Of a plan: the share of the FLOPs that it may spend.",
    },
    "models": {"guidance": "Scale of guidance of its runs."},
    "translators": {
        "guidance": "Scale of guidance by the prompt of its translations.",
        "image_guidance": "Scale of guidance by the input of its translations.",
    },
}
"""What else an entry may say, by section."""

ELSEWHERE = r"^[\w.]+:\w+$"
"""A class of one's own, as ``my_package.my_module:MyClass``."""

ID = "^[a-z][a-z0-9_]*$"


def schema_of(kind: type, narrowed: Mapping[str, Any]) -> Schema:
    """Return the schema of a dataclass, with those that it holds in ``$defs``.

    Args:
        kind: The dataclass. Its docstring, and those of its bases, describe the keys.
        narrowed: Types of fields that a class leaves wide, by field or ``Class.field``.
    """
    defs: dict[str, Schema] = {}
    define(kind, narrowed, defs)
    root = defs.pop(kind.__name__)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **root,
        "$defs": dict(sorted(defs.items())),
    }


def define(kind: type, narrowed: Mapping[str, Any], defs: dict[str, Schema]) -> Schema:
    """Add the schema of a dataclass to others, by its name, and return a reference."""
    name = kind.__name__
    if name not in defs:
        defs[name] = {}
        hints = typing.get_type_hints(kind, include_extras=True)
        described = _described(kind)
        properties, required = {}, []
        for field in dataclasses.fields(kind):
            hint = hints[field.name]
            if typing.get_origin(hint) not in (typing.Annotated, typing.Literal):
                for owner in kind.__mro__:
                    key = f"{owner.__name__}.{field.name}"
                    if key in narrowed:
                        hint = narrowed[key]
                        break
                else:
                    if not _holds_classes(hint):
                        hint = narrowed.get(field.name, hint)
            properties[field.name] = {
                "description": described[field.name],
                **_typed(hint, narrowed, defs),
            }
            if field.default is field.default_factory is dataclasses.MISSING:
                required.append(field.name)
                if _holds_classes(hint) and "items" in properties[field.name]:
                    properties[field.name].setdefault("minItems", 1)
        defs[name] = {
            "description": (inspect.getdoc(kind) or "").split("\n")[0],
            "type": "object",
            "additionalProperties": False,
            "required": required,
            "properties": properties,
        }
    return {"$ref": f"#/$defs/{name}"}


def _holds_classes(hint: Any) -> bool:
    arguments = typing.get_args(hint)
    return dataclasses.is_dataclass(hint) or any(map(_holds_classes, arguments))


def _described(kind: type) -> dict[str, str]:
    """Return what docstrings say of fields, those of bases where they say nothing."""
    found: dict[str, str] = {}
    for each in kind.__mro__:
        text = inspect.getdoc(each) or ""
        _, _, attributes = text.partition("Attributes:\n")
        for name, said in re.findall(
            r"^    (\w+): (.*?)(?=^    \w+: |^\S|\Z)", attributes, re.M | re.S
        ):
            found.setdefault(name, " ".join(said.split()))
    return found


def _typed(hint: Any, narrowed: Mapping[str, Any], defs: dict[str, Schema]) -> Schema:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        schema = _typed(arguments[0], narrowed, defs)
        for mark in arguments[1:]:
            schema |= _marked(mark)
        return schema
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin in (typing.Union, types.UnionType):
        kinds = [each for each in arguments if each is not type(None)]
        made = [_typed(each, narrowed, defs) for each in kinds]
        return made[0] if len(made) == 1 else {"oneOf": made}
    if origin is tuple:
        return {"type": "array", "items": _typed(arguments[0], narrowed, defs)}
    if origin is dict:
        schema = {"type": "object"}
        if arguments[1] is not Any:
            schema["additionalProperties"] = _typed(arguments[1], narrowed, defs)
        names = _typed(arguments[0], narrowed, defs)
        if names != {"type": "string"}:
            schema["propertyNames"] = names
        elif _holds_classes(arguments[1]) and "SourceFile" not in str(arguments[1]):
            schema["propertyNames"] = {"pattern": ID}
        return schema
    if dataclasses.is_dataclass(hint):
        return define(typing.cast(type, hint), narrowed, defs)
    kinds_of = {str: "string", int: "integer", float: "number", bool: "boolean"}
    return {"type": kinds_of[hint]} if hint in kinds_of else {}


def _marked(mark: Any) -> Schema:
    if isinstance(mark, Ref):
        return {"reference": list(mark.sections)}
    if isinstance(mark, OneOf):
        known = {"enum": list(mark.values)}
        return {"anyOf": [known, {"pattern": ELSEWHERE}]} if mark.elsewhere else known
    if isinstance(mark, Items):
        unique = {"uniqueItems": True} if mark.unique else {}
        return ({"minItems": mark.least} if mark.least else {}) | unique
    if isinstance(mark, Text):
        return (
            {"minLength": 1}
            if mark.pattern == "."
            else {"pattern": f"^({mark.pattern})$"}
        )
    assert isinstance(mark, Bounds)
    named = {
        "minimum": mark.least,
        "maximum": mark.most,
        "exclusiveMinimum": mark.above,
        "exclusiveMaximum": mark.below,
    }
    return {key: value for key, value in named.items() if value is not None}


def written_schema(whole: Schema) -> Schema:
    """Return the schema of `config.yaml`: which keys there are, and what they are.

    Entries are written flat there, in parts, and with texts that a matrix fills in (see
    `experiments`), so that values are checked once they are resolved, and not before.

    Args:
        whole: The schema of a resolved configuration.
    """
    defs = whole["$defs"]
    scale, editing = defs["Scale"]["properties"], defs["Editing"]["properties"]
    sections = {name: _section(name, each, defs) for name, each in scale.items()}
    parts = {name: _section(name, each, defs) for name, each in editing.items()}
    sections["editing"] |= {"additionalProperties": False, "properties": parts}
    sections["templates"] = {"description": "What nested settings may be like."}
    own = dict(whole["properties"])
    own["random"] = {"description": "What differs from workflow/random.yaml."}
    for name in WRITTEN:
        said = f"What differs at this scale alone: {own[name]['description'].lower()}"
        own[name] = {"description": said, "$ref": "#/$defs/sections"}
    return {
        "$schema": whole["$schema"],
        "description": "config.yaml: what a user edits.",
        "type": "object",
        "additionalProperties": False,
        "properties": {**own, **sections},
        "$defs": {
            "sections": {"additionalProperties": False, "properties": sections},
        },
    }


def _section(name: str, section: Schema, defs: Mapping[str, Schema]) -> Schema:
    """Return a section as it is written; its entries with the keys of their specs."""
    made = {"description": section["description"]}
    if "additionalProperties" not in section:
        return made
    waiting = [section["additionalProperties"]]
    waiting += [defs["TrajectorySpec"]] if name == "adaptors" else []
    found = {**MAKING, **ALSO.get(name, {})}
    while waiting:
        kind = waiting.pop(0)
        kind = defs.get(kind.get("$ref", "").removeprefix("#/$defs/"), kind)
        waiting.extend(kind.get("oneOf", ()))
        for key, each in kind.get("properties", {}).items():
            found.setdefault(key, each["description"])
            if key in ("sampler", "spec"):
                waiting.append(each)
    # Null is a type of its own: an entry that is to be left out.
    entry = {
        "additionalProperties": False,
        "properties": {key: {"description": said} for key, said in found.items()},
    }
    return {**made, "additionalProperties": entry}


def as_text(schema: Schema) -> str:
    """Return a schema as JSON with one line for each key that it describes."""

    def lines(value: Any, depth: int) -> str:
        text = json.dumps(value, ensure_ascii=False)
        if depth == 0 or not isinstance(value, dict) or len(text) < 60:
            return text
        gap = "\n" + " " * (5 - depth)
        inner = [
            f"{json.dumps(key)}: {lines(each, depth - 1)}"
            for key, each in value.items()
        ]
        return "{" + ",".join(gap + each for each in inner) + gap[:-1] + "}"

    return lines(schema, 4) + "\n"


def schemas() -> dict[str, Schema]:
    """Return the schemas by the name of their file."""
    from clockwork_experiments.config import sections, shown

    whole = schema_of(sections.Config, sections.NARROWED)
    return {
        "config.schema.json": written_schema(whole),
        "paper.schema.json": shown.paper_schema(),
        "resolved.schema.json": whole,
    }


if __name__ == "__main__":
    for name, made in schemas().items():
        Path("workflow", "schemas", name).write_text(as_text(made), encoding="utf-8")
