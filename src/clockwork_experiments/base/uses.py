"""Which definitions a step uses: functions, classes and constants of both packages.

Found by reading the source without running it. From the step's module on, each name
that a definition mentions is followed to where it is defined. A *registry*, a mapping
of names to definitions that is only ever looked up by name, leads to those entries
alone whose name is used: as a setting of the job, or as text in the code that it uses.
So a scheduler, a kind or a metric that a job does not name is none of its affair.

Where it cannot be told what is used, all is taken: a module that is handed on as a
whole, a registry that is walked through, one of whose names none is mentioned.

To read all sources takes seconds, which each start of the workflow would spend. So what
was found is kept in Snakemake's own folder, and holds as long as no source changes.
"""

from __future__ import annotations

import ast
import atexit
import contextlib
import hashlib
import importlib.util
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.base.provenance import PACKAGE, PACKAGES, file_of

KEPT = Path(".snakemake", "code_used.json")
"""Where it is kept what was found, from the working folder on."""

Place = tuple[str, str]
"""Module and name; the name is empty for what runs at import, ``*`` for all of it."""

ALL, EFFECTS = "*", ""
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
WALKING = ("items", "values", "copy")
"""Methods of a mapping that lead to more than one of its entries."""


@dataclass
class _Part:
    """A definition: its code, what it mentions, what text it holds."""

    code: list[str] = field(default_factory=list)
    mentions: set[Place] = field(default_factory=set)
    walked: set[Place] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)
    entries: dict[str, _Part] = field(default_factory=dict)

    def add(self, other: _Part) -> None:
        self.code += other.code
        self.mentions |= other.mentions
        self.walked |= other.walked
        self.texts |= other.texts
        self.entries |= other.entries


@dataclass(frozen=True)
class Used:
    """What a step uses.

    Attributes:
        digests: A digest of the code that is used of each module.
        places: Module and name of each definition.
        names: Names of registries' entries, used or not.
    """

    digests: dict[str, str]
    places: frozenset[Place]
    names: frozenset[str]


def words_of(text: str) -> frozenset[str]:
    """Return whatever a JSON text may name: its strings, and identifiers in them."""
    return frozenset(re.findall(r'[^"\\]+', text)) | frozenset(re.findall(r"\w+", text))


def code_used(module: str, settings: str = "", *others: str) -> str:
    """Return what a job's code is known by; it changes when the code does.

    Comments, docstrings and the order of definitions are no part of it.

    Args:
        module: Dotted name below the experiments, such as ``steps.train_adaptor``.
        settings: The settings of the job as text.
        others: Further modules below the experiments that the step finds by name.

    Raises:
        ValueError: If there is no such module.
    """
    found: dict[str, str] = {}
    inside = [name for name in others if file_of(name) is not None]
    for each in (module, *(name.removeprefix(f"{PACKAGE}.") for name in inside)):
        named = words_of(settings) & frozenset(_kept(each, None).names)
        for name, digest in _kept(each, frozenset(named)).digests.items():
            found[name] = found.get(name, "") + digest
    outside = map(_outside, sorted(set(re.findall(r"[\w.]+:\w+", settings))))
    digests = (f"{name}:{digest}" for name, digest in sorted(found.items()))
    return " ".join([*digests, *filter(None, outside)])


class _Found(NamedTuple):
    """What `Used` says that is worth keeping."""

    digests: dict[str, str]
    names: list[str]


@cache
def _kept(module: str, named: frozenset[str] | None) -> _Found:
    """Return what `_of` finds, as an earlier process has found it if one has."""
    known = _earlier()
    key = json.dumps([module, named if named is None else sorted(named)])
    if key not in known:
        used = _of(module, named)
        known[key] = _Found(used.digests, sorted(used.names))
    return known[key]


@cache
def _earlier() -> dict[str, _Found]:
    """Read what is kept, and see to it that what is added will be."""
    known: dict[str, _Found] = {}
    of = _sources()
    try:
        kept = json.loads(KEPT.read_text(encoding="utf-8"))
        if kept["of"] == of:
            known = {key: _Found(**found) for key, found in kept["found"].items()}
    except (OSError, ValueError, TypeError, KeyError):
        pass  # none yet, or not ours: it is found anew
    atexit.register(_keep, known, of, len(known))
    return known


def _keep(known: dict[str, _Found], of: str, before: int) -> None:
    # Only where Snakemake has its folder, and nothing that was read has changed since.
    if len(known) == before or not KEPT.parent.is_dir() or _sources() != of:
        return
    found = {key: each._asdict() for key, each in known.items()}
    with contextlib.suppress(OSError):  # a full disk costs time alone
        storage.write_json(KEPT, {"of": of, "found": found})


def _sources() -> str:
    """Return a digest of all sources of both packages, and of what reads them."""
    whole = hashlib.sha256(sys.version.encode())
    for package in PACKAGES:
        for path in sorted((provenance.ROOT / package).rglob("*.py")):
            whole.update(str(path).encode() + path.read_bytes())
    return whole.hexdigest()


