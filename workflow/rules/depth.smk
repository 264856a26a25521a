"""How deep a translator must be: one level, or one for each sampling step."""


localrules:
    searched,


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
        mem_mb=16000,
        runtime=2880,
    params:
        spec=search_spec,
        translator=searched_path,
        options=search_options,
        clip=lambda wildcards: translations_clip(wildcards.scale),
        # It stays: a search that asks for more does not measure the same again.
        state="results/{scale}/.state/depth/{search}",
    shell:
        "python -m clockwork_diffusion.steps.search_depth"
        " --spec {params.spec:q} --translator {params.translator} {params.options}"
        " --clip {params.clip} --levels {input.levels}"
        " --state {params.state} --output {output}"
        " --threads {threads} --log {log}"
