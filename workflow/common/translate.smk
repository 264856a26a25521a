"""What the rules of translate.smk ask of the configuration."""

import json

SAMPLED = (
    "steps",
    "guidance",
    "image_guidance",
    "timesteps",
    "scheduler",
    "clock",
)
"""Keys of a translation that describe how it is sampled."""


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


def translation_set_spec(wildcards):
    """Return a set as its dataclass takes it; shards are the workflow's affair."""
    chosen = entry(wildcards.scale, "translation_sets", wildcards.translation_set)
    return json.dumps({key: chosen[key] for key in chosen if key != "shards"})


def translation_shards(scale, name):
    """Return in how many jobs a translation of its set is made."""
    chosen = entry(scale, "translations", name)["set"]
    return entry(scale, "translation_sets", chosen).get("shards", 1)


def translation_shard_count(wildcards):
    """Return the same as params."""
    return translation_shards(wildcards.scale, wildcards.translation)


def translated_shards(scale, names):
    """Return the images of translations."""
    return [
        f"results/{scale}/translated/{name}/{index:03d}.safetensors"
        for name in names
        for index in range(translation_shards(scale, name))
    ]


def translation_set_inputs(wildcards):
    """Return what a set is made from: a folder's list, or the net that restores."""
    chosen = entry(wildcards.scale, "translation_sets", wildcards.translation_set)
    files = {}
    if "path" in chosen:
        brought = manifest_of(chosen["path"])
        files["list"] = brought or f"{chosen['path']}/pairs.jsonl"
    if "restorer" in chosen:
        files["restorer"] = files_of(lambda _: chosen["restorer"])(wildcards)
    return files


def translator_of(wildcards):
    """Return the model that a translation runs."""
    name = entry(wildcards.scale, "translations", wildcards.translation)["translator"]
    return entry(wildcards.scale, "translators", name)


def translator_path(wildcards):
    """Return its folder."""
    return translator_of(wildcards)["path"]


def translation_inputs(wildcards):
    """Return the pairs that a translation is of, and the pipeline beneath its model."""
    scale = wildcards.scale
    name = entry(scale, "translations", wildcards.translation)["set"]
    files = {
        "set": f"results/{scale}/pairs/{name}.json",
        "images": f"results/{scale}/pairs/{name}.safetensors",
    }
    path = beneath(scale, translator_of(wildcards))
    if path is not None:
        files["model"] = files_of(lambda _: path)(wildcards)
    searched = entry(scale, "translations", wildcards.translation).get("searched")
    if searched is not None:
        (files["searched"],) = timesteps_of(scale, [searched["search"]])
    return files


def beneath(scale, translator):
    """Return the folder that a ControlNet steers, or that weights lie over, or None."""
    if "over" in translator:
        return entry(scale, "translators", translator["over"])["path"]
    model = translator.get("model")
    return None if model is None else entry(scale, "models", model)["path"]


def translation_options(wildcards, input):
    """Return the command-line options for the same."""
    scale = wildcards.scale
    path = beneath(scale, translator_of(wildcards))
    options = [] if path is None else [f"--model {path}"]
    searched = entry(scale, "translations", wildcards.translation).get("searched")
    if searched is not None:
        (path,) = timesteps_of(scale, [searched["search"]])
        options.append(f"--searched {path} --method {searched['method']}")
    return " ".join(options)


def translation_spec(wildcards):
    """Return a translation as its dataclass takes it."""
    scale = wildcards.scale
    run = entry(scale, "translations", wildcards.translation)
    task = translator_of(wildcards)["task"]
    sampled = {key: run[key] for key in SAMPLED if key in run}
    chosen = {"translation": {"task": task, **sampled}}
    chosen |= {key: run[key] for key in ("seed", "batch_size", "level") if key in run}
    if "adaptor" in run:
        adaptor = entry(scale, "adaptors", run["adaptor"])
        chosen |= {"cut": adaptor["cut"], "kind": adaptor["kind"]}
    return json.dumps(chosen)


def scored_together():
    """Return the translations that one job scores, as (scale, set, translations)."""
    batches = {}
    for scale in SCALES:
        for name, run in entries(scale, "translations").items():
            batches.setdefault((scale, run["set"]), []).append(name)
    return [(*key, names) for key, names in batches.items()]


def translations_clip(scale):
    """Return the folder of the CLIP that scores translations."""
    known = entries(scale, "encoders")
    return known.get("clip_translations", known["clip"])["path"]


def aesthetic_option(scale):
    """Return the option that names the aesthetic predictor, if there is one."""
    chosen = entries(scale, "encoders").get("aesthetic")
    return "" if chosen is None else f"--aesthetic {chosen['path']}"


def aesthetic_file(scale):
    """Return the predictor's file, if there is one."""
    chosen = entries(scale, "encoders").get("aesthetic")
    return [] if chosen is None else [chosen["path"]]


def translation_teachers(scale, names):
    """Return the translations that others are compared with, as JSON text."""
    runs = {name: entry(scale, "translations", name) for name in names}
    return json.dumps(
        {name: run["teacher"] for name, run in runs.items() if "teacher" in run}
    )


def translation_scores(scale, names):
    """Return the score files of translations."""
    return [f"results/{scale}/scores/translations/{name}.json" for name in names]
