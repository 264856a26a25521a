"""The gate that the open world must pass; rule train_mini trains its models."""


localrules:
    world,


rule world:
    """Measure the gate: can the papers' claims hold or fail in this world?"""
    input:
        "results/mini/quality/world.json",


rule measure_world:
    """Measure the gate's criteria.

    Reads: the teacher, and the judge of what its pictures show.
    Writes: each criterion's value, interval, bar and verdict.
    """
    input:
        teacher="results/mini/models/world/teacher/README.md",
        judge="results/mini/models/world/judge/README.md",
    output:
        "results/mini/quality/world.json",
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
    shell:
        "python -m clockwork_experiments.steps.measure_world"
        " --teacher {input.teacher} --judge {input.judge} --output {output}"
        " --threads {threads} --log {log}"
