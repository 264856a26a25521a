"""What the rules of timesteps.smk ask of the configuration."""

import json

SEARCHED_SETS = ("set", "heldout", "evolution_set")
"""Sets of pairs that a search sees; only the first is always there."""

JUDGED_BY_FRECHET = ("control", "restoration")
"""Tasks whose time steps are judged by the Fréchet distance, too."""


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


def step_searching(wildcards):
    """Return the settings of a search for time steps."""
    return entry(wildcards.scale, "step_searches", wildcards.step_search)


def step_searched_translator(wildcards):
    """Return the model that a search is about."""
    return entry(
        wildcards.scale, "translators", step_searching(wildcards)["translator"]
    )


def step_searched_path(wildcards):
    """Return its folder."""
    return step_searched_translator(wildcards)["path"]


def step_search_encoders(wildcards):
    """Return the networks that judge a search beside CLIP, option to encoder."""
    scale, search = wildcards.scale, step_searching(wildcards)
    chosen = {}
    task = step_searched_translator(wildcards)["task"]
    if task in JUDGED_BY_FRECHET or "evolution_frechet" in search["methods"]:
        chosen["frechet"] = entry(scale, "encoders", "frechet")
    if task == "restoration":
        chosen["lpips"] = entry(scale, "encoders", "lpips")
    return chosen


def step_search_inputs(wildcards):
    """Return the pairs of a search, and what else it runs or reads."""
    scale, search = wildcards.scale, step_searching(wildcards)
    files = {
        key: multiext(f"results/{scale}/pairs/{chosen}", ".json", ".safetensors")
        for key, chosen in searched_sets(search).items()
    }
    model = step_searched_translator(wildcards).get("model")
    paths = {
        name: each["path"] for name, each in step_search_encoders(wildcards).items()
    }
    if model is not None:
        paths["model"] = entry(scale, "models", model)["path"]
    for name, path in paths.items():
        files[name] = files_of(lambda _, path=path: path)(wildcards)
    if "also" in search:
        files["also"] = timesteps_of(scale, search["also"])
    return files


def step_search_options(wildcards, input):
    """Return the command-line options for the same."""
    scale, search = wildcards.scale, step_searching(wildcards)
    options = [
        f"--{key.replace('_', '-')} results/{scale}/pairs/{chosen}.json"
        for key, chosen in searched_sets(search).items()
    ]
    model = step_searched_translator(wildcards).get("model")
    if model is not None:
        options.append(f"--model {entry(scale, 'models', model)['path']}")
    for name, chosen in step_search_encoders(wildcards).items():
        options.append(f"--{name} {chosen['path']} --{name}-kind {chosen['kind']}")
    if "also" in search:
        options.append(f"--also {' '.join(timesteps_of(scale, search['also']))}")
    return " ".join(options)


def step_search_spec(wildcards):
    """Return a search as its dataclass takes it."""
    scale, search = wildcards.scale, step_searching(wildcards)
    keys = ("guidance", "image_guidance", "scheduler", "clock")
    sampled = {key: search[key] for key in keys if key in search}
    sampled |= {
        "task": step_searched_translator(wildcards)["task"],
        "steps": search["reference"],
    }
    keys = ("seed", "batch_size", "steps", "methods", "direction", "most", "evolution")
    keys = (*keys, "level", "whole_reference")
    chosen = {key: search[key] for key in keys if key in search}
    if "adaptor" in search:
        adaptor = entry(scale, "adaptors", search["adaptor"])
        chosen |= {"cut": adaptor["cut"], "kind": adaptor["kind"]}
    return json.dumps({"translation": sampled, **chosen})


def timesteps_of(scale, names):
    """Return the results of searches for time steps."""
    return [f"results/{scale}/timesteps/{name}.json" for name in names]


def step_searches(scale):
    """Return the results of every such search at a scale."""
    return timesteps_of(scale, entries(scale, "step_searches"))
