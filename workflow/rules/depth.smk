"""How deep a translator must be: one level, or one for each sampling step."""


localrules:
    searched,
    finetuned,


rule searched:
    """Search levels for every mini translator that has a search."""
    input:
        depth_searches("mini"),


rule search_depth:
    """Scan a translator's levels, and search schedules of levels (Table S6).

    Reads: the translator, pairs to search on and others, counts and timings of levels.
    Writes: the scan, the chosen level, and schedules with what they save.
    """
    input:
        unpack(search_inputs),
        code=code("search_depth"),
        translator=files_of(searched_path),
        clip=files_of(lambda wildcards: translations_clip(wildcards.scale)),
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
        spec=search_spec,
        translator=searched_path,
        options=search_options,
        clip=lambda wildcards: translations_clip(wildcards.scale),
        # It stays: a search that asks for more does not measure the same again.
        state="results/{scale}/.state/depth/{search}",
    shell:
        "python -m clockwork_experiments.steps.search_depth"
        " --spec {params.spec:q} --translator {params.translator} {params.options}"
        " --clip {params.clip} --levels {input.levels}"
        " --state {params.state} --output {output}"
        " --threads {threads} --log {log}"


rule finetuned:
    """Train what depth-skip leaves of mini translators further; on request."""
    input:
        expand(
            "results/mini/finetuned/{name}/gain.json",
            name=entries("mini", "finetuned"),
        ),


rule finetune_translator:
    """Train a mini translator further after depth-skip, and measure the gain.

    Reads: the translator, pairs to measure on; pairs to train on are generated.
    Writes: a UNet in the format of `DepthSkipUNet`, its card, and `gain.json`.
    """
    input:
        unpack(finetuned_inputs),
        code=code("finetune_translator"),
        translator=files_of(finetuned_path),
        clip=files_of(lambda _: translations_clip("mini")),
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
        spec=finetuned_spec,
        translator=finetuned_path,
        options=finetuned_options,
        clip=translations_clip("mini"),
        folder=model_folder,
        state="results/mini/.state/finetuned/{finetuned}",
    shell:
        "python -m clockwork_experiments.steps.finetune_translator"
        " --spec {params.spec:q} --translator {params.translator} {params.options}"
        " --set {input.set} --clip {params.clip}"
        " --state {params.state} --output {params.folder}"
        " --threads {threads} --log {log}"
