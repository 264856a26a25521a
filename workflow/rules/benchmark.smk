"""The benchmark: what saves as much, on the same captions and noise."""


localrules:
    benchmark,
    set_benchmark,
    draw_benchmark,
    list_measures,


rule benchmark:
    """Measure all methods at mini scale; a job each, so that a killed run goes on."""
    input:
        benchmarking.shown("mini"),


rule sample_reference:
    """Sample what methods are compared with: many steps of the whole UNet.

    Reads: the model, and its captions or pairs.
    Writes: `images`, uint8 (N, 3, H, W), and their `features`.
    """
    input:
        unpack(files(benchmarking.reference_needs)),
    output:
        "results/{scale}/benchmark/{benchmark_task}/reference.safetensors",
    log:
        "logs/{scale}/sample_reference/{benchmark_task}.log",
    benchmark:
        "benchmarks/{scale}/sample_reference/{benchmark_task}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(4000, paper=16000),
        runtime=walltime(240),
    params:
        code=code("sample_reference", benchmarking.task_spec),
        spec=benchmarking.task_spec,
        options=options(benchmarking.reference_needs),
        state="results/{scale}/.state/benchmark/{benchmark_task}/reference",
    shell:
        "python -m clockwork_experiments.steps.sample_reference"
        " --spec {params.spec:q} {params.options}"
        " --state {params.state} --output {output}"
        " --threads {threads} --log {log}"


rule find_grids:
    """Find the time steps that others' rules choose for a model.

    Reads: the model, and captions that no method is measured on.
    Writes: time steps by rule and number.
    """
    input:
        unpack(files(benchmarking.planning_needs)),
    output:
        "results/{scale}/benchmark/{benchmark_task}/grids.json",
    log:
        "logs/{scale}/find_grids/{benchmark_task}.log",
    benchmark:
        "benchmarks/{scale}/find_grids/{benchmark_task}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(4000, paper=16000),
        runtime=walltime(60),
    params:
        code=code("find_grids", benchmarking.grids_spec),
        spec=benchmarking.grids_spec,
        options=options(benchmarking.planning_needs),
    shell:
        "python -m clockwork_experiments.steps.find_grids"
        " --spec {params.spec:q} {params.options} --output {output}"
        " --threads {threads} --log {log}"


rule make_plan:
    """Plan for a budget: full steps, predictor and time steps together.

    Reads: the model, and captions or pairs that no method is measured on.
    Writes: the plan, which `clockwork_diffusion.Plan.load` reads.
    """
    input:
        unpack(files(benchmarking.planning_needs)),
    output:
        "results/{scale}/benchmark/{benchmark_task}/plans/{method}.json",
    log:
        "logs/{scale}/make_plan/{benchmark_task}/{method}.log",
    benchmark:
        "benchmarks/{scale}/make_plan/{benchmark_task}/{method}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(4000, paper=16000),
        runtime=walltime(240),
    params:
        code=code("make_plan", benchmarking.plan_spec),
        spec=benchmarking.plan_spec,
        options=options(benchmarking.planning_needs),
    shell:
        "python -m clockwork_experiments.steps.make_plan"
        " --spec {params.spec:q} {params.options} --output {output}"
        " --threads {threads} --log {log}"


rule measure_method:
    """Sample by a method, and compare with the images of many steps.

    Reads: the model, its captions or pairs, the reference, an adaptor, grids or a plan.
    Writes: the distance of every image, and the FLOPs of one.
    """
    input:
        unpack(files(benchmarking.method_needs)),
    output:
        "results/{scale}/benchmark/{benchmark_task}/methods/{method}.json",
    log:
        "logs/{scale}/measure_method/{benchmark_task}/{method}.log",
    benchmark:
        "benchmarks/{scale}/measure_method/{benchmark_task}/{method}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(4000, paper=16000),
        runtime=walltime(240),
    params:
        code=code(
            "measure_method", benchmarking.method_spec, benchmarking.method_adaptor
        ),
        spec=benchmarking.method_spec,
        options=options(benchmarking.method_needs),
        state="results/{scale}/.state/benchmark/{benchmark_task}/{method}",
    shell:
        "python -m clockwork_experiments.steps.measure_method"
        " --spec {params.spec:q} {params.options}"
        " --state {params.state} --output {output}"
        " --threads {threads} --log {log}"


