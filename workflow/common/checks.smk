"""Checks of references between entries, before anything runs."""

from clockwork_experiments.config.needs.translating import SEARCHED_SETS


def check_depth_searches(scale):
    """Refuse searches for translators, or on sets, that there are not."""
    for name, search in entries(scale, "depth_searches").items():
        translator = entry(scale, "translators", search["translator"])
        for key in ("set", "heldout"):
            pairs = entry(scale, "translation_sets", search[key])
            what = f"{scale}: search {name!r}, its translator and its {key}"
            check_equal(what, translator, pairs, "task")
        if search["set"] == search["heldout"]:
            raise WorkflowError(
                f"{scale}: search {name!r} holds out the set that it searches on"
            )


def check_finetuned(scale):
    """Refuse fine-tuning of translators, by recipes or on sets that there are not."""
    for name, chosen in entries(scale, "finetuned").items():
        translator = entry(scale, "translators", chosen["translator"])
        pairs = entry(scale, "translation_sets", chosen["set"])
        recipes = entry(scale, "training", "translators")
        if chosen["recipe"] not in recipes:
            raise WorkflowError(
                f"{scale}: {chosen['recipe']!r} is not one of the recipes of "
                f"translators ({', '.join(recipes)})"
            )
        what = f"{scale}: fine-tuned {name!r}, its translator and its"
        check_equal(f"{what} set", translator, pairs, "task")
        check_equal(f"{what} recipe", translator, recipes[chosen["recipe"]], "task")


def searched_sets(search):
    """Return the sets of pairs of a search; where no answer is judged, none is held out."""
    named = {key: search.get(key) for key in SEARCHED_SETS}
    return {key: name for key, name in named.items() if name is not None}


def check_step_searches(scale):
    """Refuse searches for translators, on sets, or beside searches there are not."""
    known = entries(scale, "step_searches")
    for name, search in known.items():
        what = f"{scale}: step search {name!r}"
        translator = entry(scale, "translators", search["translator"])
        for key, chosen in searched_sets(search).items():
            pairs = entry(scale, "translation_sets", chosen)
            check_equal(
                f"{what}, its translator and its {key}", translator, pairs, "task"
            )
        if search["set"] == search.get("heldout"):
            raise WorkflowError(f"{what} holds out the set that it searches on")
        for method, asked in search["methods"].items():
            for steps in asked:
                if steps not in search["steps"]:
                    raise WorkflowError(
                        f"{what}: {steps} steps of method {method!r} are not one of "
                        f"{', '.join(map(str, search['steps']))}"
                    )
        if (search.get("clock", 1) > 1) != ("adaptor" in search):
            raise WorkflowError(
                f"{what} needs both a clock above 1 and an adaptor, or neither"
            )
        if "adaptor" in search:
            adaptor = entry(scale, "adaptors", search["adaptor"])
            if "model" in adaptor or adaptor["kind"] == "branch":
                raise WorkflowError(
                    f"{what}: adaptor {search['adaptor']!r} is for text-to-image; "
                    "a translation takes one without weights"
                )
        for other in search.get("also", ()):
            check_equal(
                f"{what} and the other, {other!r}",
                search,
                entry(scale, "step_searches", other),
                "translator",
            )
            if "also" in known[other]:
                raise WorkflowError(
                    f"{what}: the other, {other!r}, waits for others itself"
                )


def check_translations(scale):
    """Refuse translations by models, of sets, or beside teachers that there are not."""
    for name, chosen in entries(scale, "translations").items():
        what = f"{scale}: translation {name!r}"
        translator = entry(scale, "translators", chosen["translator"])
        pairs = entry(scale, "translation_sets", chosen["set"])
        check_equal(f"{what}: its translator and set", translator, pairs, "task")
        if "teacher" in chosen:
            teacher = entry(scale, "translations", chosen["teacher"])
            check_equal(f"{what} and its teacher", chosen, teacher, "set", "seed")
        if "timesteps" in chosen and len(chosen["timesteps"]) != chosen["steps"]:
            raise WorkflowError(
                f"{what}: {len(chosen['timesteps'])} timesteps are not "
                f"{chosen['steps']} steps"
            )
        if "searched" in chosen:
            if "timesteps" in chosen:
                raise WorkflowError(f"{what} has timesteps, and searched ones too")
            check_step_answer(
                scale, what, {"steps": chosen["steps"], **chosen["searched"]}
            )
            search = entry(scale, "step_searches", chosen["searched"]["search"])
            alike = {"level": None, "scheduler": "ddim", "clock": 1}
            found, own = {**alike, **search}, {**alike, **chosen}
            check_equal(f"{what} and its search", own, found, "translator", *alike)
        if (chosen.get("clock", 1) > 1) != ("adaptor" in chosen):
            raise WorkflowError(
                f"{what} needs both a clock above 1 and an adaptor, or neither"
            )
        if "adaptor" in chosen:
            adaptor = entry(scale, "adaptors", chosen["adaptor"])
            if "model" in adaptor or adaptor["kind"] == "branch":
                raise WorkflowError(
                    f"{what}: adaptor {chosen['adaptor']!r} is for text-to-image; "
                    "a translation takes one without weights"
                )
        check_level(scale, name, chosen, "translation")


def check_sources():
    """Refuse sets of COCO without their archives, and names that are used twice."""
    both = set(entries("paper", "sources")) & set(entries("paper", "coco"))
    if both:
        listed = ", ".join(sorted(both))
        raise WorkflowError(f"paper: {listed} names a source and a set of COCO")
    for name, chosen in entries("paper", "coco").items():
        if "archives" in chosen:
            entry("paper", "sources", chosen["archives"])
        for key in ("of", "without"):
            other = entry("paper", "coco", chosen[key]) if key in chosen else None
            if other is not None and "archives" not in other:
                raise WorkflowError(
                    f"paper: {name!r} is made of {chosen[key]!r}, which holds pairs"
                )


def check_edited_run(scale, what, name):
    """Refuse the name of an edited run that there is not, or that none makes."""
    *edit_sets, edit, setting = name.split("/")
    editing_entry(scale, "settings", setting)
    if edit != UNEDITED:
        editing_entry(scale, "edits", edit)
    for edit_set in edit_sets:
        made = [UNEDITED, *edits_at(scale, setting, edit_set)]
        if edit not in made:
            raise WorkflowError(
                f"{what}: edit {edit!r} is not made at {setting!r} of {edit_set!r} "
                f"({', '.join(made)} are)"
            )
