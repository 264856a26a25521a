"""Turn sections of the configuration into frozen dataclasses, and reject the rest.

Each step receives its scientific settings as one JSON object, ``--spec``. The
dataclass that it becomes lies beside the code that it configures; this module holds
the ones that several modules share, and the parser.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from typing import Any, TypeVar

T = TypeVar("T")


def parse(kind: type[T], data: Any, where: str = "spec") -> T:
    """Build a dataclass from plain data, nested dataclasses and tuples included.

    Args:
        kind: The dataclass.
        data: A mapping, or a JSON text of one.
        where: What to call the section in messages.

    Raises:
        ValueError: If a key is unknown or missing, or a value has the wrong type or is
            not finite. The message names the section, the key and what is allowed.
    """
    if isinstance(data, str):
        try:
            data = json.loads(data)
        except ValueError as error:
            raise ValueError(f"{where} is not valid JSON: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{where} must be a mapping, not {data!r}")
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in data:
        if key not in fields:
            raise ValueError(
                f"unknown key {key!r} in {where}; known are {', '.join(fields)}"
            )
    hints = typing.get_type_hints(kind)
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _convert(hints[name], data[name], f"{where}.{name}")
        elif (
            field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
        ):
            raise ValueError(f"{where} lacks the key {name!r}")
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (hint,) = (argument for argument in arguments if argument is not type(None))
        return _convert(hint, value, where)
    if dataclasses.is_dataclass(hint):
        return parse(typing.cast(type, hint), value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{where} must be a list, not {value!r}")
        if arguments[-1] is Ellipsis:
            kinds: tuple[Any, ...] = (arguments[0],) * len(value)
        else:
            kinds = arguments
        if len(kinds) != len(value):
            raise ValueError(f"{where} must have {len(kinds)} items, not {len(value)}")
        return tuple(
            _convert(kind, item, f"{where}[{index}]")
            for index, (kind, item) in enumerate(zip(kinds, value, strict=True))
        )
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{where} must be a mapping, not {value!r}")
        return {
            key: _convert(arguments[1], item, f"{where}.{key}")
            for key, item in value.items()
        }
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ValueError(f"{where} must be of type {hint.__name__}, not {value!r}")
    if hint is float and not math.isfinite(value):
        raise ValueError(f"{where} must be a finite number, not {value}")
    return value
