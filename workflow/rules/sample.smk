"""Images, sampled with and without a clock from the same seeds."""


rule sample_images:
    """Sample one shard of a run.

    Reads: the pipeline, the prompts, and with a clock the adaptor and its CLIP.
    Writes: `images`, uint8 (N, 3, H, W).
    """
    input:
        unpack(adaptor_of_run),
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
        mem_mb=4000,
        runtime=240,
    params:
        model=model_path("runs", "run"),
        spec=run_spec,
        adaptor=adaptor_options,
        shard=lambda wildcards: int(wildcards.shard),
        shards=shard_count("runs", "run"),
        state="results/{scale}/.state/images/{run}/{shard}",
    shell:
        "python -m clockwork_diffusion.steps.sample_images"
        " --spec {params.spec:q} --model {params.model} {params.adaptor}"
        " --prompts {input.prompts} --shard {params.shard} --shards {params.shards}"
        " --state {params.state} --output {output}"
        " --threads {threads} --log {log}"
