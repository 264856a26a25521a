"""The teacher's trajectories, which adaptors learn from (Algorithm 1)."""


rule sample_trajectories:
    """Record the teacher on one shard of prompts: unrolled, or on noised images.

    Reads: the pipeline, the CLIP that pools prompts, the prompts; images to be noised.
    Writes: r_in and r_out of every step, or its latents; pooled prompts, time
    embeddings.
    """
    input:
        unpack(files(training.trajectory_needs)),
    output:
        "results/{scale}/trajectories/{trajectory}/{shard}.safetensors",
    log:
        "logs/{scale}/sample_trajectories/{trajectory}/{shard}.log",
    benchmark:
        "benchmarks/{scale}/sample_trajectories/{trajectory}/{shard}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=1,
        gpu_model=gpu_model,
        # Features of 500 SD trajectories take 16 GB.
        mem_mb=memory(4000, paper=64000),
        runtime=walltime(240),
    params:
        code=code("sample_trajectories", training.trajectory_spec),
        spec=training.trajectory_spec,
        options=options(training.trajectory_needs),
        shard=models.shard_index,
        shards=training.trajectory_shards,
        state="results/{scale}/.state/trajectories/{trajectory}/{shard}",
    shell:
        "python -m clockwork_experiments.steps.sample_trajectories"
        " --spec {params.spec:q} {params.options}"
        " --shard {params.shard} --shards {params.shards}"
        " --state {params.state} --output {output}"
        " --threads {threads} --log {log}"


rule compare_storage:
    """Compare what trajectories take as features and as latents.

    Reads: the UNet's configuration, if it is not SD v1.5's; the model, if it is there.
    Writes: bytes per trajectory, and samples per second with a model.
    """
    input:
        unpack(files(training.storage_needs)),
    output:
        "results/{scale}/storage/{trajectory}.json",
    log:
        "logs/{scale}/compare_storage/{trajectory}.log",
    benchmark:
        "benchmarks/{scale}/compare_storage/{trajectory}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(8000),
        runtime=walltime(60),
    params:
        code=code("compare_storage", training.storage_spec),
        spec=training.storage_spec,
        options=options(training.storage_needs),
    shell:
        "python -m clockwork_experiments.steps.compare_storage"
        " --spec {params.spec:q} {params.options} --output {output}"
        " --threads {threads} --log {log}"
