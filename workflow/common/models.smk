"""What the rules of models.smk ask of the configuration."""

import json

from clockwork_experiments.config.needs.publishing import hub_files, published

MINI_MODELS = texts.read_yaml(ROOT / "workflow" / "mini_models.yaml")
HUB = published(config, MINI_MODELS)


def judge_path(wildcards):
    """Return the folder of the judge of scenes."""
    return entry(wildcards.scale, "encoders", "judge")["path"]


def judged_run(wildcards):
    """Return the run that a model is judged by."""
    judged = entry(wildcards.scale, "quality", wildcards.judged)
    return entry(wildcards.scale, "runs", judged["run"])


def judged_images(wildcards):
    """Return the images that a model is judged by."""
    name = entry(wildcards.scale, "quality", wildcards.judged)["run"]
    return shards("images", wildcards.scale, judged_run(wildcards)["dataset"], name)


def judged_scenes(wildcards):
    """Return the scenes that they should show."""
    dataset = entry(wildcards.scale, "datasets", judged_run(wildcards)["dataset"])
    told = ("source", "split", "count", "offset")
    return json.dumps({key: dataset[key] for key in told})


def judged_grid(wildcards):
    """Return the grid that shows some of them, as its dataclass takes it."""
    judged = entry(wildcards.scale, "quality", wildcards.judged)
    grid = {key: value for key, value in judged.items() if key != "run"}
    return json.dumps({**grid, "runs": [{"run": judged["run"], "label": ""}]})


def judged_grid_inputs(wildcards):
    """Return what that grid shows."""
    dataset = judged_run(wildcards)["dataset"]
    return {
        "images": judged_images(wildcards),
        "prompts": f"results/{wildcards.scale}/prompts/{dataset}.json",
    }


def judged_grid_options(wildcards, input):
    """Return the command-line options for the same."""
    return f"--inputs prompts={input.prompts} " + " ".join(
        f"images={path}" for path in input.images
    )


def mini_models():
    """Return the names of the mini models that rules train and the project ships."""
    trained = [name for name, model in MINI_MODELS.items() if model.get("shipped")]
    return trained + list(entries("mini", "backbones"))


def mini_teachers():
    """Return the mini model that each of them was made from, where there is one."""
    made = {
        name: model["reads"]["teacher"]
        for name, model in MINI_MODELS.items()
        if "teacher" in model.get("reads", {})
    }
    for name, backbone in entries("mini", "backbones").items():
        made[name] = Path(entry("mini", "models", backbone["teacher"])["path"]).name
    return made


def mini_model_recipe(wildcards):
    """Return the module that trains a mini model."""
    return MINI_MODELS[wildcards.mini_model]["recipe"]


def mini_model_reads(wildcards):
    """Return the cards of the mini models that it is trained from."""
    reads = MINI_MODELS[wildcards.mini_model].get("reads", {})
    return {name: f"results/mini/models/{of}/README.md" for name, of in reads.items()}


def mini_model_options(wildcards):
    """Return the command-line option for their folders."""
    reads = mini_model_reads(wildcards).items()
    folders = " ".join(f"{name}={Path(card).parent}" for name, card in reads)
    return f"--reads {folders}" if folders else ""


def mini_model_spec(wildcards):
    """Return the settings that it is trained with, as JSON text."""
    model = MINI_MODELS[wildcards.mini_model]
    if "spec" in model:
        return json.dumps(model["spec"])
    settings = config["mini"]["training"]
    for key in model["training"]:
        settings = settings[key]
    return json.dumps(settings)


MINI_ADAPTORS = texts.read_yaml(ROOT / "workflow" / "mini_adaptors.yaml")


def mini_adaptors():
    """Return the mini models that adaptors are shipped for."""
    return list(MINI_ADAPTORS)


def mini_adaptor(wildcards):
    """Return how to train a shipped adaptor, as JSON."""
    return json.dumps(MINI_ADAPTORS[wildcards.teacher])


def model_folder(wildcards, output):
    """Return the folder of a mini model, which is that of its card."""
    return str(Path(output.card).parent)


def backbone_teacher(wildcards):
    """Return the folder of the pipeline that a backbone is made from.

    That of a model, or that of a backbone which is made before.
    """
    name = entry(wildcards.scale, "backbones", wildcards.backbone)["teacher"]
    if name in entries(wildcards.scale, "backbones"):
        return f"results/{wildcards.scale}/models/{name}"
    return entry(wildcards.scale, "models", name)["path"]


def quality_option(wildcards):
    """Return the option that names the table for a backbone's card, if it is judged."""
    name = wildcards.backbone
    if name not in entries(wildcards.scale, "quality"):
        return ""
    return f"--quality docs/reference/{wildcards.scale}/quality/{name}.md"


def backbone_images(wildcards):
    """Return the images that a backbone is distilled on."""
    name = entry(wildcards.scale, "backbones", wildcards.backbone)["dataset"]
    return shards("images", wildcards.scale, name)


def grid_module(wildcards):
    """Return the module of the kind of figure that shows what a model is judged by."""
    return kinds.place(kinds.FIGURES, "grid")[0]


def hub_card(wildcards):
    """Return the card that training wrote of a model that is put on a hub."""
    return f"{HUB[wildcards.published]['folder']}/README.md"


def hub_model(wildcards):
    """Return the model's files."""
    return hub_files(HUB[wildcards.published]["folder"])


def hub_spec(wildcards):
    """Return what its card says, as the step's dataclass takes it."""
    return json.dumps(HUB[wildcards.published]["spec"])
