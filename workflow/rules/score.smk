"""Features of images and captions, and the scores made of them."""


rule extract_features:
    """Run the scoring networks over one shard of a run, or of a set with its captions.

    Reads: images, captions, the encoders.
    Writes: `clip_image` and `frechet`; of a set `clip_text`, too; of scenes what a
    judge finds, where the scale has one.
    """
    input:
        unpack(files(sampling.shown_captions)),
        images="results/{scale}/images/{images}/{shard}.safetensors",
        clip=models.clip_files,
        frechet=models.frechet_files,
    output:
        "results/{scale}/features/{images}/{shard}.safetensors",
    log:
        "logs/{scale}/extract_features/{images}/{shard}.log",
    benchmark:
        "benchmarks/{scale}/extract_features/{images}/{shard}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(4000, paper=16000),
        runtime=walltime(120),
    params:
        code=code("extract_features", models.frechet_kind),
        clip=models.clip_path,
        frechet=models.frechet_path,
        kind=models.frechet_kind,
        size=sampling.shown_size,
        options=options(sampling.shown_captions),
    shell:
        "python -m clockwork_experiments.steps.extract_features"
        " --images {input.images} --clip {params.clip:q}"
        " --frechet {params.frechet:q} --frechet-kind {params.kind:q}"
        " --size {params.size} {params.options}"
        " --output {output} --threads {threads} --log {log}"


rule score_images:
    """Score a run: Fréchet distance, CLIP score, distance to its teacher's images.

    Or a set's own images, the best that a run could be.

    Reads: features of the run, its teacher and the reference; images of both runs.
    Writes: each score with n, interval, seed, encoders and versions; the values of
    each image.
    """
    input:
        unpack(files(sampling.score_needs)),
    output:
        json="results/{scale}/scores/{run}.json",
        values="results/{scale}/scores/{run}.safetensors",
    log:
        "logs/{scale}/score_images/{run}.log",
    benchmark:
        "benchmarks/{scale}/score_images/{run}.tsv"
    wildcard_constraints:
        run=registry.ids(REGISTRY, "runs", "datasets"),
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=memory(4000, paper=16000),
        runtime=walltime(60),
    params:
        code=code("score_images", sampling.score_spec),
        spec=sampling.score_spec,
        options=options(sampling.score_needs),
    shell:
        "python -m clockwork_experiments.steps.score_images"
        " --spec {params.spec:q} {params.options}"
        " --output {output.json} --threads {threads} --log {log}"


rule pack_results:
    """Pack a scale's tables, figures, claims and scores as a Workflow Run RO-Crate.

    Reads: these, and the workflow that made them.
    Writes: one zip, with metadata that says what made what.
    """
    input:
        results=listed.packed_results,
        sources=listed.packed_sources,
    output:
        "results/{scale}/run.crate.zip",
    log:
        "logs/{scale}/pack_results.log",
    conda:
        "../../environment.yml"
    params:
        code=code("pack_results"),
        spec=listed.packed_spec,
    shell:
        "python -m clockwork_experiments.steps.pack_results"
        " --spec {params.spec:q} --workflow Snakefile --sources {input.sources}"
        " --results {input.results} --output {output} --log {log}"


rule collect_scores:
    """Collect all scores of a scale, to analyse elsewhere.

    Reads: the scores of all runs, and the values of their images.
    Writes: two tidy tables, of runs and of images, as CSV and Parquet.
    """
    input:
        scores=listed.all_scores,
        values=listed.all_values,
    output:
        runs="results/{scale}/data/runs.csv",
        images="results/{scale}/data/images.csv",
        parquet=expand("results/{{scale}}/data/{name}.parquet", name=["runs", "images"]),
    log:
        "logs/{scale}/collect_scores.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(2000, paper=8000),
        runtime=walltime(30),
    params:
        code=code("collect_scores"),
    shell:
        "python -m clockwork_experiments.steps.collect_scores"
        " --scores {input.scores} --values {input.values}"
        " --output {output.runs} {output.images} --log {log}"
