"""How deep a translator must be at each step, and which time steps it should visit."""


localrules:
    searched,
    finetuned,
    step_searched,


rule searched:
    """Search levels for every mini translator that has a search."""
    input:
        translating.depth_searches("mini"),


rule search_depth:
    """Scan a translator's levels, and search schedules of levels (Table S6).

    Reads: the translator, pairs to search on and others, counts and timings of levels.
    Writes: the scan, the chosen level, and schedules with what they save.
    """
    input:
        unpack(files(translating.depth_needs)),
    output:
        "results/{scale}/depth/{search}.json",
    log:
        "logs/{scale}/search_depth/{search}.log",
    benchmark:
        "benchmarks/{scale}/search_depth/{search}.tsv"
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
            "search_depth", translating.depth_spec, options(translating.depth_needs)
        ),
        spec=translating.depth_spec,
        options=options(translating.depth_needs),
        # It stays: a search that asks for more does not measure the same again.
        state="results/{scale}/.state/depth/{search}",
    shell:
        "python -m clockwork_experiments.steps.search_depth"
        " --spec {params.spec:q} {params.options}"
        " --state {params.state} --output {output}"
        " --threads {threads} --log {log}"


rule finetuned:
    """Train what depth-skip leaves of mini translators further; on request."""
    input:
        expand(
            "results/mini/finetuned/{name}/gain.json",
            name=REGISTRY.entries("mini", "finetuned"),
        ),


rule finetune_translator:
    """Train a mini translator further after depth-skip, and measure the gain.

    Reads: the translator, pairs to measure on; pairs to train on are generated.
    Writes: a UNet in the format of `DepthSkipUNet`, its card, and `gain.json`.
    """
    input:
        unpack(files(translating.finetuned_needs)),
    output:
        gain="results/mini/finetuned/{finetuned}/gain.json",
        card="results/mini/finetuned/{finetuned}/README.md",
    log:
        "logs/mini/finetune_translator/{finetuned}.log",
    benchmark:
        "benchmarks/mini/finetune_translator/{finetuned}.tsv"
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(6000),
        runtime=walltime(240),
    params:
        code=code("finetune_translator", translating.finetuned_spec),
        spec=translating.finetuned_spec,
        options=options(translating.finetuned_needs),
        folder="results/mini/finetuned/{finetuned}",
        state="results/mini/.state/finetuned/{finetuned}",
    shell:
        "python -m clockwork_experiments.steps.finetune_translator"
        " --spec {params.spec:q} {params.options}"
        " --state {params.state} --output {params.folder}"
        " --threads {threads} --log {log}"


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
