"""Random weights of the real sizes, and what the paper scale takes with them."""


localrules:
    real_sizes,
    random_scale,
    throughput,
    list_costs,


wildcard_constraints:
    weights="|".join(REGISTRY.others["random"]["weights"]),
    random_data="[a-z]+",


rule real_sizes:
    """Run the paper scale with random weights over a few captions; minutes on a CPU."""
    input:
        expand("results/random/costs.{kind}", kind=["json", "md"]),


rule random_scale:
    """Run all of the paper scale with random weights over a few captions; on a GPU."""
    input:
        sizes.random_scale(),


rule make_random_model:
    """Make random weights in a published model's format and size.

    Reads: nothing.
    Writes: the model's folder; its checksums, and a card that says they are random.
    """
    output:
        sums="results/random/weights/{weights}/SHA256SUMS",
        card="results/random/weights/{weights}/card.json",
    log:
        "logs/random/make_random_model/{weights}.log",
    benchmark:
        "benchmarks/random/make_random_model/{weights}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=memory(12000),
        runtime=walltime(60),
    params:
        code=code("make_random_model", sizes.weights_spec),
        spec=sizes.weights_spec,
        folder="results/random/weights/{weights}",
    shell:
        "python -m clockwork_experiments.steps.make_random_model"
        " --spec {params.spec:q} --output {params.folder}"
        " --threads {threads} --log {log}"


rule make_random_data:
    """Write captions with images, pairs or edits that stand in for those users bring.

    Reads: nothing; scenes are generated.
    Writes: a folder in the layout that users bring.
    """
    output:
        "results/random/data/{random_data}/{list}",
    log:
        "logs/random/make_random_data/{random_data}.{list}.log",
    wildcard_constraints:
        list=r"prompts\.(txt|yaml)|pairs\.jsonl",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=walltime(10),
    params:
        code=code("make_random_data", sizes.data_spec),
        spec=sizes.data_spec,
        folder="results/random/data/{random_data}",
    shell:
        "python -m clockwork_experiments.steps.make_random_data"
        " --spec {params.spec:q} --output {params.folder} --log {log}"


rule throughput:
    """Show the share of the raw UNet loop's speed that sampling reaches."""
    input:
        expand("results/mini/latency/throughput.{kind}", kind=["json", "md"]),


rule measure_throughput:
    """Time sampling and trajectories against a raw loop of UNet calls; alone.

    Reads: the pipeline of the first timed run.
    Writes: medians of paired ratios with intervals; JSON and a table.
    """
    input:
        model=costing.overhead_files,
    output:
        json="results/{scale}/latency/throughput.json",
        md="results/{scale}/latency/throughput.md",
    log:
        "logs/{scale}/measure_throughput/throughput.log",
    benchmark:
        "benchmarks/{scale}/measure_throughput/throughput.tsv"
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
        code=code("measure_throughput", costing.throughput_spec),
        spec=costing.throughput_spec,
    shell:
        "python -m clockwork_experiments.steps.measure_throughput"
        " --spec {params.spec:q} --output {output.json}"
        " --threads {threads} --log {log}"


rule list_costs:
    """List what each job at a scale took, of those that have run.

    Reads: benchmarks.
    Writes: seconds and peak memory by rule and by job; JSON and a table.
    """
    input:
        sizes.costed,
    output:
        json="results/{scale}/costs.json",
        md="results/{scale}/costs.md",
    log:
        "logs/{scale}/list_costs/costs.log",
    conda:
        "../../environment.yml"
    params:
        code=code("list_costs"),
        folder="benchmarks/{scale}",
        # Where profiles/slurm lets the executor write its reports.
        efficiency="benchmarks/slurm",
        note=sizes.costs_note,
    shell:
        "python -m clockwork_experiments.steps.list_costs"
        " --benchmarks {params.folder} --note {params.note:q}"
        " --efficiency {params.efficiency}"
        " --output {output.json} --log {log}"
