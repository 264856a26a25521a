"""Adaptors, trained on trajectories and measured on held-out prompts."""


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
