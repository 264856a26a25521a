"""What sampling costs: FLOPs from the architecture, milliseconds on this machine."""


localrules:
    overhead,
    gpu_latency,
    level_latency,


rule count_flops:
    """Count a model's FLOPs and parameters with DeepSpeed; needs no weights.

    Reads: the UNet's configuration, if it is not SD v1.5's.
    Writes: counts of the whole UNet, of its blocks, and of a step with each adaptor.
    """
    input:
        unpack(files(costing.unet_needs)),
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
        mem_mb=memory(2000),
        runtime=walltime(30),
    params:
        code=code("count_flops", costing.flops_spec),
        spec=costing.flops_spec,
        options=options(costing.unet_needs),
    shell:
        "python -m clockwork_experiments.steps.count_flops"
        " --spec {params.spec:q} {params.options} --output {output}"
        " --threads {threads} --log {log}"


rule count_other_unets:
    """Count what the clock saves on SDXL and on LCM; needs no weights.

    Reads: `workflow/other_unets.yaml`.
    Writes: a table of our own, as CSV, Markdown, LaTeX and JSON.
    """
    output:
        multiext("results/paper/tables/other_unets", ".md", ".tex", ".html", ".json"),
        csv="results/paper/tables/other_unets.csv",
    log:
        "logs/paper/count_other_unets.log",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=walltime(30),
    params:
        code=code("count_other_unets"),
        spec=costing.settings_of(ROOT / "workflow" / "other_unets.yaml"),
    shell:
        "python -m clockwork_experiments.steps.count_other_unets"
        " --spec {params.spec:q} --output {output.csv}"
        " --threads {threads} --log {log}"


rule count_levels:
    """Describe and count the levels of a task's UNet; needs no weights.

    Reads: configurations, where they are not those of the published model.
    Writes: modules, parameters and channels by level, and a call down to each.
    """
    input:
        unpack(files(costing.levels_needs)),
    output:
        "results/{scale}/levels/{translator}.json",
    log:
        "logs/{scale}/count_levels/{translator}.log",
    benchmark:
        "benchmarks/{scale}/count_levels/{translator}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=walltime(30),
    params:
        code=code("count_levels", costing.levels_spec),
        spec=costing.levels_spec,
        options=options(costing.levels_needs),
    shell:
        "python -m clockwork_experiments.steps.count_levels"
        " --spec {params.spec:q} {params.options} --output {output}"
        " --threads {threads} --log {log}"


rule level_latency:
    """Time every level of the published models' UNets, with random weights."""
    input:
        translating.level_timings("paper", REGISTRY.entries("paper", "translators")),


rule time_levels:
    """Time a task's UNet down to each level, in turns; alone on the machine.

    Reads: configurations, where they are not those of the published model.
    Writes: mean, deviation and single calls in milliseconds; weights are random.
    """
    input:
        unpack(files(costing.levels_needs)),
    output:
        "results/{scale}/latency/levels/{translator}.json",
    log:
        "logs/{scale}/time_levels/{translator}.log",
    benchmark:
        "benchmarks/{scale}/time_levels/{translator}.tsv"
    conda:
        "../../environment.yml"
    # All cores, so that no other job disturbs the clock.
    threads: all_cores()
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(16000),
        runtime=walltime(60),
    params:
        code=code("time_levels", costing.level_timing_spec),
        spec=costing.level_timing_spec,
        options=options(costing.levels_needs),
    shell:
        "python -m clockwork_experiments.steps.time_levels"
        " --spec {params.spec:q} {params.options} --output {output}"
        " --threads {threads} --log {log}"


rule time_editing:
    """Time inversion and generation of several edited runs in turns; alone.

    Reads: the pipelines and the learned adaptors.
    Writes: mean, deviation and single runs in milliseconds; bytes kept of an image.
    """
    input:
        models=costing.timed_edit_models,
    output:
        "results/{scale}/latency/editing.json",
    log:
        "logs/{scale}/time_editing/editing.log",
    benchmark:
        "benchmarks/{scale}/time_editing/editing.tsv"
    conda:
        "../../environment.yml"
    # All cores, so that no other job disturbs the clock.
    threads: all_cores()
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(8000),
        runtime=walltime(120),
    params:
        code=code("time_editing", costing.edit_timing_spec, costing.adaptor_kinds),
        spec=costing.edit_timing_spec,
    shell:
        "python -m clockwork_experiments.steps.time_editing"
        " --spec {params.spec:q} --output {output} --threads {threads} --log {log}"


