"""Images, sampled with and without a clock from the same seeds."""


rule sample_images:
    """Sample one shard of a run.

    Reads: the pipeline, the prompts, and with a clock the adaptor and its CLIP.
    Writes: `images`, uint8 (N, 3, H, W).
    """
    input:
        unpack(adaptor_of(setting("runs", "run"))),
        code=code("sample_images"),
        model=files_of(model_path("runs", "run")),
        prompts=prompts_of("runs", "run"),
    output:
        "results/{scale}/images/{run}/{shard}.safetensors",
    log:
        "logs/{scale}/sample_images/{run}/{shard}.log",
    benchmark:
        "benchmarks/{scale}/sample_images/{run}/{shard}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(4000, paper=16000),
        runtime=walltime(240),
    params:
        model=model_path("runs", "run"),
        spec=run_spec,
        adaptor=adaptor_options,
        shard=lambda wildcards: int(wildcards.shard),
        shards=shard_count("runs", "run"),
        state="results/{scale}/.state/images/{run}/{shard}",
    shell:
        "python -m clockwork_experiments.steps.sample_images"
        " --spec {params.spec:q} --model {params.model} {params.adaptor}"
        " --prompts {input.prompts} --shard {params.shard} --shards {params.shards}"
        " --state {params.state} --output {output}"
        " --threads {threads} --log {log}"


rule perturb_features:
    """Sample images with one layer's features perturbed (Eq. 1), over a whole grid.

    Reads: the pipeline, the prompts.
    Writes: images of the first prompts, and the distances of all.
    """
    input:
        code=code("perturb_features"),
        model=files_of(model_path("perturbations", "perturbation")),
        prompts=prompts_of("perturbations", "perturbation"),
    output:
        images="results/{scale}/perturbations/{perturbation}.safetensors",
        distances="results/{scale}/perturbations/{perturbation}.json",
    log:
        "logs/{scale}/perturb_features/{perturbation}.log",
    benchmark:
        "benchmarks/{scale}/perturb_features/{perturbation}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(4000, paper=16000),
        runtime=walltime(240),
    params:
        model=model_path("perturbations", "perturbation"),
        spec=spec("perturbations", "perturbation", "spec"),
        state="results/{scale}/.state/perturbations/{perturbation}",
    shell:
        "python -m clockwork_experiments.steps.perturb_features"
        " --spec {params.spec:q} --model {params.model} --prompts {input.prompts}"
        " --state {params.state} --output {output.images}"
        " --distances {output.distances} --threads {threads} --log {log}"
