"""The open world: training of its models, and the gate that it must pass.

Beside the mini world until its models are all trained; then in its place.
"""


localrules:
    world,


rule world:
    """Measure the gate: can the papers' claims hold or fail in this world?"""
    input:
        "results/mini/quality/world.json",


rule train_world:
    """Train one of the open world's models.

    Reads: for the teacher, the autoencoder; scenes are generated.
    Writes: the model's folder with its model card.
    """
    input:
        unpack(world_inputs),
        code=code("train_world"),
    output:
        card="results/mini/world/{part}/README.md",
    log:
        "logs/mini/train_world/{part}.log",
    benchmark:
        "benchmarks/mini/train_world/{part}.tsv"
    wildcard_constraints:
        part="|".join(WORLD),
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(4000),
        runtime=walltime(720),
    params:
        spec=world_recipe,
        vae=world_autoencoder,
        folder=model_folder,
        state="results/mini/.state/world/{part}",
    shell:
        "python -m clockwork_experiments.steps.train_world --part {wildcards.part}"
        " --spec {params.spec:q} {params.vae} --state {params.state}"
        " --output {params.folder} --threads {threads} --log {log}"


rule measure_world:
    """Measure the gate's criteria.

    Reads: the teacher, and the judge of what its pictures show.
    Writes: each criterion's value, interval, bar and verdict.
    """
    input:
        code=code("measure_world"),
        teacher="results/mini/world/teacher/README.md",
        judge="results/mini/world/judge/README.md",
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
    shell:
        "python -m clockwork_experiments.steps.measure_world"
        " --teacher {input.teacher} --judge {input.judge} --output {output}"
        " --threads {threads} --log {log}"
