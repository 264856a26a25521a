"""Refuse what cannot run: entries that do not go together, before anything runs.

Schemas say what each entry may be, and what it may refer to; here is what two of them
must agree on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

from clockwork_diffusion.clock import clock_of
from clockwork_experiments.config.experiments import Settings, one_of
from clockwork_experiments.config.needs import benchmarking, entries
from clockwork_experiments.config.needs.editing import UNEDITED, edits_at
from clockwork_experiments.config.registry import Registry
from clockwork_experiments.data.datasets import DatasetSpec


def check_equal(what: str, one: Settings, other: Settings, *keys: str) -> None:
    """Refuse two entries that must agree and do not."""
    for key in keys:
        if one[key] != other[key]:
            raise ValueError(
                f"{what} must have the same {key}, not {one[key]!r} and {other[key]!r}"
            )


def check_scale(known: Registry, scale: str) -> None:
    """Refuse entries of a scale that do not go together."""
    for other, what in (("datasets", "data set"), ("translations", "translation")):
        for shared in known.entries(scale, "runs"):
            if shared in known.entries(scale, other):
                raise ValueError(f"{scale}: {shared!r} names a run and a {what}")
    for name, run in known.entries(scale, "runs").items():
        _check_run(known, scale, name, run)
    _check_models(known, scale)
    _check_editing(known, scale)
    for name, chosen in known.entries(scale, "translations").items():
        _check_translation(known, scale, name, chosen)
    for name, search in known.entries(scale, "depth_searches").items():
        what = f"{scale}: search {name!r}"
        _check_tasks(known, scale, what, search, ("set", "heldout"))
        if search["set"] == search["heldout"]:
            raise ValueError(f"{what} holds out the set that it searches on")
        for threshold in search["thresholds"]:
            if ("at_least" in threshold) == ("at_most" in threshold):
                raise ValueError(
                    f"{what}: a threshold has either at_least or at_most, as "
                    f"{threshold} has not"
                )
    for name, search in known.entries(scale, "step_searches").items():
        _check_step_search(known, scale, name, search)
    for name, chosen in known.entries(scale, "finetuned").items():
        what = f"{scale}: fine-tuned {name!r}"
        _check_tasks(known, scale, what, chosen, ("set",))
        recipes = known.entries(scale, "training")["translators"]
        if chosen["recipe"] not in recipes:
            wrong = one_of(chosen["recipe"], recipes, "recipes of translators")
            raise ValueError(f"{scale}: {wrong}")
        translator = known.entry(scale, "translators", chosen["translator"])
        what += ", its translator and its recipe"
        check_equal(what, translator, recipes[chosen["recipe"]], "task")
    _check_benchmark(known, scale)
    _check_sources(known, scale)


def _check_run(known: Registry, scale: str, name: str, run: Settings) -> None:
    what = f"{scale}: run {name!r}"
    if "adaptor" in run:
        adaptor = known.entry(scale, "adaptors", run["adaptor"])
        if "model" in adaptor:
            check_equal(f"{what} and its adaptor", run, adaptor, "model")
    _check_teacher(known, scale, "runs", what, run, "dataset", "seed")
    if "replicate_of" in run:
        other = known.entry(scale, "runs", run["replicate_of"])
        same = f"{what} and what it is a replicate of"
        check_equal(same, run, other, "model", "dataset", "seed", "sampler")
    try:
        clock = clock_of(run["sampler"])
        clock.full_steps(run["sampler"]["steps"])
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None
    if clock.needs_adaptor != ("adaptor" in run):
        raise ValueError(
            f"{what} needs both a clock above 1 and an adaptor, or neither; adaptor "
            "steps, or every step, or a mask with a 0, are a clock as well"
        )
    _check_level(known, scale, what, run)


def _check_teacher(
    known: Registry, scale: str, section: str, what: str, entry: Settings, *keys: str
) -> None:
    """Refuse a teacher of other data, or one that goes back to the entry itself."""
    if "teacher" not in entry:
        return
    teacher = known.entry(scale, section, entry["teacher"])
    check_equal(f"{what} and its teacher", entry, teacher, *keys)
    seen: list[str] = []
    while "teacher" in entry:
        if entry["teacher"] in seen:
            raise ValueError(f"{what} is its own teacher, by {' → '.join(seen)}")
        seen.append(entry["teacher"])
        entry = known.entry(scale, section, entry["teacher"])


def _check_level(known: Registry, scale: str, what: str, run: Settings) -> None:
    """Refuse a run whose level does not go with its clock."""
    if "level" not in run or "adaptor" not in run:
        return
    adaptor = known.entry(scale, "adaptors", run["adaptor"])
    if adaptor.get("kind") == "branch":
        raise ValueError(f"{what}: a branch needs the whole UNet, and not a level")
    needed = {"stage1": 4, "stage2": 7}[adaptor.get("spec", adaptor)["cut"]]
    if run["level"] < needed:
        raise ValueError(
            f"{what}: its adaptor's cut needs level {needed} or more, "
            f"not {run['level']}"
        )


def _check_models(known: Registry, scale: str) -> None:
    for name, dataset in known.entries(scale, "datasets").items():
        reference = known.entry(scale, "datasets", dataset.get("reference", name))
        what = f"{scale}: data set {name!r} and its reference"
        check_equal(what, {"size": 0, **dataset}, {"size": 0, **reference}, "size")
        if "sampled" in dataset:
            _check_sampled(known, scale, name, dataset["sampled"])
        own = [field.name for field in fields(DatasetSpec)]
        try:
            DatasetSpec(**entries.chosen(dataset, *own))
        except ValueError as error:
            raise ValueError(f"{scale}: data set {name!r}: {error}") from None
    for name, adaptor in known.entries(scale, "adaptors").items():
        keys = ("train", "heldout") if "model" in adaptor else ()
        for key in (*(adaptor[each] for each in keys), *adaptor.get("also_train", ())):
            trajectory = known.entry(scale, "trajectories", key)
            what = f"{scale}: adaptor {name!r} and trajectory {key!r}"
            check_equal(what, adaptor, trajectory, "model")
            check_equal(what, adaptor["spec"], trajectory["spec"], "cut")


def _check_sampled(known: Registry, scale: str, dataset: str, name: str) -> None:
    """Refuse a run that cannot stand for a set's own images."""
    run = known.entry(scale, "runs", name)
    what = f"{scale}: data set {dataset!r}: run {name!r}, which stands for its images,"
    if run["dataset"] != dataset:
        raise ValueError(f"{what} is of the data set {run['dataset']!r}")
    for other, each in known.entries(scale, "runs").items():
        same = (each["dataset"], each["seed"]) == (dataset, run["seed"])
        if other != name and same:
            raise ValueError(f"{what} starts from the noise of run {other!r}")


