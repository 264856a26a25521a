"""Registries, wildcard constraints, and the few functions that rules call; no rules."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from snakemake.exceptions import WorkflowError

from clockwork_diffusion.clock import clock_of
from clockwork_diffusion.provenance import code_of
from clockwork_diffusion.tables import COLUMNS, SOURCES

SCHEMAS = Path(workflow.basedir) / "workflow" / "schemas"
PAPERS = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted((Path(workflow.basedir) / "workflow" / "papers").glob("*.yaml"))
}
SCALES = ("mini", "paper")


def entries(scale, section):
    """Return a section of the configuration, ids to settings."""
    return config[scale].get(section, {})


def entry(scale, section, name):
    """Return one entry of the configuration, or say which there are."""
    known = entries(scale, section)
    if name not in known:
        listed = ", ".join(known) or "none"
        raise WorkflowError(f"{scale}: {name!r} is not one of the {section} ({listed})")
    return known[name]


def items(scale, kind):
    """Return the tables or figures at a scale as (paper, id, settings)."""
    return [
        (paper, name, item[scale])
        for paper, registry in PAPERS.items()
        for name, item in registry[kind].items()
        if scale in item
    ]


def check_schema(data, schema, name):
    """Refuse data that its schema does not allow, in one line that says where."""
    text = (SCHEMAS / schema).read_text(encoding="utf-8")
    error = best_match(Draft202012Validator(yaml.safe_load(text)).iter_errors(data))
    if error is not None:
        where = ".".join(map(str, error.absolute_path)) or "top level"
        known = error.schema.get("properties")
        hint = f"; known keys are {', '.join(known)}" if known else ""
        raise WorkflowError(f"{name}: {where}: {error.message}{hint}")


def check_equal(what, one, other, *keys):
    """Refuse two entries that must agree and do not."""
    for key in keys:
        if one[key] != other[key]:
            raise WorkflowError(
                f"{what} must have the same {key}, not {one[key]!r} and {other[key]!r}"
            )


def check_grid(scale, what, figure):
    """Refuse a grid of runs that share no prompts, or of prompts that they lack."""
    runs = [entry(scale, "runs", shown["run"]) for shown in figure["runs"]]
    for run in runs:
        check_equal(f"{what}: runs", runs[0], run, "dataset")
    count = entry(scale, "datasets", runs[0]["dataset"])["count"]
    if max(figure["prompts"]) >= count:
        raise WorkflowError(
            f"{what}: prompt {max(figure['prompts'])} is not one of the {count}"
        )


def claim_registries(scale):
    """Return the papers that claim something at a scale, with what they claim."""
    return [
        (paper, registry["claims"][scale])
        for paper, registry in PAPERS.items()
        if scale in registry.get("claims", {})
    ]


def margin_runs(margin):
    """Return the runs that a margin is measured on."""
    return [margin[key] for key in ("better", "worse") if key in margin]


def part_runs(part, margins):
    """Return the runs that a part of a claim is about, those of its margin included."""
    return [
        *([part["of"]] if "of" in part else []),
        *part.get("over", ()),
        *([part["to"]] if "to" in part else []),
        *margin_runs(margins[part["margin"]]),
    ]


def check_claims(scale, paper, registry):
    """Refuse claims on runs that there are not, or that share no prompts and seeds."""
    known, margins = entries(scale, "runs"), registry["margins"]
    for name, claim in registry["claims"].items():
        what = f"{paper}, claim {name} at {scale} scale"
        for part in claim["parts"]:
            if part["margin"] not in margins:
                listed = ", ".join(margins)
                raise WorkflowError(
                    f"{what}: {part['margin']!r} is not one of the margins ({listed})"
                )
            runs = part_runs(part, margins)
            missing = [run for run in dict.fromkeys(runs) if run not in known]
            if missing:
                listed = ", ".join(known)
                raise WorkflowError(
                    f"{what}: run {missing[0]!r} is not one of the runs ({listed})"
                )
            for run in runs:
                check_equal(
                    f"{what}: runs", known[runs[0]], known[run], "dataset", "seed"
                )
            timed = entries(scale, "latency").get("runs", ())
            for run in runs if "latency" in part["metrics"] else ():
                if run not in timed:
                    listed = ", ".join(timed) or "none"
                    raise WorkflowError(
                        f"{what}: run {run!r} is not one of those timed ({listed})"
                    )
            if "perturbation" in part:
                check_cells(scale, what, part)


def check_cells(scale, what, part):
    """Refuse cells that a perturbation's grid does not have."""
    grid = entry(scale, "perturbations", part["perturbation"])["spec"]
    asked = [("alphas", part.get("alpha", 0))]
    for cell in part["cells"]:
        asked += [("layers", cell["layer"]), ("starts", cell["start"])]
    for key, value in asked:
        if value not in grid[key]:
            listed = ", ".join(map(str, grid[key]))
            raise WorkflowError(
                f"{what}: {value!r} is not one of the {key} of perturbation "
                f"{part['perturbation']!r} ({listed})"
            )


