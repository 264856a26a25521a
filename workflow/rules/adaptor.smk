"""Adaptors, trained on trajectories and measured on held-out prompts."""


rule train_adaptor:
    """Train one adaptor (Algorithm 1).

    Reads: the model and held-out trajectories; those to learn from, or what they are
    made of in each epoch.
    Writes: the adaptor in diffusers' format, its held-out error, its loss curve.
    """
    input:
        unpack(training_data),
        code=code("train_adaptor"),
        model=files_of(model_path("adaptors", "adaptor")),
        heldout=trajectory_shards("heldout"),
        prompts=prompts_of_training,
    output:
        adaptor=multiext("results/{scale}/adaptors/{adaptor}/", *ADAPTOR_FILES),
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
        gpu=training_gpus,
        gpu_model=gpu_model,
        mem_mb=memory(4000, paper=64000),
        runtime=walltime(1440),
    params:
        model=model_path("adaptors", "adaptor"),
        folder="results/{scale}/adaptors/{adaptor}",
        spec=spec("adaptors", "adaptor", "spec"),
        data=training_options,
        launch=training_launcher,
        state="results/{scale}/.state/adaptors/{adaptor}.pt",
    shell:
        "{params.launch} -m clockwork_experiments.steps.train_adaptor"
        " --spec {params.spec:q} --model {params.model} {params.data}"
        " --heldout {input.heldout} --prompts {input.prompts} --state {params.state}"
        " --output {params.folder} --error {output.error} --curve {output.curve}"
        " --threads {threads} --log {log}"
