"""Adaptors, trained on trajectories and measured on held-out prompts."""


rule train_adaptor:
    """Train one adaptor (Algorithm 1).

    Reads: trajectories to learn from and held-out ones, sizes of the model's UNet.
    Writes: the adaptor in diffusers' format, its held-out error, its loss curve.
    """
    input:
        code=code("train_adaptor"),
        model=files_of(model_path("adaptors", "adaptor")),
        train=trajectory_shards("train"),
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
    threads: 2
    resources:
        gpu=1,
        mem_mb=4000,
        runtime=1440,
    params:
        model=model_path("adaptors", "adaptor"),
        folder="results/{scale}/adaptors/{adaptor}",
        spec=spec("adaptors", "adaptor", "spec"),
        state="results/{scale}/.state/adaptors/{adaptor}.pt",
    shell:
        "python -m clockwork_diffusion.steps.train_adaptor"
        " --spec {params.spec:q} --model {params.model}"
        " --train {input.train} --heldout {input.heldout} --prompts {input.prompts}"
        " --state {params.state}"
        " --output {params.folder} --error {output.error} --curve {output.curve}"
        " --threads {threads} --log {log}"