def curve_runs(figure):
    """Return the runs of a figure with curves."""
    points = [point for series in figure["series"] for point in series["points"]]
    return list(dict.fromkeys(point["run"] for point in points))


def check_registries():
    """Refuse a reference to what does not exist, before anything runs."""
    check_schema(config, "config.schema.yaml", "config.yaml")
    for paper, registry in PAPERS.items():
        check_schema(registry, "paper.schema.yaml", f"workflow/papers/{paper}.yaml")
    for scale in SCALES:
        shared = set(entries(scale, "runs")) & set(entries(scale, "datasets"))
        if shared:
            raise WorkflowError(f"{scale}: {shared} names a run and a data set")
        for name, run in entries(scale, "runs").items():
            entry(scale, "models", run["model"])
            entry(scale, "datasets", run["dataset"])
            if "adaptor" in run:
                adaptor = entry(scale, "adaptors", run["adaptor"])
                if "model" in adaptor:
                    what = f"{scale}: run {name!r} and its adaptor"
                    check_equal(what, run, adaptor, "model")
            if "teacher" in run:
                teacher = entry(scale, "runs", run["teacher"])
                what = f"{scale}: run {name!r} and its teacher"
                check_equal(what, run, teacher, "dataset", "seed")
            if clock_of(run["sampler"]).needs_adaptor != ("adaptor" in run):
                raise WorkflowError(
                    f"{scale}: run {name!r} needs both a clock above 1 and an adaptor, "
                    "or neither; adaptor steps, or every step, are a clock as well"
                )
        for name, dataset in entries(scale, "datasets").items():
            reference = entry(scale, "datasets", dataset.get("reference", name))
            what = f"{scale}: data set {name!r} and its reference"
            check_equal(what, {"size": 0, **dataset}, {"size": 0, **reference}, "size")
        for trajectory in entries(scale, "trajectories").values():
            entry(scale, "models", trajectory["model"])
            entry(scale, "datasets", trajectory["dataset"])
        for name, adaptor in entries(scale, "adaptors").items():
            if "model" not in adaptor:
                continue
            entry(scale, "models", adaptor["model"])
            for key in ("train", "heldout"):
                trajectory = entry(scale, "trajectories", adaptor[key])
                what = f"{scale}: adaptor {name!r} and trajectory {adaptor[key]!r}"
                check_equal(what, adaptor, trajectory, "model")
                check_equal(what, adaptor["spec"], trajectory["spec"], "cut")
        for paper, name, table in items(scale, "tables"):
            for column in table["columns"]:
                if column not in COLUMNS:
                    raise WorkflowError(
                        f"{paper}, {name} at {scale} scale: column {column!r} is not "
                        f"one of {', '.join(COLUMNS)}"
                    )
            for row in table["rows"]:
                for key in ("run", "baseline"):
                    if key in row and row[key] not in entries(scale, "runs"):
                        listed = ", ".join(entries(scale, "runs"))
                        raise WorkflowError(
                            f"{paper}, {name} at {scale} scale: {key} {row[key]!r} is "
                            f"not one of the runs ({listed})"
                        )
        for paper, name, figure in items(scale, "figures"):
            what = f"{paper}, {name} at {scale} scale"
            for key in ("model", "adaptor", "perturbation"):
                if key in figure:
                    entry(scale, f"{key}s", figure[key])
            for shown in figure.get("adaptors", ()):
                if "model" not in entry(scale, "adaptors", shown["adaptor"]):
                    raise WorkflowError(
                        f"{what}: adaptor {shown['adaptor']!r} is not trained"
                    )
            for run in curve_runs(figure) if "series" in figure else ():
                entry(scale, "runs", run)
            if "runs" in figure:
                check_grid(scale, what, figure)
        for perturbation in entries(scale, "perturbations").values():
            entry(scale, "models", perturbation["model"])
            entry(scale, "datasets", perturbation["dataset"])
        for name in entries(scale, "latency").get("runs", ()):
            entry(scale, "runs", name)
        for judged in entries(scale, "quality").values():
            entry(scale, "runs", judged["run"])
        for backbone in entries(scale, "backbones").values():
            entry(scale, "datasets", backbone["dataset"])
            if backbone["teacher"] not in entries(scale, "backbones"):
                entry(scale, "models", backbone["teacher"])
        for paper, registry in claim_registries(scale):
            check_claims(scale, paper, registry)


