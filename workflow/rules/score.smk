"""Features of images and captions, and the scores made of them."""


rule extract_features:
    """Run the scoring networks over one shard of a data set and its captions.

    Reads: images, captions, the encoders.
    Writes: `clip_image`, `frechet` and `clip_text`.
    """
    input:
        code=code("extract_features"),
        images="results/{scale}/images/{dataset}/{shard}.safetensors",
        prompts="results/{scale}/prompts/{dataset}.json",
        clip=files_of(clip_path),
        frechet=files_of(frechet_path),
    output:
        "results/{scale}/features/{dataset}/{shard}.safetensors",
    log:
        "logs/{scale}/extract_features/{dataset}/{shard}.log",
    benchmark:
        "benchmarks/{scale}/extract_features/{dataset}/{shard}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(4000, paper=16000),
        runtime=walltime(120),
    params:
        clip=clip_path,
        frechet=frechet_path,
        kind=frechet_kind,
        shard=lambda wildcards: int(wildcards.shard),
        shards=setting("datasets", "dataset", "shards"),
        size=lambda wildcards: scored_size(wildcards.scale, wildcards.dataset),
    shell:
        "python -m clockwork_experiments.steps.extract_features"
        " --images {input.images} --clip {params.clip}"
        " --frechet {params.frechet} --frechet-kind {params.kind} --size {params.size}"
        " --prompts {input.prompts} --shard {params.shard} --shards {params.shards}"
        " --output {output} --threads {threads} --log {log}"


for scale, batch, dataset, runs in scoring_batches():

    # Run the scoring networks over one shard of several runs.
    # Reads: images, the encoders.
    # Writes: `clip_image` and `frechet`.
    rule:
        name:
            f"extract_features_{batch}"
        input:
            code=code("extract_features"),
            images=per_run("images", scale, runs),
            clip=files_of(
                lambda _, scale=scale: entry(scale, "encoders", "clip")["path"]
            ),
            frechet=files_of(
                lambda _, scale=scale: entry(scale, "encoders", "frechet")["path"]
            ),
        output:
            per_run("features", scale, runs),
        log:
            f"logs/{scale}/extract_features/{batch}/{{shard}}.log",
        benchmark:
            f"benchmarks/{scale}/extract_features/{batch}/{{shard}}.tsv"
        conda:
            "../../environment.yml"
        threads: 1
        resources:
            gpu=1,
            gpu_model=gpu_model,
            mem_mb=memory(4000, paper=16000, scale=scale),
            runtime=walltime(120),
        params:
            clip=entry(scale, "encoders", "clip")["path"],
            frechet=entry(scale, "encoders", "frechet")["path"],
            kind=entry(scale, "encoders", "frechet")["kind"],
            size=scored_size(scale, dataset),
        shell:
            "python -m clockwork_experiments.steps.extract_features"
            " --images {input.images} --clip {params.clip}"
            " --frechet {params.frechet} --frechet-kind {params.kind}"
            " --size {params.size} --output {output} --threads {threads} --log {log}"

    # Score several runs: Fréchet distance, CLIP score, distance to a teacher's images.
    # Reads: features of the runs, their teachers and the reference; images of both.
    # Writes: each score with n, interval, seed, encoders and versions.
    rule:
        name:
            f"score_images_{batch}"
        input:
            code=code("score_images"),
            features=shards("features", scale, dataset, *with_teachers(scale, runs)),
            images=shards("images", scale, dataset, *with_teachers(scale, runs)),
            captions=shards("features", scale, dataset),
            reference=shards("features", scale, reference_of(scale, dataset)),
        output:
            [f"results/{scale}/scores/{run}.json" for run in runs],
        log:
            f"logs/{scale}/score_images/{batch}.log",
        benchmark:
            f"benchmarks/{scale}/score_images/{batch}.tsv"
        conda:
            "../../environment.yml"
        threads: 1
        resources:
            mem_mb=memory(4000, paper=16000, scale=scale),
            runtime=walltime(60),
        params:
            spec=scoring_spec(scale, runs),
        shell:
            "python -m clockwork_experiments.steps.score_images"
            " --spec {params.spec:q} --features {input.features} --images {input.images}"
            " --reference {input.reference} --captions {input.captions}"
            " --output {output} --threads {threads} --log {log}"
