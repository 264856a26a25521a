"""What the rules of edit.smk ask of the configuration."""

import json


def editing(scale, section):
    """Return a section of a scale's editing, ids to settings."""
    return entries(scale, "editing").get(section, {})


def editing_entry(scale, section, name):
    """Return one of its entries, or say which there are."""
    known = editing(scale, section)
    if name not in known:
        listed = ", ".join(known) or "none"
        raise WorkflowError(
            f"{scale}: {name!r} is not one of the {section} of editing ({listed})"
        )
    return known[name]


def edits_at(scale, setting, edit_set):
    """Return the edits that are made of a set at a setting."""
    some = entry(scale, "edit_sets", edit_set).get("edits")
    return [
        name
        for name, edit in editing(scale, "edits").items()
        if setting in edit.get("settings", (setting,)) and (not some or name in some)
    ]


def edit_set_spec(wildcards):
    """Return a set as the step that reads its folder takes it."""
    chosen = entry(wildcards.scale, "edit_sets", wildcards.edit_set)
    keys = ("source", "path", "prompts", "size", "convert")
    return json.dumps({key: chosen[key] for key in keys if key in chosen})


def scene_edits_spec(wildcards):
    """Return a set of scenes as the step that writes its folder takes it."""
    chosen = entry(wildcards.scale, "edit_sets", wildcards.edit_set)
    return json.dumps(
        {
            key: value
            for key, value in chosen.items()
            if key not in ("source", "size", "model", "edits")
        }
    )


def edit_set_inputs(wildcards):
    """Return a set's own folder, and the model that samples its sources."""
    chosen = entry(wildcards.scale, "edit_sets", wildcards.edit_set)
    files = {}
    if chosen["source"] == "scenes":
        folder = f"results/{wildcards.scale}/scene_edits/{wildcards.edit_set}"
        files["prompts"] = f"{folder}/prompts.yaml"
    elif is_made(chosen["path"]):
        files["prompts"] = f"{chosen['path']}/{chosen['prompts']}"
    elif manifest_of(chosen["path"]):
        files["folder"] = manifest_of(chosen["path"])
    if "model" in chosen:
        path = entry(wildcards.scale, "models", chosen["model"])["path"]
        files["model"] = files_of(lambda _: path)(wildcards)
    return files


def edit_set_options(wildcards, input):
    """Return the command-line options for the same."""
    chosen = entry(wildcards.scale, "edit_sets", wildcards.edit_set)
    options = []
    if chosen["source"] == "scenes":
        options.append(f"--folder {Path(input.prompts).parent}")
    if "model" in chosen:
        path = entry(wildcards.scale, "models", chosen["model"])["path"]
        options.append(f"--model {path}")
    return " ".join(options)


def inversion_of(wildcards):
    """Return the inversion that a job makes, or that its edit starts from."""
    name = wildcards.get("inversion")
    if name is None:
        name = editing_entry(wildcards.scale, "edits", wildcards.edit)["inversion"]
    return name, editing_entry(wildcards.scale, "inversions", name)


def edited_model(wildcards):
    """Return the folder of the model that inverts and edits."""
    _, inversion = inversion_of(wildcards)
    return entry(wildcards.scale, "models", inversion["model"])["path"]


def edited_model_files(wildcards):
    """Return the files of that model."""
    return files_of(edited_model)(wildcards)


def together():
    """Return the settings that one job makes all of, by scale that has such."""
    lists = {scale: entries(scale, "editing").get("together", ()) for scale in SCALES}
    return {scale: settings for scale, settings in lists.items() if settings}


def made_together(scale):
    """Return a wildcard constraint: the edits that are made at all these settings."""
    return "|".join(
        name for name, edit in editing(scale, "edits").items() if "settings" not in edit
    )


def edited_whole(scale):
    """Return a wildcard constraint: the sets of which every edit is made."""
    sets = entries(scale, "edit_sets").items()
    return "|".join(name for name, chosen in sets if "edits" not in chosen)


def settings_of(wildcards):
    """Return the settings that a job makes: one of its own, or those made together."""
    if "setting" in wildcards.keys():
        return [wildcards.setting]
    return together()[wildcards.scale]


def steps_of(wildcards, loop):
    """Return the numbers of steps of a loop at a job's settings."""
    return [
        editing_entry(wildcards.scale, "settings", setting)[loop]
        for setting in settings_of(wildcards)
    ]


def loop_of(wildcards):
    """Return the settings of the loop that a job runs: an inversion, or an edit."""
    if "inversion" in wildcards.keys():
        return editing_entry(wildcards.scale, "inversions", wildcards.inversion)
    return editing_entry(wildcards.scale, "edits", wildcards.edit)


