"""Resolve experiments that are written once into the settings of each scale.

An entry of a section (a run, an adaptor, a search, …) is laid together of what all
scales share and of what a scale says, each below the next: the section's defaults, the
scale's defaults, the shared entry, the scale's entry, and what a user gives with
``--config`` or ``--configfile``. Beside its settings an entry may have these keys:

- ``like: other`` takes what the other entry of the section has, key by key;
- ``teacher: other`` takes the teacher's model, data and sampling as well, but not how
  it saves (`SAVINGS`);
- ``matrix: {model: [sd, efficient], steps: [6, 4]}`` makes an entry of each
  combination: ``<model>`` and ``<steps>`` in its id and its texts are replaced, and
  each is a setting of the entry, too;
- ``only: mini`` keeps it to that scale, and to those that are like it.

A scale that says what is ``chosen`` of each section has that alone, and what a user
gives it, whatever ``only`` says; ``like: paper`` takes all of another scale's sections.

A setting that is null is left out, whatever lies below it says.

Nothing here knows what the settings mean, or whether they are right, but for where
they belong: a run's ``steps`` are its sampler's, and an adaptor's trajectories follow
from what it is trained on.
"""

from __future__ import annotations

import copy
import difflib
import itertools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from clockwork_experiments.config.replicates import add_replicates

Settings = dict[str, Any]

ENTRIES = (
    *("models", "translators", "datasets", "adaptors", "runs", "edit_sets"),
    *("translation_sets", "translations", "depth_searches", "step_searches"),
    *("perturbations", "backbones", "quality", "finetuned", "sources", "coco"),
    *("benchmark_tasks", "benchmark"),
    *("editing.settings", "editing.inversions", "editing.edits"),
)
"""Sections of entries by id; ``editing`` holds three. All others are one entry each."""

SAVINGS = (
    *("teacher", "adaptor", "clock", "adaptor_steps", "every_step", "mask"),
    *("level", "timesteps", "searched"),
)
"""How an entry saves time against its teacher; not taken over from a teacher."""

SAMPLER = (
    *("scheduler", "steps", "guidance", "clock", "adaptor_steps", "every_step"),
    "mask",
)
TRAINING = (
    *("kind", "cut", "clock", "inputs", "adaptor_steps", "every_step", "epochs"),
    *("subset", "optimisation", "also_clocks", "on_policy", "rank", "ridge"),
    "text_scale",
)
RECORDED = {
    *("model", "cut", "scheduler", "steps", "train", "heldout", "seed", "batch_size"),
}
"""What must be said of trajectories, by the adaptor or by its ``trajectories``."""

BENCHMARKED = ("steps", "grid", "clock", "mask", "gate", "ratio", "budget", "level")
"""Settings of the benchmark's methods of ours; others stand in ``settings``."""

PERTURBED = ("layers", "alphas", "starts", "seed", "batch_size", "kept")

_PLACE = re.compile(r"<(\w+)>")


def one_of(name: object, known: Iterable[str], what: str) -> str:
    """Return what is wrong with a name, what there is instead, and the likeliest."""
    known = [str(each) for each in known]
    listed = ", ".join(known) or "none"
    return f"{name!r} is not one of the {what} ({listed}){meant(name, known)}"