check_registries()


def ids(section):
    """Return a wildcard constraint: the ids of a section at any scale."""
    names = {name for scale in SCALES for name in entries(scale, section)}
    return "|".join(sorted(names)) or "none"


def paper_ids(kind):
    """Return a wildcard constraint: the ids of tables or figures."""
    return "|".join(
        sorted({name for registry in PAPERS.values() for name in registry[kind]})
    )


wildcard_constraints:
    scale="|".join(SCALES),
    model=ids("models"),
    dataset=ids("datasets"),
    trajectory=ids("trajectories"),
    adaptor=ids("adaptors"),
    run=ids("runs"),
    judged=ids("quality"),
    backbone=ids("backbones"),
    perturbation=ids("perturbations"),
    images="|".join((ids("runs"), ids("datasets"))),
    paper="|".join(PAPERS),
    table=paper_ids("tables"),
    figure=paper_ids("figures"),
    shard=r"\d{3}",


def code(step):
    """Return the modules that a step runs: an edit of one reruns the step.

    Relative to the checkout, if they lie in it: moving it reruns nothing.
    """
    here = Path(workflow.basedir).resolve()
    paths = [path.resolve() for path in code_of(f"steps.{step}")]
    return [
        str(path.relative_to(here) if path.is_relative_to(here) else path)
        for path in paths
    ]


def shards(pattern, scale, dataset, **ids_):
    """Return a path per shard of a data set."""
    count = entry(scale, "datasets", dataset)["shards"]
    return [
        pattern.format(scale=scale, shard=f"{index:03d}", **ids_)
        for index in range(count)
    ]


def tables(scale):
    """Return the files of every table at a scale."""
    return [
        f"results/{scale}/tables/{paper}/{name}.{kind}"
        for paper, name, _ in items(scale, "tables")
        for kind in ("csv", "md", "tex")
    ]


def figures(scale):
    """Return the files of every figure at a scale."""
    return [
        f"results/{scale}/figures/{paper}/{name}.{kind}"
        for paper, name, _ in items(scale, "figures")
        for kind in ("pdf", "png")
    ]


def claims(scale):
    """Return the files of every paper's claims at a scale."""
    return [
        f"results/{scale}/claims/{paper}.{kind}"
        for paper, _ in claim_registries(scale)
        for kind in ("json", "md")
    ]


def drawn_figures(scale):
    """Return the files of every figure at a scale that needs no weights."""
    free = {"method", "block_map", "adaptor_map"}
    return [
        f"results/{scale}/figures/{paper}/{name}.{kind}"
        for paper, name, figure in items(scale, "figures")
        for kind in ("pdf", "png")
        if figure.get("kind") in free
    ]


# --- what rules ask of the configuration, by wildcards ------------------------------


def setting(section, wildcard, *keys):
    """Return an input or params function for an entry, or a value deep within it."""

    def get(wildcards):
        value = entry(wildcards.scale, section, wildcards[wildcard])
        for key in keys:
            value = value[key]
        return value

    return get


def spec(section, wildcard, *keys):
    """Return a params function for the same, as JSON text."""
    get = setting(section, wildcard, *keys)
    return lambda wildcards: json.dumps(get(wildcards))


def via(section, wildcard, key, target):
    """Return a function for the entry of ``target`` that an entry names by ``key``."""
    get = setting(section, wildcard, key)
    return lambda wildcards: entry(wildcards.scale, target, get(wildcards))


def model_path(section, wildcard):
    """Return an input function for the folder of the model that an entry uses."""
    model = via(section, wildcard, "model", "models")
    return lambda wildcards: model(wildcards)["path"]


def files_of(get_path):
    """Return an input function: the files of the model whose folder it names.

    Files have checksums, so that touching them reruns nothing; folders have none. Of a
    model that a rule makes, the list of checksums stands for all files.
    """

    def get(wildcards):
        folder = Path(get_path(wildcards))
        if folder.parts[0] == "results":
            return [str(folder / "SHA256SUMS")]
        if not folder.is_dir():
            return [str(folder)]
        return sorted(
            str(path)
            for path in folder.rglob("*")
            if path.is_file() and path.name != "README.md"
        )

    return get


def clip_path(wildcards):
    """Return the folder of the scale's CLIP."""
    return entry(wildcards.scale, "encoders", "clip")["path"]


def prompts_of(section, wildcard):
    """Return an input function for the prompts that an entry uses."""
    name = setting(section, wildcard, "dataset")
    return lambda wildcards: f"results/{wildcards.scale}/prompts/{name(wildcards)}.json"


