"""What the rules of score.smk ask of the configuration."""


def frechet_path(wildcards):
    """Return the folder or file of the network behind the Fréchet distance."""
    return entry(wildcards.scale, "encoders", "frechet")["path"]


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