def _check_clock(what: str, entry: Settings) -> None:
    if (entry.get("clock", 1) > 1) != ("adaptor" in entry):
        raise ValueError(
            f"{what} needs both a clock above 1 and an adaptor, or neither"
        )


def _check_editing(known: Registry, scale: str) -> None:
    """Refuse inversions and edits that do not go with their models and adaptors."""
    for name, chosen in known.entries(scale, "edit_sets").items():
        sampled = chosen.get("sampled", False)
        if chosen["source"] == "scenes" and ("model" in chosen) != sampled:
            raise ValueError(
                f"{scale}: edit set {name!r}: sampled scenes and a model need each "
                "other"
            )
    edits = known.entries(scale, "editing.edits")
    if UNEDITED in edits:
        raise ValueError(f"{scale}: the edit {UNEDITED!r} is always scored; rename it")
    inversions = known.entries(scale, "editing.inversions")
    loops = [("inversion", *item) for item in inversions.items()]
    for name, chosen in edits.items():
        model = inversions[chosen["inversion"]]["model"]
        loops.append(("edit", name, {"model": model, **chosen}))
        _check_teacher(known, scale, "editing.edits", f"{scale}: edit {name!r}", chosen)
    for kind, name, chosen in loops:
        what = f"{scale}: {kind} {name!r}"
        _check_clock(what, chosen)
        if "adaptor" in chosen:
            adaptor = known.entry(scale, "adaptors", chosen["adaptor"])
            if adaptor.get("kind") == "branch":
                raise ValueError(f"{what}: a branch is no adaptor for editing")
            if "model" in adaptor:
                check_equal(f"{what} and its adaptor", chosen, adaptor, "model")
    for name in known.entries(scale, "editing.latency").get("runs", ()):
        check_edited_run(known, scale, f"{scale}: timed edits", name)