def shard_count(section, wildcard):
    """Return a params function for the number of shards of an entry's prompts."""
    dataset = via(section, wildcard, "dataset", "datasets")
    return lambda wildcards: dataset(wildcards)["shards"]


def dataset_spec(wildcards):
    """Return a data set as its dataclass takes it; shards are the workflow's affair."""
    chosen = dict(entry(wildcards.scale, "datasets", wildcards.dataset))
    for key in ("shards", "reference"):
        chosen.pop(key, None)
    return json.dumps(chosen)


def trajectory_shards(key):
    """Return an input function for the trajectories that an adaptor learns from."""

    def get(wildcards):
        name = entry(wildcards.scale, "adaptors", wildcards.adaptor)[key]
        return shards(
            "results/{scale}/trajectories/{trajectory}/{shard}.safetensors",
            wildcards.scale,
            entry(wildcards.scale, "trajectories", name)["dataset"],
            trajectory=name,
        )

    return get


def noised_images(wildcards):
    """Return a shard's images, if its trajectories are noised images."""
    trajectory = entry(wildcards.scale, "trajectories", wildcards.trajectory)
    if trajectory["spec"].get("source") != "noised":
        return {}
    folder = f"results/{wildcards.scale}/images/{trajectory['dataset']}"
    return {"images": f"{folder}/{wildcards.shard}.safetensors"}


def unrolled_in_training(wildcards):
    """Return the trajectories that an adaptor's training records itself, or None."""
    adaptor = entry(wildcards.scale, "adaptors", wildcards.adaptor)
    if not adaptor["spec"].get("epochs"):
        return None
    return entry(wildcards.scale, "trajectories", adaptor["train"])


def training_data(wildcards):
    """Return the trajectories that an adaptor learns from, or what makes them."""
    trajectory = unrolled_in_training(wildcards)
    if trajectory is None:
        return {"train": trajectory_shards("train")(wildcards)}
    files = {"clip": files_of(clip_path)(wildcards)}
    if trajectory["spec"].get("source") == "noised":
        files["images"] = shards(
            "results/{scale}/images/{images}/{shard}.safetensors",
            wildcards.scale,
            trajectory["dataset"],
            images=trajectory["dataset"],
        )
    return files


def training_options(wildcards, input):
    """Return the command-line options for the same."""
    trajectory = unrolled_in_training(wildcards)
    if trajectory is None:
        return f"--train {input.train}"
    spec = shlex.quote(json.dumps(trajectory["spec"]))
    images = input_options("images")(wildcards, input)
    return f"--unroll {spec} --clip {clip_path(wildcards)} {images}"


def training_gpus(wildcards):
    """Return the number of GPUs, and processes, that an adaptor is trained on."""
    return entry(wildcards.scale, "adaptors", wildcards.adaptor).get("gpus", 1)


def stored_model(wildcards):
    """Return the UNet's configuration, and the model's files if there are any."""
    trajectory = entry(wildcards.scale, "trajectories", wildcards.trajectory)
    model = entry(wildcards.scale, "models", trajectory["model"])
    files = {"unet": model["unet"]} if "unet" in model else {}
    if Path(model["path"]).is_dir():
        files["model"] = files_of(model_path("trajectories", "trajectory"))(wildcards)
    return files


def stored_model_options(wildcards, input):
    """Return the command-line options for the same."""
    options = input_options("unet")(wildcards, input)
    if hasattr(input, "model"):
        options += f" --model {model_path('trajectories', 'trajectory')(wildcards)}"
    return options


def storage_spec(wildcards):
    """Return what to compare."""
    trajectory = entry(wildcards.scale, "trajectories", wildcards.trajectory)
    model = entry(wildcards.scale, "models", trajectory["model"])
    return json.dumps(
        {
            "backbone": model["backbone"],
            "tokens": model["tokens"],
            "text_channels": entry(wildcards.scale, "encoders", "clip")["width"],
            "trajectory": trajectory["spec"],
        }
    )


def trajectory_memory(wildcards):
    """Return the memory in MB; features of 500 SD trajectories take 16 GB."""
    return {"mini": 4000, "paper": 64000}[wildcards.scale]


def training_launcher(wildcards):
    """Return what starts the processes of a training."""
    gpus = training_gpus(wildcards)
    if gpus == 1:
        return "python"
    return (
        f"python -m accelerate.commands.launch --multi_gpu --num_processes {gpus}"
        " --num_machines 1 --mixed_precision no --dynamo_backend no"
    )


def prompts_of_training(wildcards):
    """Return the prompts of the trajectories that an adaptor learns from."""
    adaptor = entry(wildcards.scale, "adaptors", wildcards.adaptor)
    trajectory = entry(wildcards.scale, "trajectories", adaptor["train"])
    return f"results/{wildcards.scale}/prompts/{trajectory['dataset']}.json"


