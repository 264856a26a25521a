"""What sampling costs: FLOPs from the architecture, milliseconds on this machine."""


rule count_flops:
    """Count a model's FLOPs and parameters with DeepSpeed; needs no weights.

    Reads: the UNet's configuration, if it is not SD v1.5's.
    Writes: counts of the whole UNet, of its blocks, and of a step with each adaptor.
    """
    input:
        unpack(unet_of_model),
        code=code("count_flops"),
    output:
        "results/{scale}/flops/{model}.json",
    log:
        "logs/{scale}/count_flops/{model}.log",
    benchmark:
        "benchmarks/{scale}/count_flops/{model}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        spec=flops_spec,
        unet=unet_options,
    shell:
        "python -m clockwork_diffusion.steps.count_flops"
        " --spec {params.spec:q} {params.unet} --output {output}"
        " --threads {threads} --log {log}"


rule time_sampling:
    """Time the UNet passes of several runs in turns; alone on the machine.

    Reads: the pipeline and the learned adaptors.
    Writes: mean, deviation and single runs in milliseconds.
    """
    input:
        code=code("time_sampling"),
        model=files_of(timed_model),
        adaptors=timed_adaptors,
    output:
        "results/{scale}/latency/sampling.json",
    log:
        "logs/{scale}/time_sampling/sampling.log",
    benchmark:
        "benchmarks/{scale}/time_sampling/sampling.tsv"
    conda:
        "../../environment.yml"
    # All cores, so that no other job disturbs the clock.
    threads: workflow.cores or 1
    resources:
        gpu=1,
        mem_mb=4000,
        runtime=60,
    params:
        model=timed_model,
        spec=timing_spec,
    shell:
        "python -m clockwork_diffusion.steps.time_sampling"
        " --spec {params.spec:q} --model {params.model} --output {output}"
        " --threads {threads} --log {log}"