def check_edited_run(known: Registry, scale: str, what: str, name: str) -> None:
    """Refuse the name of an edited run that there is not, or that none makes."""
    *edit_sets, edit, setting = name.split("/")
    known.entry(scale, "editing.settings", setting)
    if edit != UNEDITED:
        known.entry(scale, "editing.edits", edit)
    for edit_set in edit_sets:
        made = [UNEDITED, *edits_at(known.config, scale, setting, edit_set)]
        if edit not in made:
            raise ValueError(
                f"{what}: edit {edit!r} is not made at {setting!r} of {edit_set!r} "
                f"({', '.join(made)} are)"
            )


def _check_tasks(
    known: Registry, scale: str, what: str, entry: Settings, keys: Iterable[str]
) -> None:
    """Refuse sets of pairs of another task than a translator's."""
    translator = known.entry(scale, "translators", entry["translator"])
    for key in keys:
        if key in entry:
            pairs = known.entry(scale, "translation_sets", entry[key])
            check_equal(
                f"{what}, its translator and its {key}", translator, pairs, "task"
            )


def _check_free(known: Registry, scale: str, what: str, entry: Settings) -> None:
    """Refuse a clock without an adaptor, and an adaptor that a translation has not."""
    _check_clock(what, entry)
    if "adaptor" in entry:
        adaptor = known.entry(scale, "adaptors", entry["adaptor"])
        if "model" in adaptor or adaptor["kind"] == "branch":
            raise ValueError(
                f"{what}: adaptor {entry['adaptor']!r} is for text-to-image; "
                "a translation takes one without weights"
            )
    _check_level(known, scale, what, entry)


def _check_translation(known: Registry, scale: str, name: str, run: Settings) -> None:
    what = f"{scale}: translation {name!r}"
    _check_tasks(known, scale, what, run, ("set",))
    _check_teacher(known, scale, "translations", what, run, "set", "seed")
    if "timesteps" in run and len(run["timesteps"]) != run["steps"]:
        raise ValueError(
            f"{what}: {len(run['timesteps'])} timesteps are not {run['steps']} steps"
        )
    if "searched" in run:
        if "timesteps" in run:
            raise ValueError(f"{what} has timesteps, and searched ones too")
        asked = {"steps": run["steps"], **run["searched"]}
        check_step_answer(known, scale, what, asked)
        search = known.entry(scale, "step_searches", run["searched"]["search"])
        alike = {"level": None, "scheduler": "ddim", "clock": 1}
        found, own = {**alike, **search}, {**alike, **run}
        check_equal(f"{what} and its search", own, found, "translator", *alike)
    _check_free(known, scale, what, run)


def _check_step_search(
    known: Registry, scale: str, name: str, search: Settings
) -> None:
    what = f"{scale}: step search {name!r}"
    _check_tasks(known, scale, what, search, ("set", "heldout", "evolution_set"))
    if search["set"] == search.get("heldout"):
        raise ValueError(f"{what} holds out the set that it searches on")
    for method, asked in search["methods"].items():
        for steps in asked:
            if steps not in search["steps"]:
                raise ValueError(
                    f"{what}: {steps} steps of method {method!r} are not one of "
                    f"{', '.join(map(str, search['steps']))}"
                )
    _check_free(known, scale, what, search)
    for other in search.get("also", ()):
        found = known.entry(scale, "step_searches", other)
        check_equal(f"{what} and the other, {other!r}", search, found, "translator")
        if "also" in found:
            raise ValueError(f"{what}: the other, {other!r}, waits for others itself")


