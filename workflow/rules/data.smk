"""Prompts, and the images that generated ones are compared with."""


localrules:
    prepare_prompts,


rule prepare_prompts:
    """Write a set's prompts.

    Reads: nothing, or the texts of the folder that the configuration names.
    Writes: a JSON list.
    """
    input:
        unpack(files(training.dataset_texts)),
    output:
        "results/{scale}/prompts/{dataset}.json",
    log:
        "logs/{scale}/prepare_prompts/{dataset}.log",
    conda:
        "../../environment.yml"
    params:
        code=code("prepare_prompts", training.dataset_spec),
        spec=training.dataset_spec,
    shell:
        "python -m clockwork_experiments.steps.prepare_prompts"
        " --spec {params.spec:q} --output {output} --log {log}"


rule prepare_images:
    """Write one shard of a set's own images, the reference of the Fréchet distance.

    Reads: nothing, or all files of the folder that the configuration names.
    Writes: `images`, uint8 (N, 3, H, W).
    """
    input:
        unpack(files(training.dataset_folder)),
    output:
        "results/{scale}/images/{dataset}/{shard}.safetensors",
    log:
        "logs/{scale}/prepare_images/{dataset}/{shard}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(2000, paper=8000),
        runtime=walltime(60),
    params:
        code=code("prepare_images", training.dataset_spec),
        spec=training.dataset_spec,
        shard=models.shard_index,
        shards=training.dataset_shards,
    shell:
        "python -m clockwork_experiments.steps.prepare_images"
        " --spec {params.spec:q} --shard {params.shard} --shards {params.shards}"
        " --output {output} --log {log}"
