"""Check data by JSON Schema and, in the same walk, that references name what there is.

Of JSON Schema this knows what `schema` makes, and says where something is wrong, what
is allowed and what was probably meant, in one line. ``reference`` is its own keyword:
the sections in one of which an entry of that id must be.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from clockwork_experiments.base import texts
from clockwork_experiments.config.experiments import meant, one_of

Schema = Mapping[str, Any]
Problem = tuple[tuple[str, ...], str]
"""Where something is wrong, and what."""

Known = Callable[[tuple[str, ...], str], Mapping[str, Any]]
"""The entries of a section, for a reference at a place."""

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}


def check(data: Any, schema: Schema, name: str, known: Known) -> None:
    """Refuse data that a schema does not allow.

    Args:
        data: What was read.
        schema: A whole schema, with its ``$defs``.
        name: What to call the data, such as the name of its file.
        known: Returns the entries that a reference may name.

    Raises:
        ValueError: If something is wrong: the first of it.
    """
    for where, what in problems(data, schema, schema.get("$defs", {}), known):
        raise ValueError(f"{name}: {'.'.join(where) or 'top level'}: {what}")


def problems(
    data: Any,
    schema: Schema,
    defs: Mapping[str, Schema],
    known: Known,
    where: tuple[str, ...] = (),
) -> Iterator[Problem]:
    """Yield what is wrong with data, from the outside to the inside."""
    if "$ref" in schema:
        target = defs[schema["$ref"].removeprefix("#/$defs/")]
        yield from problems(data, target, defs, known, where)
    if "type" in schema and not _is(data, schema["type"]):
        yield where, f"{texts.short(data)} is not of type {schema['type']!r}"
        return
    if "enum" in schema and not any(_equal(data, each) for each in schema["enum"]):
        listed = ", ".join(map(repr, schema["enum"]))
        near = meant(data, filter(_text, schema["enum"])) if _text(data) else ""
        yield where, f"{texts.short(data)} is not one of {listed}{near}"
    if "const" in schema and not _equal(data, schema["const"]):
        yield where, f"{texts.short(data)} is not {schema['const']!r}"
    for part in schema.get("allOf", ()):
        if "if" not in part or not _first(data, part["if"], defs, known, where):
            yield from problems(data, part.get("then", part), defs, known, where)
    if "not" in schema and not _first(data, schema["not"], defs, known, where):
        yield where, f"{texts.short(data)} has what excludes each other"
    for key in ("oneOf", "anyOf"):
        if key in schema:
            yield from _alternatives(data, schema[key], defs, known, where)
    if isinstance(data, dict):
        yield from _of_mapping(data, schema, defs, known, where)
    elif isinstance(data, list):
        yield from _of_list(data, schema, defs, known, where)
    elif isinstance(data, str):
        yield from _of_text(data, schema, known, where)
    elif isinstance(data, int | float) and not isinstance(data, bool):
        yield from _of_number(data, schema, where)


def _first(data: Any, *rest: Any) -> Problem | None:
    return next(problems(data, *rest), None)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _is(data: Any, kind: str) -> bool:
    if isinstance(data, bool):
        return kind == "boolean"
    return isinstance(data, _TYPES[kind])


def _equal(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _alternatives(
    data: Any,
    schemas: list[Schema],
    defs: Mapping[str, Schema],
    known: Known,
    where: tuple[str, ...],
) -> Iterator[Problem]:
    """Yield the problems of the alternative that was most probably meant."""
    found = [list(problems(data, each, defs, known, where)) for each in schemas]
    if [] in found:
        return

    def strange(each: list[Problem]) -> tuple[int, int]:
        # Where a key that tells alternatives apart is wrong, it is another one.
        outer = sum(len(place) <= len(where) + 1 for place, _ in each)
        return outer, len(each)

    yield from min(found, key=strange)


def _of_mapping(
    data: Mapping[Any, Any],
    schema: Schema,
    defs: Mapping[str, Schema],
    known: Known,
    where: tuple[str, ...],
) -> Iterator[Problem]:
    properties = schema.get("properties", {})
    others = schema.get("additionalProperties", True)
    names = schema.get("propertyNames", {})
    for key in data:
        if not isinstance(key, str):
            yield where, f"the key {key!r} is not a text"
        elif key not in properties and others is False:
            yield where, _unknown(key, properties)
        elif names and _first(key, names, defs, known, where):
            listed = names.get("anyOf", [names])[0].get("enum")
            other = f"the id {key!r} does not match {names.get('pattern')!r}"
            yield where, _unknown(key, listed) if listed else other
    for key in schema.get("required", ()):
        if key not in data:
            yield where, f"{key!r} is a required property"
    if len(data) < schema.get("minProperties", 0):
        yield where, "it is empty"
    for key, value in data.items():
        inner = properties.get(key, others)
        if isinstance(inner, Mapping):
            yield from problems(value, inner, defs, known, (*where, str(key)))


def _unknown(key: str, keys: Iterable[str]) -> str:
    return f"unknown key {key!r}; known keys are {', '.join(keys)}{meant(key, keys)}"


def _of_list(
    data: list[Any],
    schema: Schema,
    defs: Mapping[str, Schema],
    known: Known,
    where: tuple[str, ...],
) -> Iterator[Problem]:
    if len(data) < schema.get("minItems", 0):
        yield where, "it is empty"
    if len(data) > schema.get("maxItems", len(data)):
        yield (
            where,
            f"it has {len(data)} items, and at most {schema['maxItems']} may be",
        )
    if schema.get("uniqueItems"):
        seen = [json.dumps(item, sort_keys=True) for item in data]
        for item in dict.fromkeys(each for each in seen if seen.count(each) > 1):
            yield where, f"{item} is there twice"
    for index, item in enumerate(data):
        yield from problems(
            item, schema.get("items", {}), defs, known, (*where, str(index))
        )


def _of_text(
    data: str, schema: Schema, known: Known, where: tuple[str, ...]
) -> Iterator[Problem]:
    if len(data) < schema.get("minLength", 0):
        yield where, "it is empty"
    if "pattern" in schema and not _matches(data, schema["pattern"]):
        yield where, f"{texts.short(data)} does not match {schema['pattern']!r}"
    sections = schema.get("reference", ())
    if sections:
        entries = {key for each in sections for key in known(where, each)}
        if data not in entries:
            listed = {key: None for each in sections for key in known(where, each)}
            yield where, one_of(data, listed, " or ".join(map(_called, sections)))


def _called(section: str) -> str:
    part, _, inner = section.partition(".")
    return f"{inner} of {part}" if inner else part


def _matches(text: str, pattern: str) -> bool:
    # `$` also matches before a newline at the end.
    return not text.endswith("\n") and re.search(pattern, text) is not None


def _of_number(
    data: float, schema: Schema, where: tuple[str, ...]
) -> Iterator[Problem]:
    if not math.isfinite(data):
        yield where, f"{data} is not a finite number"
    for key, wrong, said in (
        ("minimum", float.__lt__, "is less than the minimum of"),
        ("maximum", float.__gt__, "is greater than the maximum of"),
        ("exclusiveMinimum", float.__le__, "is not greater than"),
        ("exclusiveMaximum", float.__ge__, "is not less than"),
    ):
        if key in schema and wrong(float(data), float(schema[key])):
            yield where, f"{data} {said} {schema[key]}"