def frechet_path(wildcards):
    """Return the folder or file of the network behind the Fréchet distance."""
    return entry(wildcards.scale, "encoders", "frechet")["path"]


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
    return shards(
        "results/{scale}/images/{images}/{shard}.safetensors",
        wildcards.scale,
        judged_run(wildcards)["dataset"],
        images=name,
    )


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
    return trained + list(entries("mini", "backbones"))


def recipe(name):
    """Return a params function for a mini model's recipe, as JSON text."""
    return lambda wildcards: json.dumps(entry("mini", "training", name))


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
    return shards(
        "results/{scale}/images/{images}/{shard}.safetensors",
        wildcards.scale,
        name,
        images=name,
    )


def vae_folder(wildcards, input):
    """Return the folder of the autoencoder that the teacher is trained on."""
    return str(Path(input.vae).parent)


ADAPTOR_FILES = ("config.json", "diffusion_pytorch_model.safetensors", "SHA256SUMS")


def adaptor_path(scale, name):
    """Return the folder of a learned adaptor."""
    return f"results/{scale}/adaptors/{name}"


def adaptor_files(scale, name):
    """Return the files of a learned adaptor."""
    return [f"{adaptor_path(scale, name)}/{file}" for file in ADAPTOR_FILES]


def is_learned(scale, name):
    """Tell whether an adaptor has weights."""
    return "model" in entry(scale, "adaptors", name)


def adaptor_of_run(wildcards):
    """Return the learned adaptor that a run needs, and the CLIP that it asks."""
    name = entry(wildcards.scale, "runs", wildcards.run).get("adaptor")
    if name is None or not is_learned(wildcards.scale, name):
        return {}
    return {
        "adaptor": adaptor_files(wildcards.scale, name),
        "clip": files_of(clip_path)(wildcards),
    }


def adaptor_options(wildcards, input):
    """Return the command-line options for the same."""
    if not hasattr(input, "adaptor"):
        return ""
    name = entry(wildcards.scale, "runs", wildcards.run)["adaptor"]
    folder = adaptor_path(wildcards.scale, name)
    return f"--adaptor {folder} --clip {clip_path(wildcards)}"


def run_spec(wildcards):
    """Return a run as its dataclass takes it."""
    run = entry(wildcards.scale, "runs", wildcards.run)
    chosen = {key: run[key] for key in ("sampler", "seed", "batch_size")}
    if "adaptor" in run:
        adaptor = entry(wildcards.scale, "adaptors", run["adaptor"])
        if adaptor.get("kind") == "branch":
            chosen["branch"] = adaptor["branch"]
        else:
            chosen["cut"] = adaptor.get("spec", adaptor)["cut"]
            if not is_learned(wildcards.scale, run["adaptor"]):
                chosen["kind"] = adaptor["kind"]
    return json.dumps(chosen)


def images_of(pattern):
    """Return an input function: a file per shard of a run's own data set."""

    def get(wildcards):
        run = entry(wildcards.scale, "runs", wildcards.run)
        return shards(pattern, wildcards.scale, run["dataset"], images=wildcards.run)

    return get


def images_of_teacher(pattern):
    """Return an input function: the same of the run's teacher, if it has one."""

    def get(wildcards):
        run = entry(wildcards.scale, "runs", wildcards.run)
        if "teacher" not in run:
            return []
        return shards(pattern, wildcards.scale, run["dataset"], images=run["teacher"])

    return get


def images_of_captions(pattern):
    """Return an input function: the same of the run's data set."""

    def get(wildcards):
        name = entry(wildcards.scale, "runs", wildcards.run)["dataset"]
        return shards(pattern, wildcards.scale, name, images=name)

    return get


def reference_of(scale, run):
    """Return the data set that a run's Fréchet distance refers to.

    The run's own, unless that names another one.
    """
    name = run["dataset"]
    return entry(scale, "datasets", name).get("reference", name)


def images_of_reference(pattern):
    """Return an input function: the same of the run's reference."""

    def get(wildcards):
        run = entry(wildcards.scale, "runs", wildcards.run)
        name = reference_of(wildcards.scale, run)
        return shards(pattern, wildcards.scale, name, images=name)

    return get


def seeds_of_run(wildcards):
    """Return how many images a run has of each prompt."""
    run = entry(wildcards.scale, "runs", wildcards.run)
    return entry(wildcards.scale, "datasets", run["dataset"]).get("seeds", 1)


def scored_size(wildcards):
    """Return the side that a data set, or a run on it, has images resized to."""
    name = wildcards.images
    if name in entries(wildcards.scale, "runs"):
        name = entry(wildcards.scale, "runs", name)["dataset"]
    return entry(wildcards.scale, "datasets", name).get("size", 0)


