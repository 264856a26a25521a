"""What the rules of models.smk ask of the configuration."""

import json

WORLD = texts.read_yaml(Path(workflow.basedir) / "workflow" / "world.yaml")


def classifier_path(wildcards):
    """Return the folder of the classifier of renders."""
    return entry(wildcards.scale, "encoders", "classifier")["path"]


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
    return json.dumps({key: dataset[key] for key in ("split", "count", "offset")})


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


def mini_models():
    """Return the names of the mini models that rules train and the project ships."""
    trained = ["stable-diffusion", "clip", "classifier", "features", "structure"]
    trained += ["restorer", *entry("mini", "training", "translators")]
    trained += ["stablesr-distilled"]
    return trained + list(entries("mini", "backbones"))


MINI_ADAPTORS = texts.read_yaml(
    Path(workflow.basedir) / "workflow" / "mini_adaptors.yaml"
)


def mini_adaptors():
    """Return the mini models that adaptors are shipped for."""
    return list(MINI_ADAPTORS)


def mini_adaptor(wildcards):
    """Return how to train a shipped adaptor, as JSON."""
    return json.dumps(MINI_ADAPTORS[wildcards.teacher])


def recipe(name):
    """Return a params function for a mini model's recipe, as JSON text."""
    return lambda wildcards: json.dumps(entry("mini", "training", name))


def translator_recipe(wildcards):
    """Return the recipe of a mini translator, as JSON text."""
    return json.dumps(entry("mini", "training", "translators")[wildcards.translator])


def restorer_of(wildcards):
    """Return the restoration net's card for the translator that starts from it."""
    recipe = entry("mini", "training", "translators")[wildcards.translator]
    if recipe["task"] != "synthesis":
        return {}
    return {"restorer": "results/mini/models/restorer/README.md"}


def restorer_option(wildcards, input):
    """Return the command-line option for the same."""
    if not hasattr(input, "restorer"):
        return ""
    return f"--restorer {Path(input.restorer).parent}"


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


def vae_folder(wildcards, input):
    """Return the folder of the autoencoder that the teacher is trained on."""
    return str(Path(input.vae).parent)


def world_inputs(wildcards):
    """Return what one of the open world's models is trained on."""
    made = {"vae": "results/mini/world/autoencoder/README.md"}
    return made if wildcards.part == "teacher" else {}


def world_recipe(wildcards):
    """Return the recipe of one of the open world's models, as JSON text."""
    return json.dumps(WORLD[wildcards.part])


def world_autoencoder(wildcards, input):
    """Return the option that names the autoencoder's folder, where one is read."""
    return f"--vae {vae_folder(wildcards, input)}" if "vae" in input.keys() else ""