def inversion_spec(wildcards):
    """Return an inversion as its dataclass takes it."""
    loop = loop_of(wildcards)
    return json.dumps(
        {
            "inversions": [
                {"steps": steps, "clock": loop.get("clock", 1)}
                for steps in steps_of(wildcards, "inversion")
            ],
            "generations": steps_of(wildcards, "generation"),
            "batch_size": loop["batch_size"],
            **light_pass(wildcards.scale, loop.get("adaptor")),
        }
    )


GENERATION = (
    "guidance",
    "tau_f",
    "tau_a",
    "negative_prompt",
    "conv_layer",
    "clock",
    "drop_source",
    "features",
)
"""Keys of an edit that describe its generation."""


def generation_settings(scale, edit, setting):
    """Return the generation of an edit at a setting, as its dataclass takes it."""
    chosen = editing_entry(scale, "edits", edit)
    steps = editing_entry(scale, "settings", setting)["generation"]
    return {
        "steps": steps,
        **{key: chosen[key] for key in GENERATION if key in chosen},
    }


def edit_spec(wildcards):
    """Return an edit as its dataclass takes it."""
    chosen = loop_of(wildcards)
    return json.dumps(
        {
            "generations": [
                generation_settings(wildcards.scale, wildcards.edit, setting)
                for setting in settings_of(wildcards)
            ],
            "batch_size": chosen["batch_size"],
            **{key: chosen[key] for key in ("target", "spill") if key in chosen},
            **light_pass(wildcards.scale, chosen.get("adaptor")),
        }
    )


def inversion_indices(wildcards):
    """Return the indices of the inversions that an edit starts from, by setting."""
    name, _ = inversion_of(wildcards)
    folder = f"results/{wildcards.scale}/inversions/{wildcards.edit_set}/{name}"
    return [f"{folder}/{setting}/index.json" for setting in settings_of(wildcards)]


def edited_images(wildcards):
    """Return the images of all edits of a set at a setting."""
    folder = f"results/{wildcards.scale}/edited/{wildcards.edit_set}"
    return [
        f"{folder}/{name}/{wildcards.setting}.safetensors"
        for name in edits_at(wildcards.scale, wildcards.setting, wildcards.edit_set)
    ]


def edit_teachers(wildcards):
    """Return the edits that others are compared with, by edit, as JSON text."""
    made = edits_at(wildcards.scale, wildcards.setting, wildcards.edit_set)
    edits = editing(wildcards.scale, "edits")
    teachers = {name: edits[name].get("teacher") for name in made}
    return json.dumps({k: v for k, v in teachers.items() if v in made})


def structure_path(wildcards):
    """Return the folder of the ViT whose keys tell structure."""
    return entry(wildcards.scale, "encoders", "structure")["path"]


def edit_run(scale, name):
    """Return the settings of an edited run, ``<edit>/<setting>`` behind any set."""
    edit, setting = name.split("/")[-2:]
    chosen = editing_entry(scale, "edits", edit)
    inversion = editing_entry(scale, "inversions", chosen["inversion"])
    steps = editing_entry(scale, "settings", setting)
    loops = {"inversion": inversion, "generation": chosen}
    described = {
        name: {
            "steps": steps[name],
            "clock": loop.get("clock", 1),
            "adaptor": loop.get("adaptor", ""),
        }
        for name, loop in loops.items()
    }
    described["generation"] |= generation_settings(scale, edit, setting)
    return {"model": inversion["model"], **described}


def is_edited(name):
    """Tell whether a run's name is that of an edited run."""
    return "/" in name


UNEDITED = "unedited"
"""The edit that leaves its source as it is; scored with the others."""


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


def edit_scores(scale, names):
    """Return the score files of edited runs, ``<edit_set>/<edit>/<setting>``."""
    parts = [name.split("/") for name in names]
    pairs = dict.fromkeys((edit_set, setting) for edit_set, _, setting in parts)
    return [
        f"results/{scale}/scores/edits/{edit_set}/{setting}.json"
        for edit_set, setting in pairs
    ]


def timed_edits(wildcards):
    """Return the edited runs that are timed, ``<edit>/<setting>`` to settings."""
    scale = wildcards.scale
    return {n: edit_run(scale, n) for n in editing(scale, "latency")["runs"]}


def edit_timing_spec(wildcards):
    """Return which edited runs to time, and how often."""
    scale, runs = wildcards.scale, {}
    for name, run in timed_edits(wildcards).items():
        model = entry(scale, "models", run["model"])
        runs[name] = {"model": model["path"], "tokens": model["tokens"]}
        for loop in ("inversion", "generation"):
            chosen = dict(run[loop])
            light = timed_light_pass(scale, chosen.pop("adaptor"))
            runs[name][loop] = {**chosen, **light}
    timing = {k: v for k, v in editing(scale, "latency").items() if k != "runs"}
    width = text_channels(wildcards)
    return json.dumps({**timing, "runs": runs, "text_channels": width})