def captions_to_encode(wildcards):
    """Return the captions of a data set; a run's are those of its data set."""
    if wildcards.images not in entries(wildcards.scale, "datasets"):
        return {}
    return {"prompts": f"results/{wildcards.scale}/prompts/{wildcards.images}.json"}


def caption_options(wildcards, input):
    """Return the command-line options for the same."""
    if not hasattr(input, "prompts"):
        return ""
    count = entry(wildcards.scale, "datasets", wildcards.images)["shards"]
    return f"--prompts {input.prompts} --shard {int(wildcards.shard)} --shards {count}"


def flops_spec(wildcards):
    """Return what to count of a model: each adaptor of its own or of any model."""
    model = entry(wildcards.scale, "models", wildcards.model)
    counted = {}
    for name, adaptor in entries(wildcards.scale, "adaptors").items():
        if adaptor.get("model", wildcards.model) == wildcards.model:
            chosen = adaptor.get("spec", adaptor)
            counted[name] = {
                key: chosen[key]
                for key in ("kind", "cut", "inputs", "branch")
                if key in chosen
            }
    return json.dumps(
        {
            "backbone": model["backbone"],
            "tokens": model["tokens"],
            "text_channels": entry(wildcards.scale, "encoders", "clip")["width"],
            "adaptors": counted,
        }
    )


def unet_of_model(wildcards):
    """Return the UNet's configuration where the model is ours, not SD v1.5's."""
    model = entry(wildcards.scale, "models", wildcards.model)
    return {"unet": model["unet"]} if "unet" in model else {}


def unet_options(wildcards, input):
    """Return the command-line options for the same."""
    return f"--unet {input.unet}" if hasattr(input, "unet") else ""


def timed_runs(wildcards):
    """Return the runs that are timed at a scale, id to settings."""
    names = entries(wildcards.scale, "latency")["runs"]
    return {name: entry(wildcards.scale, "runs", name) for name in names}


def timed_models(wildcards):
    """Return the files of the models that are timed."""
    names = dict.fromkeys(run["model"] for run in timed_runs(wildcards).values())
    paths = [entry(wildcards.scale, "models", name)["path"] for name in names]
    return [
        file
        for path in paths
        for file in files_of(lambda _, path=path: path)(wildcards)
    ]


def timed_adaptors(wildcards):
    """Return the files of the learned adaptors that are timed."""
    names = {run.get("adaptor") for run in timed_runs(wildcards).values()} - {None}
    return [
        path
        for name in sorted(names)
        if is_learned(wildcards.scale, name)
        for path in adaptor_files(wildcards.scale, name)
    ]


def timing_spec(wildcards):
    """Return what to time."""
    runs = {}
    for name, run in timed_runs(wildcards).items():
        model = entry(wildcards.scale, "models", run["model"])
        runs[name] = {
            "model": model["path"],
            "tokens": model["tokens"],
            "sampler": run["sampler"],
        }
        if "adaptor" in run:
            adaptor = entry(wildcards.scale, "adaptors", run["adaptor"])
            if adaptor.get("kind") == "branch":
                runs[name]["branch"] = adaptor["branch"]
                continue
            learned = is_learned(wildcards.scale, run["adaptor"])
            runs[name]["cut"] = adaptor.get("spec", adaptor)["cut"]
            runs[name]["adaptor"] = (
                adaptor_path(wildcards.scale, run["adaptor"])
                if learned
                else adaptor["kind"]
            )
    chosen = dict(entries(wildcards.scale, "latency"))
    clip = entry(wildcards.scale, "encoders", "clip")
    return json.dumps({**chosen, "runs": runs, "text_channels": clip["width"]})


def overhead_model(wildcards):
    """Return the model whose passes are compared with their bare modules."""
    run = next(iter(timed_runs(wildcards).values()))
    return entry(wildcards.scale, "models", run["model"])


def overhead_files(wildcards):
    """Return the files of that model."""
    return files_of(lambda wildcards: overhead_model(wildcards)["path"])(wildcards)


def overhead_spec(wildcards):
    """Return what to measure: that model, and a wider UNet of SD's topology."""
    model = overhead_model(wildcards)
    return json.dumps(
        {
            "model": model["path"],
            "tokens": model["tokens"],
            "text_channels": entry(wildcards.scale, "encoders", "clip")["width"],
            "adaptor": "resnet",
            "cases": [
                {"batch": 2, "pairs": 400},
                {"batch": 16, "pairs": 100},
                {
                    "batch": 2,
                    "pairs": 40,
                    "channels": [160, 320, 640, 640],
                    "size": 32,
                },
            ],
        }
    )


