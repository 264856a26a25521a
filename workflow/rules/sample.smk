"""Images, sampled with and without a clock from the same seeds."""


rule sample_images:
    """Sample one shard of a run.

    Reads: the pipeline, the prompts, and with a clock the adaptor and its CLIP.
    Writes: `images`, uint8 (N, 3, H, W).
    """
    input:
        unpack(files(sampling.run_needs)),
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
        code=code("sample_images", sampling.run_spec, sampling.run_adaptor),
        spec=sampling.run_spec,
        options=options(sampling.run_needs),
        shard=models.shard_index,
        shards=sampling.run_shards,
        state="results/{scale}/.state/images/{run}/{shard}",
    shell:
        "python -m clockwork_experiments.steps.sample_images"
        " --spec {params.spec:q} {params.options}"
        " --shard {params.shard} --shards {params.shards}"
        " --state {params.state} --output {output}"
        " --threads {threads} --log {log}"


rule perturb_features:
    """Sample images with one layer's features perturbed (Eq. 1), over a whole grid.

    Reads: the pipeline, the prompts.
    Writes: images of the first prompts, and the distances of all.
    """
    input:
        unpack(files(sampling.perturbation_needs)),
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
        code=code("perturb_features", sampling.perturbation_spec),
        spec=sampling.perturbation_spec,
        options=options(sampling.perturbation_needs),
        state="results/{scale}/.state/perturbations/{perturbation}",
    shell:
        "python -m clockwork_experiments.steps.perturb_features"
        " --spec {params.spec:q} {params.options}"
        " --state {params.state} --output {output.images}"
        " --distances {output.distances} --threads {threads} --log {log}"
