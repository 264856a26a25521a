"""The gate that the mini world must pass, for claims to hold or fail in it."""


localrules:
    world,


rule world:
    """Measure the gate."""
    input:
        "results/mini/quality/world.json",


rule measure_world:
    """Measure the gate's criteria.

    Reads: the teacher, the judge of what its pictures show, the networks that describe
        features and structure.
    Writes: each criterion's value, interval, bar and verdict; a table of them.
    """
    input:
        teacher="resources/mini/stable-diffusion",
        judge="resources/mini/judge",
        features="resources/mini/features",
        structure="resources/mini/structure",
    output:
        json="results/mini/quality/world.json",
        md="results/mini/quality/world.md",
    log:
        "logs/mini/measure_world/world.log",
    benchmark:
        "benchmarks/mini/measure_world/world.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(4000),
        runtime=walltime(60),
    params:
        code=code("measure_world"),
        conv_layer=config["mini"]["editing"]["edits"]["pnp"]["conv_layer"],
    shell:
        "python -m clockwork_experiments.steps.measure_world"
        " --teacher {input.teacher} --judge {input.judge}"
        " --features {input.features} --structure {input.structure}"
        " --conv-layer {params.conv_layer} --output {output.json}"
        " --threads {threads} --log {log}"
