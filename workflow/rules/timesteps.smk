"""Which time steps a translator should visit."""


localrules:
    step_searched,


rule step_searched:
    """Search time steps for every mini translator that has such a search."""
    input:
        translating.step_searches("mini"),


rule search_steps:
    """Search γ, and by AutoDiffusion, for every number of steps (Kim et al. 2024).

    Reads: the translator, pairs to search on and others, results of other searches.
    Writes: time steps by method, what they cost to find, and scores on the others.
    """
    input:
        unpack(files(translating.steps_needs)),
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
        code=code(
            "search_steps", translating.steps_spec, options(translating.steps_needs)
        ),
        spec=translating.steps_spec,
        options=options(translating.steps_needs),
        # It stays: a search that asks for more does not measure the same again.
        state="results/{scale}/.state/timesteps/{step_search}",
        references="results/{scale}/.state/references",
    shell:
        "python -m clockwork_experiments.steps.search_steps"
        " --spec {params.spec:q} {params.options}"
        " --state {params.state} --references {params.references}"
        " --output {output}"
        " --threads {threads} --log {log}"
