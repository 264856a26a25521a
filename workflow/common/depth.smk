"""What the rules of depth.smk ask of the configuration."""

import json


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


def searching(wildcards):
    """Return the settings of a search."""
    return entry(wildcards.scale, "depth_searches", wildcards.search)


def searched_translator(wildcards):
    """Return the model that a search is about."""
    return entry(wildcards.scale, "translators", searching(wildcards)["translator"])


def searched_path(wildcards):
    """Return its folder."""
    return searched_translator(wildcards)["path"]


def search_inputs(wildcards):
    """Return the pairs of a search, what levels cost, and what else it runs."""
    scale, search = wildcards.scale, searching(wildcards)
    files = {
        key: multiext(f"results/{scale}/pairs/{search[key]}", ".json", ".safetensors")
        for key in ("set", "heldout")
    }
    files["levels"] = f"results/{scale}/levels/{search['translator']}.json"
    if scale == "mini" and "multi" in search:
        files["timing"] = level_timings(scale, [search["translator"]])
    model = searched_translator(wildcards).get("model")
    if model is not None:
        path = entry(scale, "models", model)["path"]
        files["model"] = files_of(lambda _: path)(wildcards)
    if judged_by_frechet(search):
        path = entry(scale, "encoders", "frechet")["path"]
        files["frechet"] = files_of(lambda _: path)(wildcards)
    return files


def judged_by_frechet(search):
    """Tell whether a search needs the Fréchet distance."""
    return "frechet" in [each["metric"] for each in search["thresholds"]]


def search_options(wildcards, input):
    """Return the command-line options for the same.

    Timings say what schedules save. Levels of paper size are timed on request alone; a
    search reads those that there are.
    """
    scale, search = wildcards.scale, searching(wildcards)
    options = [
        f"--{key} results/{scale}/pairs/{search[key]}.json"
        for key in ("set", "heldout")
    ]
    model = searched_translator(wildcards).get("model")
    if model is not None:
        options.append(f"--model {entry(scale, 'models', model)['path']}")
    if judged_by_frechet(search):
        chosen = entry(scale, "encoders", "frechet")
        options.append(f"--frechet {chosen['path']} --frechet-kind {chosen['kind']}")
    (timing,) = level_timings(scale, [search["translator"]])
    if "multi" in search and (scale == "mini" or Path(timing).is_file()):
        options.append(f"--timing {timing}")
    return " ".join(options)


def search_spec(wildcards):
    """Return a search as its dataclass takes it."""
    search, task = searching(wildcards), searched_translator(wildcards)["task"]
    sampled = {key: search[key] for key in SAMPLED if key in search}
    keys = ("seed", "batch_size", "levels", "thresholds", "multi")
    return json.dumps(
        {
            "translation": {"task": task, **sampled},
            **{key: search[key] for key in keys if key in search},
        }
    )


def depth_searches(scale):
    """Return the results of every search at a scale."""
    return [f"results/{scale}/depth/{n}.json" for n in entries(scale, "depth_searches")]


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


def finetuned_of(wildcards):
    """Return the settings of a translator that is trained further."""
    return entry("mini", "finetuned", wildcards.finetuned)


def finetuned_path(wildcards):
    """Return the folder of the translator that it starts from."""
    return entry("mini", "translators", finetuned_of(wildcards)["translator"])["path"]


def finetuned_inputs(wildcards):
    """Return the pairs that the gain is measured on; for synthesis the restorer."""
    name = finetuned_of(wildcards)["set"]
    pairs = f"results/mini/pairs/{name}"
    files = {"set": f"{pairs}.json", "images": f"{pairs}.safetensors"}
    restorer = entry("mini", "translation_sets", name).get("restorer")
    if restorer is not None:
        files["restorer"] = files_of(lambda _: restorer)(wildcards)
    return files


def finetuned_options(wildcards, input):
    """Return the command-line option for the same."""
    name = finetuned_of(wildcards)["set"]
    restorer = entry("mini", "translation_sets", name).get("restorer")
    return "" if restorer is None else f"--restorer {restorer}"


def finetuned_spec(wildcards):
    """Return what is trained further, by its translator's recipe but for what differs."""
    chosen = finetuned_of(wildcards)
    recipe = dict(entry("mini", "training", "translators")[chosen["recipe"]])
    recipe["optimisation"] = {**recipe["optimisation"], **chosen["optimisation"]}
    recipe["pairs"] = chosen["pairs"]
    sampled = {key: chosen[key] for key in SAMPLED if key in chosen}
    return json.dumps(
        {
            "training": {"level": chosen["level"], "recipe": recipe},
            "translation": {"task": recipe["task"], **sampled},
            "seed": chosen["seed"],
            "batch_size": chosen["batch_size"],
        }
    )