def used_by(module: str, settings: str = "") -> frozenset[Place]:
    """Return module and name of each definition that the same is made of."""
    named = words_of(settings) & _of(module, None).names
    return _of(module, frozenset(named)).places


@cache
def _of(module: str, named: frozenset[str] | None) -> Used:
    """Follow what a module mentions; ``named`` None takes all entries of registries."""
    start = f"{PACKAGE}.{module}"
    if file_of(start) is None:
        raise ValueError(f"there is no module {start}")
    found: dict[Place, _Part] = {}
    taken: dict[Place, set[str]] = {}
    whole: set[Place] = set()
    texts: set[str] = set(named or ())
    waiting: list[Place] = [(start, name) for name in _module(start).parts]
    names: set[str] = set()
    while waiting:
        while waiting:
            place = waiting.pop()
            if place in found:
                continue
            part = found[place] = _part(place)
            waiting += [*part.mentions, *part.walked, (place[0], EFFECTS)]
            whole |= part.walked
            texts |= part.texts
        # What is mentioned by now may name further entries.
        for place, part in list(found.items()):
            if not part.entries:
                continue
            names |= part.entries.keys()
            chosen = texts & part.entries.keys()
            if named is None or place in whole or not chosen:
                chosen = set(part.entries)
            for name in chosen - taken.setdefault(place, set()):
                taken[place].add(name)
                entry = part.entries[name]
                texts |= entry.texts
                waiting += [*entry.mentions, *entry.walked]
                whole |= entry.walked
    code: dict[str, list[str]] = defaultdict(list)
    for place, part in found.items():
        code[place[0]] += part.code
        for name in taken.get(place, ()):
            code[place[0]] += part.entries[name].code
    return Used(
        {
            name.removeprefix("clockwork_"): _digest(code[name])
            for name in sorted(code)
            if code[name]
        },
        frozenset(found),
        frozenset(names),
    )


def _digest(code: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(set(code))).encode()).hexdigest()[:8]


def _part(place: Place) -> _Part:
    module, name = place
    parts = _module(module).parts
    if name != ALL:
        return parts.get(name, _Part())
    return _Part(walked={(module, each) for each in parts})