def _check_benchmark(known: Registry, scale: str) -> None:
    """Refuse methods that do not go with their task, or settings that they have not."""
    tasks = known.entries(scale, "benchmark_tasks")
    for name, task in tasks.items():
        what = f"{scale}: task {name!r} of the benchmark"
        own, place = (
            ("dataset", "datasets") if "model" in task else ("set", "translation_sets")
        )
        known.entry(scale, place, task["planning"])
        if task["planning"] == task[own]:
            raise ValueError(f"{what} plans on what it is measured on")
        if "translator" in task:
            _check_tasks(known, scale, what, task, ("set", "planning"))
        if benchmarking.methods(known.config, scale, name):
            benchmarking.plain_of(known.config, scale, name)
    for name, found in known.entries(scale, "benchmark").items():
        what = f"{scale}: method {name!r} of the benchmark"
        task = tasks[found["task"]]
        method = benchmarking.built(known.config, scale, name)
        pairs = "translator" in task
        if found["kind"] in ("reuse",) and "adaptor" not in found:
            raise ValueError(f"{what} reuses features, and names no adaptor")
        if "than" in found:
            other = known.entry(scale, "benchmark", found["than"])
            check_equal(
                f"{what} and the other, {found['than']!r}", found, other, "task"
            )
        if method.grid and method.grid not in GRIDS:
            raise ValueError(f"{what}: grid {one_of(method.grid, GRIDS, 'grids')}")
        if pairs and (method.grid in RECORDED_GRIDS or found["kind"] == "tgate"):
            raise ValueError(
                f"{what}: {method.grid or found['kind']} is for text-to-image"
            )
        if "adaptor" not in found:
            continue
        adaptor = known.entry(scale, "adaptors", found["adaptor"])
        if "model" in adaptor:
            if pairs:
                raise ValueError(
                    f"{what}: adaptor {found['adaptor']!r} is for text-to-image"
                )
            check_equal(f"{what}: its task and its adaptor", task, adaptor, "model")


GRIDS = ("even", "ays", "gits", "ending")
RECORDED_GRIDS = ("gits", "ending")
"""Rules for time steps (`rivals.grids`), and those that go by a trajectory."""


def _check_sources(known: Registry, scale: str) -> None:
    """Refuse pairs that are made of pairs, and names that are used twice."""
    sets = known.entries(scale, "coco")
    sources = known.entries(scale, "sources")
    for name, source in sources.items():
        if "revision" in source and "hub" not in source:
            raise ValueError(f"{scale}: source {name!r}: a revision is of a hub")
    both = sorted(set(sources) & set(sets))
    if both:
        raise ValueError(f"{scale}: {', '.join(both)} names a source and a set of COCO")
    for name, chosen in sets.items():
        for key in ("of", "without"):
            if key in chosen and "archives" not in sets[chosen[key]]:
                raise ValueError(
                    f"{scale}: {name!r} is made of {chosen[key]!r}, which holds pairs"
                )


def check_step_answer(known: Registry, scale: str, what: str, asked: Settings) -> None:
    """Refuse what searches for time steps do not run.

    Even steps come with every number of steps of a search.
    """
    for name in step_searched([asked]):
        search = known.entry(scale, "step_searches", name)
        runs = {"uniform": search["steps"], **search["methods"]}
        wanted = asked["steps"]
        for method in (asked[key] for key in ("method", "over") if key in asked):
            for steps in wanted if isinstance(wanted, list) else [wanted]:
                if steps not in runs.get(method, ()):
                    listed = ", ".join(map(str, runs.get(method, ()))) or "none"
                    raise ValueError(
                        f"{what}: {steps} is not one of the numbers of steps that "
                        f"{method!r} of step search {name!r} has ({listed})"
                    )


def step_searched(answers: Iterable[Settings]) -> list[str]:
    """Return the searches that answers are of, or are compared with."""
    named = [each[key] for each in answers for key in ("search", "than") if key in each]
    return list(dict.fromkeys(named))