def unet_timing_spec(wildcards):
    """Return which UNets to time: the paper scale's timed runs, as Table S3 prints."""
    rows = {
        row["run"]: row
        for row in PAPERS["clockwork"]["tables"]["table_s3"]["paper"]["rows"]
    }
    runs = {}
    for name in entries("paper", "latency")["runs"]:
        run, row = entry("paper", "runs", name), rows.get(name, {})
        model = entry("paper", "models", run["model"])
        runs[name] = {
            "backbone": model["backbone"],
            "label": row.get("label", name),
            "sampler": run["sampler"],
            "baseline": row.get("baseline", ""),
            "published": row.get("published", {}),
        }
        if "adaptor" in run:
            adaptor = entry("paper", "adaptors", run["adaptor"])
            chosen = adaptor.get("spec", adaptor)
            runs[name] |= {"adaptor": chosen["kind"], "cut": chosen["cut"]}
    chosen = entries("paper", "latency")
    return json.dumps({**chosen, "runs": runs})


def gpu_timings(wildcards):
    """Return the timings of this machine's GPU; asks torch, which takes seconds."""
    ask = "from clockwork_diffusion.latency import gpu_slug; print(gpu_slug())"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True)
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1].removeprefix("ValueError: ")
        raise WorkflowError(f"gpu_latency: {why}")
    (gpu,) = done.stdout.split()
    return [f"results/paper/latency/{gpu}/sampling.{kind}" for kind in ("json", "md")]


# --- tables and figures ---------------------------------------------------------------


def table_of(wildcards):
    """Return a table's settings at a scale."""
    return PAPERS[wildcards.paper]["tables"][wildcards.table][wildcards.scale]


def table_spec(wildcards):
    """Return a table as its dataclass takes it."""
    return json.dumps(table_of(wildcards))


def table_runs(wildcards):
    """Return the runs of a table, id to settings."""
    rows = table_of(wildcards)["rows"]
    names = [row[key] for row in rows for key in ("run", "baseline") if key in row]
    return {name: entry(wildcards.scale, "runs", name) for name in dict.fromkeys(names)}


def table_run_settings(wildcards):
    """Return what a table needs to know of its runs: what decides their FLOPs."""
    runs = table_runs(wildcards)
    return json.dumps({name: run_settings(run) for name, run in runs.items()})


def run_settings(run):
    """Return what decides a run's FLOPs."""
    return {
        "model": run["model"],
        "adaptor": run.get("adaptor", ""),
        "sampler": run["sampler"],
    }


def table_inputs(wildcards):
    """Return the scores, counts and timings that a table's columns show."""
    columns, runs = table_of(wildcards)["columns"], table_runs(wildcards)
    sources = {SOURCES[COLUMNS[name].kind] for name in columns}
    base = f"results/{wildcards.scale}"
    files = {}
    if "scores" in sources:
        files["scores"] = [f"{base}/scores/{name}.json" for name in runs]
    if "flops" in sources:
        models = dict.fromkeys(run["model"] for run in runs.values())
        files["flops"] = [f"{base}/flops/{model}.json" for model in models]
    if "latency" in sources:
        files["latency"] = f"{base}/latency/sampling.json"
    return files


def input_options(*names):
    """Return a params function: ``--name files`` for those inputs that there are."""

    def options(wildcards, input):
        return " ".join(
            f"--{name} {getattr(input, name)}" for name in names if hasattr(input, name)
        )

    return options


def figure_of(wildcards):
    """Return a figure's settings at a scale."""
    return PAPERS[wildcards.paper]["figures"][wildcards.figure][wildcards.scale]


REFERENCES = ("kind", "model", "perturbation")
"""Keys of a figure that tell the workflow what it shows, not how."""


def figure_kind(wildcards):
    """Return what kind of figure it is."""
    return figure_of(wildcards).get("kind", "grid")


def figure_spec(wildcards):
    """Return a figure as its dataclass takes it."""
    figure = figure_of(wildcards)
    return json.dumps({k: v for k, v in figure.items() if k not in REFERENCES})


