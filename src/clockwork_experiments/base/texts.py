r"""Read text that people bring: lists, JSON, JSON Lines, YAML, and captions in them.

Text is UTF-8, with or without a byte order mark, and a line ends at ``\n`` or
``\r\n`` alone, whatever else Python takes for an end (U+2028, U+0085, …). Whatever
cannot be used is said in one line that names the file and, where there are lines, the
line.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

LONGEST = 10_000
"""Characters that a caption may have; more is a file of another kind."""

DEEPEST = 100
"""Levels that YAML may be nested; an alias may lead round in a circle."""

MOST = 1_000_000
"""Values that YAML may hold, each counted wherever an alias repeats it."""

_MARKS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_SPACES = re.compile("[\t\n\r\v\f\x1c-\x1f\x85\u2028\u2029]+")
_UNREADABLE = re.compile("[\x00-\x1f\x7f-\x9f\ufeff\ufffe\ufffd\ud800-\udfff]")


def existing(path: Path) -> Path:
    """Return the path of a file that is there.

    Raises:
        ValueError: If it is not.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    return path


def read_text(path: Path) -> str:
    """Read a file's text, without its byte order mark.

    Raises:
        ValueError: If there is no such file, or it is not UTF-8 text.
    """
    return decode(existing(path).read_bytes(), str(path))


def decode(data: bytes, where: str) -> str:
    """Return the text of bytes, without its byte order mark; see `read_text`."""
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            raise ValueError(f"{where} is {encoding} text; save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        row, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
        raise ValueError(
            f"{where}: line {row} is not UTF-8 text (byte 0x{data[error.start]:02X} "
            f"at its position {column}); save the file as UTF-8"
        ) from error
    if "\0" in text:
        row = text[: text.index("\0")].count("\n") + 1
        raise ValueError(f"{where}: line {row} holds a zero byte, and is no text")
    return text


def read_lines(path: Path) -> list[str]:
    """Read a file's lines, empty ones too, without their ends.

    Raises:
        ValueError: If the file cannot be read, or a line has a carriage return in it.
    """
    lines = read_text(path).replace("\r\n", "\n").split("\n")
    for number, line in enumerate(lines, 1):
        if "\r" in line:
            raise ValueError(
                f"{path}: line {number} has a carriage return (U+000D) in it; lines "
                "end at a newline, with or without one before it"
            )
    return lines if lines[-1] else lines[:-1]


def caption(value: Any, where: str) -> str:
    """Return a caption on one line, without space around it.

    Raises:
        ValueError: If it is no text, empty, too long, or holds what no text holds.
    """
    if not isinstance(value, str):
        raise ValueError(f"{where} {short(value)} is not a text")
    text = _SPACES.sub(" ", value).strip()
    if not text:
        raise ValueError(f"{where} is empty")
    if len(text) > LONGEST:
        raise ValueError(
            f"{where} has {len(text)} characters, and at most {LONGEST} are allowed"
        )
    odd = _UNREADABLE.search(text)
    if odd:
        raise ValueError(
            f"{where} has the character U+{ord(odd[0]):04X}, which no text has"
        )
    return text


def short(value: Any) -> str:
    """Return a value as a message shows it."""
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


# --- JSON and YAML --------------------------------------------------------------------


def read_json(path: Path) -> Any:
    """Read a JSON file; see `parse_json`."""
    return parse_json(read_text(path), str(path))


def parse_json(text: str, where: str) -> Any:
    """Return what JSON says.

    Raises:
        ValueError: If it is not JSON, names a key twice, or is nested too deeply.
    """
    try:
        return json.loads(text, object_pairs_hook=_mapping)
    except RecursionError as error:
        raise ValueError(f"{where} is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"{where} is not valid JSON: {error}") from error


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} is there twice")
    return found


def read_json_lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Read the objects of a JSON Lines file; empty lines count, and are left out.

    Returns:
        Each with where it stands, for messages.

    Raises:
        ValueError: If a line is not JSON, or no object.
    """
    found = []
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        data = parse_json(line, where)
        if not isinstance(data, dict):
            raise ValueError(f"{where} is not a mapping: {line.strip()[:80]}")
        found.append((where, data))
    return found


def read_yaml(path: Path) -> Any:
    """Read a YAML file of one document.

    Raises:
        ValueError: If it is not YAML, names a key twice, is nested too deeply, or its
            aliases make it too large.
    """
    import yaml

    text = read_text(path)
    # libyaml's is ten times as fast; not every build of PyYAML has it.
    kind = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        depth = 0
        for event in yaml.parse(text, kind):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:  # before libyaml falls over it
                raise RecursionError
        loader = kind(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_keys(node, set())
        data = loader.construct_document(node)
        _count(data, 0, [0])
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply") from error
    # Dates and numbers that there are not raise errors of their own.
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        why = " ".join(str(error).split())
        raise ValueError(f"{path} is not valid YAML: {why}") from error
    return data


def _check_keys(node: Any, known: set[int]) -> None:
    """Refuse a mapping that names a key twice.

    Before anything is constructed: what ``<<`` merges in may name a key again.
    """
    import yaml

    if id(node) in known or isinstance(node, yaml.ScalarNode):
        return
    known.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_keys(item, known)
        return
    seen: set[tuple[str, str]] = set()
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode):
            if (key.tag, key.value) in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value!r} is there twice", key.start_mark
                )
            seen.add((key.tag, key.value))
        _check_keys(value, known)


def _count(data: Any, depth: int, seen: list[int]) -> None:
    """Walk through data, aliases and all, as far as the limits allow."""
    seen[0] += 1
    if depth > DEEPEST:
        raise RecursionError
    if seen[0] > MOST:
        raise ValueError(f"its aliases make more than {MOST} values of it")
    for item in (
        data.values()
        if isinstance(data, dict)
        else data
        if isinstance(data, list)
        else ()
    ):
        _count(item, depth + 1, seen)