rule profile_editing:
    """Profile whole edits with DeepSpeed; fails where our sums differ by over 1 %.

    Reads: the model's counts; the UNet's configuration, if it is not SD v1.5's.
    Writes: FLOPs as profiled, as counted, and by Eqs. 2 to 4.
    """
    input:
        unpack(files(costing.unet_needs)),
        flops="results/{scale}/flops/{model}.json",
    output:
        "results/{scale}/profiles/{model}.json",
    log:
        "logs/{scale}/profile_editing/{model}.log",
    benchmark:
        "benchmarks/{scale}/profile_editing/{model}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=walltime(120),
    params:
        code=code("profile_editing", costing.profile_spec),
        spec=costing.profile_spec,
        options=options(costing.unet_needs),
    shell:
        "python -m clockwork_experiments.steps.profile_editing"
        " --spec {params.spec:q} --flops {input.flops} {params.options}"
        " --output {output} --threads {threads} --log {log}"


rule time_sampling:
    """Time the UNet passes of several runs in turns; alone on the machine.

    Reads: the pipelines and the learned adaptors.
    Writes: mean, deviation and single runs in milliseconds.
    """
    input:
        models=costing.timed_models,
    output:
        "results/{scale}/latency/sampling.json",
    log:
        "logs/{scale}/time_sampling/sampling.log",
    benchmark:
        "benchmarks/{scale}/time_sampling/sampling.tsv"
    conda:
        "../../environment.yml"
    # All cores, so that no other job disturbs the clock.
    threads: all_cores()
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(4000),
        runtime=walltime(60),
    params:
        code=code("time_sampling", costing.timing_spec, costing.adaptor_kinds),
        spec=costing.timing_spec,
    shell:
        "python -m clockwork_experiments.steps.time_sampling"
        " --spec {params.spec:q} --output {output}"
        " --threads {threads} --log {log}"


use rule time_sampling as time_pair with:
    input:
        models=costing.pair_models,
    output:
        "results/{scale}/latency/pairs/{run}.json",
    log:
        "logs/{scale}/time_pair/{run}.log",
    benchmark:
        "benchmarks/{scale}/time_pair/{run}.tsv"
    params:
        code=code("time_sampling", costing.pair_timing_spec, costing.adaptor_kinds),
        spec=costing.pair_timing_spec,


rule overhead:
    """Show what our code adds to a UNet pass, against the same modules run bare."""
    input:
        expand("results/mini/latency/overhead.{kind}", kind=["json", "md"]),


rule measure_overhead:
    """Time adaptor and full steps against their bare modules; alone on the machine.

    Reads: the pipeline of the first timed run; adaptors have random weights.
    Writes: medians of paired ratios with intervals; JSON and a table.
    """
    input:
        model=costing.overhead_files,
    output:
        json="results/{scale}/latency/overhead.json",
        md="results/{scale}/latency/overhead.md",
    log:
        "logs/{scale}/measure_overhead/overhead.log",
    benchmark:
        "benchmarks/{scale}/measure_overhead/overhead.tsv"
    conda:
        "../../environment.yml"
    # All cores, so that no other job disturbs the clock.
    threads: all_cores()
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(4000),
        runtime=walltime(60),
    params:
        code=code("measure_overhead", costing.overhead_spec),
        spec=costing.overhead_spec,
    shell:
        "python -m clockwork_experiments.steps.measure_overhead"
        " --spec {params.spec:q} --output {output.json}"
        " --threads {threads} --log {log}"


rule gpu_latency:
    """Time Table S3's UNets, with random weights, on the GPU of this machine."""
    input:
        costing.gpu_timings,


rule time_unet:
    """Time UNets of SD v1.5's size on a GPU: eager, as CUDA graphs, compiled.

    Reads: nothing; weights are random.
    Writes: milliseconds by mode and run, the paper's beside them; JSON and a table.
    """
    output:
        json="results/paper/latency/{gpu}/sampling.json",
        md="results/paper/latency/{gpu}/sampling.md",
    log:
        "logs/paper/time_unet/{gpu}.log",
    benchmark:
        "benchmarks/paper/time_unet/{gpu}.tsv"
    wildcard_constraints:
        gpu="[a-z0-9_]+",
    conda:
        "../../environment.yml"
    threads: all_cores()
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(16000),
        runtime=walltime(30),
    params:
        code=code("time_unet"),
        spec=shown.unet_timing,
        state="results/paper/.state/latency/{gpu}.json",
    shell:
        "python -m clockwork_experiments.steps.time_unet"
        " --spec {params.spec:q} --gpu {wildcards.gpu}"
        " --state {params.state} --output {output.json}"
        " --threads {threads} --log {log}"