def meant(name: object, known: Iterable[str]) -> str:
    """Return which of what there is was probably meant; nothing if none is near."""
    close = difflib.get_close_matches(str(name), list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def laid_over(below: Any, above: Any) -> Any:
    """Return settings with others laid over them, key by key, however deep."""
    if not isinstance(above, dict):
        return copy.deepcopy(above)
    merged = copy.deepcopy(below) if isinstance(below, dict) else {}
    for key, value in above.items():
        merged[key] = laid_over(merged.get(key), value)
    return merged


def without_nulls(value: Any) -> Any:
    """Return settings without the keys that are null, as deep as mappings go."""
    if not isinstance(value, dict):
        return value
    return {k: without_nulls(v) for k, v in value.items() if v is not None}


def scale_settings(
    scale: str, shared: Mapping[str, Any], own: Mapping[str, Any], given: Settings
) -> Settings:
    """Return all sections of a scale.

    Args:
        scale: Its name, for ``only`` and for messages.
        shared: Sections for all scales, ``defaults`` and ``templates``.
        own: Sections of the scale, and its ``defaults``.
        given: What a user lays over the result: of entries that there are, settings;
            other entries as `shared` has them.

    Raises:
        ValueError: If an entry refers to another one that there is not.
    """
    shared, own, given = _flat(shared), _flat(own), _flat(given)
    defaults = laid_over(shared.pop("defaults", {}), own.pop("defaults", {}))
    templates = laid_over(shared.pop("templates", {}), own.pop("templates", {}))
    alike = (scale, own.pop("like", scale))
    chosen = own.pop("chosen", None)
    sections = dict.fromkeys([*own, *shared, *given])
    if chosen is not None:
        sections = {
            name: None
            for name in sections
            if name in (*chosen, *given)
            or (name in own and name not in ENTRIES and "." not in name)
        }
    found: Settings = {}
    for section in sections:
        if section in ENTRIES:
            layers = [layer.get(section) or {} for layer in (shared, own, given)]
            kept = None if chosen is None else chosen.get(section, ())
            default = defaults.get(section, {})
            found[section] = _entries(layers, default, kept, alike, section)
        else:
            known = [layer[section] for layer in (shared, own) if section in layer]
            found[section] = laid_over(known[0], known[-1]) if known else None
    found = _with_templates(found, templates)
    _fill_in(found)
    if "replicates" in given:
        again = given.pop("replicates")
        found["replicates"] = laid_over(found.get("replicates"), again)
    add_replicates(found, scale)
    trajectories = _trajectories(found, scale)
    if trajectories:
        found["trajectories"] = trajectories
    for section in found:
        if isinstance(found[section], dict):
            found[section] = {
                name: _shaped(section, entry) for name, entry in found[section].items()
            }
    for section, value in given.items():
        if isinstance(value, dict) and section in ENTRIES:
            value = {
                name: _shaped(section, _plain(each))
                for name, each in value.items()
                if name in found[section]
            }
        found[section] = laid_over(found.get(section), value)
    return _deep(without_nulls(found))


def _entries(
    layers: Sequence[Settings],
    default: Settings,
    chosen: Collection[str] | None,
    alike: tuple[str, ...],
    section: str,
) -> Settings:
    """Return a section's entries at a scale.

    Args:
        layers: For all scales, of this one, and given by a user.
        default: What an entry has that it does not say.
        chosen: The only ones to keep beside those that a user adds; None keeps all.
        alike: The scale, and the one that it is like.
        section: The section.
    """
    where = f"{alike[0]}.{section}"
    *own, given = (_multiplied(layer, where) for layer in layers)
    _refuse_nulls(own, where)
    new = {
        name: entry
        for name, entry in given.items()
        if not any(name in layer for layer in own)
    }
    entries = laid_over(laid_over(*own), new)
    there = {
        name
        for name, entry in entries.items()
        if not isinstance(entry, dict) or entry.pop("only", alike[0]) in alike
    }
    if chosen is not None:
        # A user may have taken some of it out; and what is chosen may be like what is
        # not.
        there = entries.keys() & {*chosen, *new}
    else:
        entries = {name: entries[name] for name in entries if name in there}
    inherited = _inherited(entries, default, where)
    return {name: inherited[name] for name in entries if name in there}


def _fill_in(found: Settings) -> None:
    """Say what entries imply: the source of a set, and the guidance of a model."""
    for section in ("datasets", "edit_sets", "translation_sets"):
        for entry in _mappings(found, section):
            entry.setdefault("source", "folder" if "path" in entry else "scenes")
    for section in ("runs", "adaptors"):
        _take_from(found, section, "model", "models", ("guidance",))
    kept = ("guidance", "image_guidance")
    for section in ("translations", "depth_searches", "step_searches"):
        _take_from(found, section, "translator", "translators", kept)
    for key, target in (("model", "models"), ("translator", "translators")):
        _take_from(found, "benchmark_tasks", key, target, kept)
    for section in ("models", "translators"):
        for entry in _mappings(found, section):
            for key in kept:
                entry.pop(key, None)


def _flat(sections: Mapping[str, Any]) -> Settings:
    """Return sections with those of ``editing`` beside the others, dotted."""
    flat = {key: value for key, value in sections.items() if key != "editing"}
    editing = sections.get("editing") or {}
    flat |= {f"editing.{key}": value for key, value in editing.items()}
    for layer in ("defaults",):
        if "editing" in (flat.get(layer) or {}):
            flat[layer] = _flat(flat[layer])
    return flat


def _deep(flat: Settings) -> Settings:
    deep: Settings = {}
    for key, value in flat.items():
        section, _, part = key.partition(".")
        if part:
            deep.setdefault(section, {})[part] = value
        else:
            deep[section] = value
    return deep


def _refuse_nulls(layers: list[Settings], where: str) -> None:
    for layer in layers:
        for name, entry in layer.items():
            if entry is None:
                raise ValueError(f"{where}.{name} is empty; write {{}}")


def _mappings(found: Settings, section: str) -> list[Settings]:
    entries = found.get(section) or {}
    return [each for each in entries.values() if isinstance(each, dict)]


def _plain(entry: Any) -> Any:
    """Return an entry without the keys that tell how it is made."""
    if not isinstance(entry, dict):
        return entry
    return {k: v for k, v in entry.items() if k not in ("like", "matrix", "only")}


def _multiplied(entries: Settings, where: str) -> Settings:
    """Return entries with one for each combination of a matrix."""
    if not isinstance(entries, dict):
        raise ValueError(f"{where} must be a mapping, not {entries!r}")
    found: Settings = {}
    for name, entry in entries.items():
        many = {name: entry}
        if isinstance(entry, dict) and "matrix" in entry:
            many = _combined(str(name), dict(entry), f"{where}.{name}")
        twice = many.keys() & found.keys()
        if twice:
            raise ValueError(f"{where}.{name} makes {min(twice)!r}, which is there")
        found |= many
    return found


def _combined(name: str, entry: Settings, where: str) -> Settings:
    matrix = entry.pop("matrix")
    if not isinstance(matrix, dict) or not all(
        isinstance(values, list) and values for values in matrix.values()
    ):
        raise ValueError(f"{where}.matrix must map each key to a list, not {matrix!r}")
    found = {}
    for values in itertools.product(*matrix.values()):
        chosen = dict(zip(matrix, values, strict=True))
        found[_replaced(name, chosen, where)] = {
            **chosen,
            **_replaced(entry, chosen, where),
        }
    if len(found) < len(list(itertools.product(*matrix.values()))):
        raise ValueError(f"{where}: its matrix makes an id twice; name each key in it")
    return found


def _replaced(value: Any, chosen: Settings, where: str) -> Any:
    if isinstance(value, dict):
        return {k: _replaced(v, chosen, where) for k, v in value.items()}
    if isinstance(value, list):
        return [_replaced(each, chosen, where) for each in value]
    if not isinstance(value, str):
        return value
    for key in _PLACE.findall(value):
        if key not in chosen:
            raise ValueError(f"{where}: {one_of(key, chosen, 'keys of its matrix')}")
    return _PLACE.sub(lambda place: str(chosen[place[1]]), value)


def _inherited(entries: Settings, defaults: Settings, where: str) -> Settings:
    """Return entries with what they take from others, and from the defaults."""
    done: Settings = {}
    section = where.partition(".")[2]

    def resolve(name: str, path: tuple[str, ...]) -> Any:
        entry = entries[name]
        if name in done or not isinstance(entry, dict):
            return done.setdefault(name, entry)
        if name in path:
            raise ValueError(f"{where}.{name} is like itself")
        own = dict(entry)
        other = own.pop("like", None)
        base: Settings = {}
        if other is not None:
            if other not in entries:
                wrong = one_of(other, entries, section)
                raise ValueError(f"{where}.{name}.like: {wrong}")
            base = resolve(other, (*path, name))
        elif own.get("teacher") in entries and own["teacher"] not in (*path, name):
            # Whether there is such a teacher is for those to say who know all sections.
            taught = resolve(own["teacher"], (*path, name))
            base = {k: v for k, v in taught.items() if k not in SAVINGS}
        elif section != "adaptors" or "model" in own:
            base = defaults
        if base is not defaults:
            done[name] = {**copy.deepcopy(base), **own}
        else:
            done[name] = laid_over(base, own)
        return done[name]

    return {name: resolve(name, ()) for name in entries}


def _with_templates(value: Any, templates: Settings) -> Any:
    """Return nested settings, with templates beneath those that are ``like`` one."""
    if isinstance(value, list):
        return [_with_templates(each, templates) for each in value]
    if not isinstance(value, dict):
        return value
    value = {key: _with_templates(each, templates) for key, each in value.items()}
    if "like" not in value:
        return value
    name = value.pop("like")
    if name not in templates:
        raise ValueError(f"like: {one_of(name, templates, 'templates')}")
    return {**_with_templates(copy.deepcopy(templates[name]), templates), **value}


def _take_from(
    found: Settings, section: str, key: str, target: str, kept: tuple[str, ...]
) -> None:
    """Give entries what the model that they name brings, where they say nothing."""
    for entry in _mappings(found, section):
        source = (found.get(target) or {}).get(str(entry.get(key)), {})
        for name in kept:
            if isinstance(source, dict) and name in source:
                nested = entry.get("sampler")
                if not isinstance(nested, dict) or name not in nested:
                    entry.setdefault(name, source[name])


def _trajectories(found: Settings, scale: str) -> Settings:
    """Return the trajectories that adaptors are trained and measured on.

    They are named by what they are of, and shared where that is the same: of another
    scheduler, number of steps or cut than the usual, and by ``noised``. Adaptors that
    are trained on noised images are measured on trajectories that the teacher makes.
    """
    trajectories: Settings = {}
    for name, adaptor in (found.get("adaptors") or {}).items():
        own = adaptor.get("trajectories") if isinstance(adaptor, dict) else None
        if not isinstance(own, dict) or not {*adaptor, *own} >= RECORDED:
            continue  # and its own check says what lacks
        del adaptor["trajectories"]
        sampler = {key: adaptor.pop(key) for key in SAMPLER[:3] if key in adaptor}
        source, also = adaptor.pop("source", None), adaptor.pop("also_steps", ())
        for part, steps in [
            *(("train", sampler["steps"]), ("heldout", sampler["steps"])),
            *(("train", count) for count in also),
        ]:
            marks = [
                adaptor["model"],
                *([sampler["scheduler"]] if sampler["scheduler"] != "dpmpp" else []),
                *([f"steps{steps}"] if steps != 8 else []),
                *([adaptor["cut"]] if adaptor["cut"] != "stage1" else []),
            ]
            unrolled = own.get("name", "_".join(marks))
            if "name" in own and steps in also:
                unrolled += f"_steps{steps}"
            noised = source == "noised" and part == "train"
            trajectory = f"{unrolled}{'_noised' if noised else ''}_{part}"
            marked = source is not None and (noised or source != "noised")
            spec = {
                "sampler": {**sampler, "steps": steps},
                "cut": adaptor["cut"],
                "seed": own["seed"],
                "batch_size": own["batch_size"],
                **({"stored": own["stored"]} if "stored" in own else {}),
                **({"source": source} if marked else {}),
            }
            made = {"model": adaptor["model"], "dataset": own[part], "spec": spec}
            if trajectories.setdefault(trajectory, made) != made:
                raise ValueError(
                    f"{scale}: adaptor {name!r} needs trajectories {trajectory!r} that "
                    "differ from those of another adaptor; give it a "
                    "`trajectories: {name: …}` of its own"
                )
            if steps in also:
                adaptor.setdefault("also_train", []).append(trajectory)
            else:
                adaptor[part] = trajectory
    return trajectories


def _shaped(section: str, entry: Any) -> Any:
    """Return an entry with its settings where they belong: in a sampler, or a spec."""
    if not isinstance(entry, dict):
        return entry
    if section == "runs":
        return _moved(entry, "sampler", SAMPLER)
    if section == "adaptors" and ("model" in entry or "spec" in entry):
        return _moved(entry, "spec", TRAINING)
    if section == "benchmark":
        return _moved(entry, "settings", BENCHMARKED)
    if section == "perturbations":
        entry = _moved(entry, "spec", PERTURBED)
        sampler = {key: entry.pop(key) for key in SAMPLER[:3] if key in entry}
        if sampler:
            entry["spec"] = {"sampler": sampler, **entry.get("spec", {})}
    return entry


def _moved(entry: Settings, part: str, keys: tuple[str, ...]) -> Settings:
    moved = {key: entry[key] for key in keys if key in entry}
    kept = {key: value for key, value in entry.items() if key not in moved}
    if not moved:
        return kept
    return {**kept, part: laid_over(moved, kept.get(part, {}))}