rule time_method:
    """Time a method against plain steps, in turns; alone on the machine.

    Reads: the model, one caption or pair, an adaptor, grids or a plan.
    Writes: the median of paired ratios, with its interval.
    """
    input:
        unpack(files(benchmarking.timed_needs)),
    output:
        "results/{scale}/benchmark/{benchmark_task}/times/{method}.json",
    log:
        "logs/{scale}/time_method/{benchmark_task}/{method}.log",
    benchmark:
        "benchmarks/{scale}/time_method/{benchmark_task}/{method}.tsv"
    conda:
        "../../environment.yml"
    # All cores, so that no other job disturbs the clock.
    threads: all_cores()
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(4000, paper=16000),
        runtime=walltime(60),
    params:
        code=code("time_method", benchmarking.timed_spec, benchmarking.method_adaptor),
        spec=benchmarking.timed_spec,
        options=options(benchmarking.timed_needs),
    shell:
        "python -m clockwork_experiments.steps.time_method"
        " --spec {params.spec:q} {params.options} --output {output}"
        " --threads {threads} --log {log}"


rule measure_masks:
    """Sample by every mask of a few steps, for one predictor.

    Reads: the model, its captions, a learned predictor.
    Writes: what each mask costs, what sums predict, and what trusting them loses.
    """
    input:
        unpack(files(benchmarking.masks_needs)),
    output:
        "results/{scale}/benchmark/{benchmark_task}/masks/{adaptor}.json",
    log:
        "logs/{scale}/measure_masks/{benchmark_task}/{adaptor}.log",
    benchmark:
        "benchmarks/{scale}/measure_masks/{benchmark_task}/{adaptor}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(4000, paper=16000),
        runtime=walltime(240),
    params:
        code=code("measure_masks", benchmarking.masks_spec, benchmarking.mask_adaptor),
        spec=benchmarking.masks_spec,
        options=options(benchmarking.masks_needs),
        state="results/{scale}/.state/benchmark/{benchmark_task}/masks_{adaptor}",
    shell:
        "python -m clockwork_experiments.steps.measure_masks"
        " --spec {params.spec:q} {params.options}"
        " --state {params.state} --output {output}"
        " --threads {threads} --log {log}"


rule list_measures:
    """List what was measured of each image, one value a line.

    Reads: the measurements of a task's methods.
    Writes: CSV: method, caption, seed, metric, value.
    """
    input:
        benchmarking.measured,
    output:
        "results/{scale}/benchmark/{benchmark_task}/images.csv",
    log:
        "logs/{scale}/list_measures/{benchmark_task}.log",
    conda:
        "../../environment.yml"
    params:
        code=code("list_measures"),
    shell:
        "python -m clockwork_experiments.steps.list_measures"
        " --measured {input} --output {output} --log {log}"


use rule set_table as set_benchmark with:
    input:
        unpack(partial(shown.benchmark_inputs, "tables")),
    output:
        csv="results/{scale}/benchmark/{benchmark_task}/tables/{shown}.csv",
        md="results/{scale}/benchmark/{benchmark_task}/tables/{shown}.md",
        html="results/{scale}/benchmark/{benchmark_task}/tables/{shown}.html",
        tex="results/{scale}/benchmark/{benchmark_task}/tables/{shown}.tex",
    log:
        "logs/{scale}/set_benchmark/{benchmark_task}/{shown}.log",
    params:
        code=code(
            "set_table",
            benchmarking.item_spec,
            module=partial(shown.benchmark_module, "tables"),
        ),
        kind=partial(shown.benchmark_kind, "tables"),
        spec=benchmarking.item_spec,
        inputs=partial(shown.benchmark_options, "tables"),


use rule draw_figure as draw_benchmark with:
    input:
        unpack(partial(shown.benchmark_inputs, "figures")),
    output:
        pdf="results/{scale}/benchmark/{benchmark_task}/figures/{shown}.pdf",
        png="results/{scale}/benchmark/{benchmark_task}/figures/{shown}.png",
    log:
        "logs/{scale}/draw_benchmark/{benchmark_task}/{shown}.log",
    params:
        code=code(
            "draw_figure",
            benchmarking.item_spec,
            module=partial(shown.benchmark_module, "figures"),
        ),
        kind=partial(shown.benchmark_kind, "figures"),
        spec=benchmarking.item_spec,
        inputs=partial(shown.benchmark_options, "figures"),