class _Module:
    """A module's definitions by name."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.parts: dict[str, _Part] = defaultdict(_Part)
        self.imports: dict[str, str] = {}
        body = ast.parse(path.read_text(encoding="utf-8")).body
        body = [node for node in body if not _only_for_types(node)]
        for node in body:
            if not isinstance(node, DEFINITIONS):
                for each in ast.walk(node):
                    self.imports |= _imported(each)
        for node in body:
            for bound in _bound(node):
                self.parts[bound] = _Part()
        for node in body:
            if isinstance(node, ast.Import | ast.ImportFrom) or _is_text(node):
                continue
            part = self._read(node)
            for bound in _bound(node) or [EFFECTS]:
                self.parts[bound].add(part)
        # To import a module runs what it imports, too.
        at_import = {_home(target) for target in self.imports.values()} - {None}
        at_import |= {(home or "").rpartition(".")[0] for home in at_import}
        self.parts[EFFECTS].mentions |= {
            (home, EFFECTS) for home in at_import if home and file_of(home)
        }

    def _read(self, node: ast.stmt) -> _Part:
        entries = _registry(node)
        if entries is None:
            return self._mentioned(node)
        part = _Part(code=[ast.dump(_target(node))])
        for key, value in entries.items():
            part.entries[key] = self._mentioned(value)
        return part

    def _mentioned(self, node: ast.AST) -> _Part:
        part = _Part(code=[ast.dump(_without_texts(node))])
        nodes = list(ast.walk(node))
        local = dict(self.imports)
        for each in nodes:
            local |= _imported(each)
        looked_up, by_class = _looked_up(nodes), _by_class(nodes)
        inner: set[ast.AST] = set()
        for each in nodes:
            if isinstance(each, ast.Constant) and isinstance(each.value, str):
                part.texts.add(each.value)
            if isinstance(each, ast.Attribute | ast.Name) and each not in inner:
                chain, base = _chain(each)
                inner |= base
                if not chain:
                    continue
                place = self._resolve(chain, local)
                if place is not None:
                    all_of_it = each not in looked_up or chain[-1] in WALKING
                    all_of_it = all_of_it and each not in by_class
                    (part.walked if all_of_it else part.mentions).add(place)
        return part

    def _resolve(self, chain: list[str], local: dict[str, str]) -> Place | None:
        first, *rest = chain
        if first in local:
            return _follow(local[first], rest)
        return (self.name, first) if first in self.parts else None


@cache
def _module(name: str) -> _Module:
    path = file_of(name)
    assert path is not None, name
    return _Module(name, path)


def _home(target: str) -> str | None:
    """Return the module that holds an imported name, or that it is."""
    for name in (target, target.rpartition(".")[0]):
        if name and file_of(name) is not None:
            return name
    return None


def _follow(target: str, rest: list[str]) -> Place | None:
    """Return where an imported name, and what is asked of it, is defined."""
    while rest and file_of(f"{target}.{rest[0]}") is not None:
        target, rest = f"{target}.{rest[0]}", rest[1:]
    if file_of(target) is not None:
        return _defined(target, rest[0]) if rest else (target, ALL)
    home, _, name = target.rpartition(".")
    return _defined(home, name) if file_of(home) is not None else None


def _defined(module: str, name: str) -> Place:
    known = _module(module)
    if name in known.parts:
        return module, name
    if name in known.imports:
        return _follow(known.imports[name], []) or (module, EFFECTS)
    return module, ALL  # by a function of its own, perhaps


def _imported(node: ast.AST) -> dict[str, str]:
    """Return what a statement imports of ours: names here to dotted names there."""
    found: dict[str, str] = {}
    if isinstance(node, ast.Import):
        for alias in node.names:
            first = alias.name.split(".")[0]
            found[alias.asname or first] = alias.name if alias.asname else first
    elif isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
            found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return {k: v for k, v in found.items() if v.split(".")[0] in PACKAGES}


def _only_for_types(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _bound(node: ast.stmt) -> list[str]:
    """Return the names that a statement of a module defines, or adds to."""
    if isinstance(node, DEFINITIONS):
        return [node.name]
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign | ast.AugAssign):
        targets = [node.target]
    return [
        each.id
        for target in targets
        for each in ast.walk(target)
        if isinstance(each, ast.Name)
    ]


def _target(node: ast.stmt) -> ast.AST:
    assert isinstance(node, ast.Assign | ast.AnnAssign)
    return node.targets[0] if isinstance(node, ast.Assign) else node.target


def _registry(node: ast.stmt) -> dict[str, ast.expr] | None:
    """Return the entries of a mapping of names to what is more than a constant."""
    value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
    if not isinstance(value, ast.Dict) or not value.keys:
        return None
    found = {
        key.value: each
        for key, each in zip(value.keys, value.values, strict=True)
        if isinstance(key, ast.Constant) and isinstance(key.value, str)
    }
    whole = len(found) == len(value.keys)
    plain = all(isinstance(each, ast.Constant) for each in found.values())
    return None if plain or not whole else found


def _looked_up(nodes: Iterable[ast.AST]) -> set[ast.AST]:
    """Return the names in a definition of which, as registries, entries are asked.

    ``D[key]``, ``D.get(key)``, ``key in D``, ``", ".join(D)``, ``*D``; or a call.
    """
    found: set[ast.AST] = set()
    for each in nodes:
        if isinstance(each, ast.Subscript | ast.Starred):
            found.add(each.value)
        elif isinstance(each, ast.Compare):
            asked = zip(each.ops, each.comparators, strict=True)
            found.update(v for op, v in asked if isinstance(op, ast.In | ast.NotIn))
        elif isinstance(each, ast.Call):
            found.add(each.func)
            if isinstance(each.func, ast.Attribute) and each.func.attr == "join":
                found.update(each.args)
    return found


def _by_class(nodes: Iterable[ast.AST]) -> set[ast.AST]:
    """Return what is walked through for the one entry whose class has some name."""
    found: set[ast.AST] = set()
    for each in nodes:
        walked: list[ast.expr] = []
        if isinstance(each, ast.For):
            walked = [each.iter]
        elif isinstance(each, ast.DictComp | ast.GeneratorExp | ast.ListComp):
            walked = [part.iter for part in each.generators]
        if walked and any(map(_asks_class, ast.walk(each))):
            found |= {part for top in walked for part in ast.walk(top)}
    return found


def _asks_class(node: ast.AST) -> bool:
    called = node.func if isinstance(node, ast.Call) else None
    if isinstance(called, ast.Name):
        return called.id == "type"
    return isinstance(node, ast.Attribute) and node.attr == "__name__"


def _chain(node: ast.AST) -> tuple[list[str], set[ast.AST]]:
    """Return the names of ``a.b.c``, and its inner nodes; no names if it is other."""
    names: list[str] = []
    inner: set[ast.AST] = set()
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
        inner.add(node)
    if not isinstance(node, ast.Name):
        return [], set()
    return [node.id, *reversed(names)], inner


def _without_texts(node: ast.AST) -> ast.AST:
    """Return a definition without docstrings, which nothing depends on."""
    for each in ast.walk(node):
        body = getattr(each, "body", None)
        if isinstance(body, list):
            kept = [part for part in body if not _is_text(part)]
            each.body = kept or [ast.Pass()]  # type: ignore[attr-defined]
    return node


@cache
def _outside(name: str) -> str:
    """Return a digest of a module outside, named ``module:Class``, if there is one."""
    module = name.partition(":")[0]
    # From the working folder, as `python -m` finds it; or installed.
    path = Path(*module.split(".")).with_suffix(".py")
    if module.split(".")[0] in PACKAGES:
        return ""
    if not path.is_file():
        try:
            found = importlib.util.find_spec(module)
        except (ImportError, ValueError):
            return ""
        if found is None or found.origin is None:
            return ""
        path = Path(found.origin)
    return f"{module}:{_digest([path.read_text(encoding='utf-8')])}"