def figure_inputs(wildcards):
    """Return what a figure shows: images, prompts, timings, counts, scores, measures."""
    figure, scale = figure_of(wildcards), wildcards.scale
    base = f"results/{scale}"
    if "perturbation" in figure:
        folder = f"{base}/perturbations/{figure['perturbation']}"
        return {
            "images": f"{folder}.safetensors",
            "distances": f"{folder}.json",
        }
    if "adaptors" in figure:
        names = [shown["adaptor"] for shown in figure["adaptors"]]
        return {
            "curves": [f"{base}/curves/adaptors/{name}.csv" for name in names],
            "errors": [f"{base}/scores/adaptors/{name}.json" for name in names],
        }
    if "model" in figure:
        return {"flops": f"{base}/flops/{figure['model']}.json"}
    if "series" in figure:
        runs = {name: entry(scale, "runs", name) for name in curve_runs(figure)}
        models = dict.fromkeys(run["model"] for run in runs.values())
        return {
            "flops": [f"{base}/flops/{model}.json" for model in models],
            "scores": [f"{base}/scores/{name}.json" for name in runs],
        }
    if "runs" not in figure:
        return {}
    runs = [shown["run"] for shown in figure["runs"]]
    (dataset,) = {entry(scale, "runs", name)["dataset"] for name in runs}
    pattern = "results/{scale}/images/{images}/{shard}.safetensors"
    files = {
        "images": [
            path
            for name in runs
            for path in shards(pattern, scale, dataset, images=name)
        ],
        "prompts": f"{base}/prompts/{dataset}.json",
    }
    if figure.get("latency"):
        files["latency"] = f"{base}/latency/sampling.json"
    return files


def figure_options(wildcards, input):
    """Return the command-line options for a figure's inputs."""
    names = ("images", "prompts", "latency", "flops", "scores", "distances")
    names += ("curves", "errors")
    options = input_options(*names)(wildcards, input)
    figure = figure_of(wildcards)
    if "series" not in figure:
        return options
    runs = {
        name: run_settings(entry(wildcards.scale, "runs", name))
        for name in curve_runs(figure)
    }
    return f"{options} --runs {shlex.quote(json.dumps(runs))}"


def claims_of(wildcards):
    """Return a paper's claims at a scale."""
    return PAPERS[wildcards.paper]["claims"][wildcards.scale]


def claims_spec(wildcards):
    """Return a paper's claims as their dataclass takes them."""
    return json.dumps(claims_of(wildcards))


def claim_parts(wildcards, *metrics):
    """Return the parts of a paper's claims that ask for one of some metrics, or all."""
    parts = [
        part
        for claim in claims_of(wildcards)["claims"].values()
        for part in claim["parts"]
    ]
    return [part for part in parts if not metrics or {*part["metrics"]} & {*metrics}]


def claim_runs(wildcards, *metrics):
    """Return the runs that these are about, id to settings."""
    margins = claims_of(wildcards)["margins"]
    parts = claim_parts(wildcards, *metrics)
    names = dict.fromkeys(run for part in parts for run in part_runs(part, margins))
    return {name: entry(wildcards.scale, "runs", name) for name in names}


def claims_settings(wildcards):
    """Return what judging needs to know of runs and perturbations."""
    scale = wildcards.scale
    runs = {
        name: {
            **run_settings(run),
            "dataset": run["dataset"],
            "reference": reference_of(scale, run),
            "captions": entry(scale, "datasets", run["dataset"])["count"],
        }
        for name, run in claim_runs(wildcards).items()
    }
    perturbed = [p["perturbation"] for p in claim_parts(wildcards) if "cells" in p]
    captions = {}
    for name in perturbed:
        dataset = entry(scale, "perturbations", name)["dataset"]
        captions[name] = entry(scale, "datasets", dataset)["count"]
    return json.dumps({"runs": runs, "perturbations": captions})


def claims_inputs(wildcards):
    """Return what the claims are judged by."""
    scale, base = wildcards.scale, f"results/{wildcards.scale}"

    def of_all(kind, names):
        pattern = "results/{scale}/" + kind + "/{images}/{shard}.safetensors"
        return [
            path
            for images, dataset in names.items()
            for path in shards(pattern, scale, dataset, images=images)
        ]

    scored = claim_runs(wildcards, "frechet", "clip", "clip_above_chance")
    shown = claim_runs(wildcards, "psnr")
    # Interpolation at equal FLOPs needs the counts of whatever it interpolates.
    models = dict.fromkeys(run["model"] for run in claim_runs(wildcards).values())
    features = {name: run["dataset"] for name, run in scored.items()}
    for run in scored.values():
        for dataset in (run["dataset"], reference_of(scale, run)):
            features[dataset] = dataset
    files = {
        "features": of_all("features", features),
        "images": of_all(
            "images", {name: run["dataset"] for name, run in shown.items()}
        ),
        "flops": [f"{base}/flops/{model}.json" for model in models],
        "perturbations": [
            f"{base}/perturbations/{name}.json"
            for name in json.loads(claims_settings(wildcards))["perturbations"]
        ],
    }
    if claim_parts(wildcards, "latency"):
        files["latency"] = f"{base}/latency/sampling.json"
    return {key: value for key, value in files.items() if value}
