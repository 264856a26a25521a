"""Which time steps a translator should visit."""


localrules:
    step_searched,


rule step_searched:
    """Search time steps for every mini translator that has such a search."""
    input:
        step_searches("mini"),


rule search_steps:
    """Search γ, and by AutoDiffusion, for every number of steps (Kim et al. 2024).

    Reads: the translator, pairs to search on and others, results of other searches.
    Writes: time steps by method, what they cost to find, and scores on the others.
    """
    input:
        unpack(step_search_inputs),
        code=code("search_steps"),
        translator=files_of(step_searched_path),
        clip=files_of(lambda wildcards: translations_clip(wildcards.scale)),
    output:
        "results/{scale}/timesteps/{step_search}.json",
    log:
        "logs/{scale}/search_steps/{step_search}.log",
    benchmark:
        "benchmarks/{scale}/search_steps/{step_search}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(16000),
        runtime=walltime(2880),
    params:
        spec=step_search_spec,
        translator=step_searched_path,
        options=step_search_options,
        clip=lambda wildcards: translations_clip(wildcards.scale),
        # It stays: a search that asks for more does not measure the same again.
        state="results/{scale}/.state/timesteps/{step_search}",
        references="results/{scale}/.state/references",
    shell:
        "python -m clockwork_experiments.steps.search_steps"
        " --spec {params.spec:q} --translator {params.translator} {params.options}"
        " --clip {params.clip}"
        " --state {params.state} --references {params.references}"
        " --output {output}"
        " --threads {threads} --log {log}"
