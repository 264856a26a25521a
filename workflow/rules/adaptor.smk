"""The teacher's trajectories, and adaptors trained on them (Algorithm 1)."""


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


rule train_adaptor:
    """Train one adaptor (Algorithm 1).

    Reads: the model and held-out trajectories; those to learn from, or what they are
    made of in each epoch.
    Writes: the adaptor in diffusers' format, its held-out error, its loss curve.
    """
    input:
        unpack(files(training.adaptor_needs)),
    output:
        adaptor=multiext("results/{scale}/adaptors/{adaptor}/", *models.ADAPTOR_FILES),
        error="results/{scale}/scores/adaptors/{adaptor}.json",
        curve="results/{scale}/curves/adaptors/{adaptor}.csv",
    log:
        "logs/{scale}/train_adaptor/{adaptor}.log",
    benchmark:
        "benchmarks/{scale}/train_adaptor/{adaptor}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=training.adaptor_gpus,
        gpu_model=gpu_model,
        mem_mb=memory(4000, paper=64000),
        runtime=walltime(1440),
    params:
        code=code("train_adaptor", training.adaptor_spec),
        folder="results/{scale}/adaptors/{adaptor}",
        spec=training.adaptor_spec,
        options=options(training.adaptor_needs),
        launch=training.adaptor_launcher,
        state="results/{scale}/.state/adaptors/{adaptor}.pt",
    shell:
        "{params.launch} -m clockwork_experiments.steps.train_adaptor"
        " --spec {params.spec:q} {params.options} --state {params.state}"
        " --output {params.folder} --error {output.error} --curve {output.curve}"
        " --threads {threads} --log {log}"
