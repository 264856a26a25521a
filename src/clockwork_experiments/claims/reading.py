"""Read what runs have yielded, for claims to be judged by."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from clockwork_experiments.base import storage
from clockwork_experiments.claims.evidence import Evidence
from clockwork_experiments.data import pair_sets, shards
from clockwork_experiments.random import marks
from clockwork_experiments.report.kinds import Given
from clockwork_experiments.score import dead

Tensors = dict[str, dict[str, torch.Tensor]]


def read_evidence(
    given: Given, settings: Mapping[str, Mapping[str, Any]]
) -> tuple[Evidence, list[Any]]:
    """Return the evidence, and the encoders that it was measured with.

    Args:
        given: Files as `claims.needs.needs` names them.
        settings: What `claims.needs.settings` returns.

    Raises:
        ValueError: If a file is made with random weights, or of a dead run, or some are
            of other encoders than others.
    """
    for name in (
        *("features", "edits", "translations"),
        *("perturbations", "searches", "step_searches"),
    ):
        for path in given.paths(name):
            if marks.is_random(path):
                raise ValueError(
                    f"{path} is made with random weights, by which no claim is judged"
                )
    _refuse_dead(given)
    files: dict[str, list[Path]] = {}
    for path in given.paths("images"):
        files.setdefault(path.parent.name, []).append(path)

    def images(name: str) -> Iterator[torch.Tensor]:
        return shards.Rows(files[name], "images").blocks(shards.IMAGES)

    features, of_features = _features(given.paths("features"))
    edits, of_edits = _edits(given.paths("edits"))
    translations, of_translations = _translations(given.paths("translations"))
    sets = {path.stem: pair_sets.read_set(path).kinds for path in given.paths("pairs")}
    evidence = Evidence(
        runs=settings["runs"],
        features=features,
        images=images,
        flops=given.each("flops"),
        latency=given.one("latency"),
        perturbations=given.each("perturbations"),
        captions=settings["perturbations"],
        edits=edits,
        translations=translations,
        kinds={
            name: sets[chosen]
            for name, chosen in settings.get("translations", {}).items()
        },
        levels=given.each("levels"),
        level_latency=given.each("level_latency"),
        searches=given.each("searches"),
        step_searches=given.each("step_searches"),
    )
    known = (*of_features, *of_edits, *of_translations)
    return evidence, [json.loads(text) for text in known if text]


def _refuse_dead(given: Given) -> None:
    for kind in ("features", "edits", "translations"):
        counts: dict[str, dead.Counts] = {}
        for path in given.paths(kind):
            with storage.opened(path) as file:
                noted = dead.noted(file.metadata() or {})
            # Settings of edits are runs of their own, and shards are not.
            prefix = f"{path.parent.name}/{path.stem}/" if kind == "edits" else ""
            for name, each in noted.items():
                whole = counts.get(prefix + name, dead.Counts())
                counts[prefix + name] = whole + each
        dead.refuse(counts, "no claim is judged by them")


def _alike(encoders: set[str], what: str) -> set[str]:
    if len(encoders) > 1:
        raise ValueError(
            f"{what} of {len(encoders)} sets of encoders do not compare"
            if what == "features"
            else f"{what} scored by {len(encoders)} sets of encoders do not compare"
        )
    return encoders


def _features(paths: Sequence[Path]) -> tuple[Tensors, set[str]]:
    features: Tensors = {}
    encoders = set()
    for path in paths:
        tensors, notes = storage.read_tensors(path)
        encoders.add(notes["encoders"])
        known = features.setdefault(path.parent.name, {})
        for name, tensor in tensors.items():
            known[name] = torch.cat([known[name], tensor]) if name in known else tensor
    return features, _alike(encoders, "features")


def _edits(paths: Sequence[Path]) -> tuple[Tensors, set[str]]:
    edits: Tensors = {}
    encoders = set()
    for path in paths:
        tensors, notes = storage.read_tensors(path)
        if "encoders" in notes:
            encoders.add(notes["encoders"])
        sources = tensors.pop("source")
        for name, values in tensors.items():
            edit, _, score = name.rpartition("/")
            known = edits.setdefault(f"{path.parent.name}/{edit}/{path.stem}", {})
            known |= {score: values, "source": sources}
    return edits, _alike(encoders, "edits")


def _translations(paths: Sequence[Path]) -> tuple[Tensors, set[str]]:
    translations: Tensors = {}
    encoders = set()
    for path in paths:
        translations[path.stem], notes = storage.read_tensors(path)
        encoders.add(notes.get("encoders", ""))
    return translations, _alike(encoders, "translations")
