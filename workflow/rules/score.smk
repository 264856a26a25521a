"""Features of images and captions, and the scores made of them."""


rule extract_features:
    """Run the scoring networks over one shard of a run, or of a data set.

    Reads: images, the encoders; of a data set also its captions.
    Writes: `clip_image`, `frechet`, and of a data set `clip_text`.
    """
    input:
        unpack(captions_to_encode),
        code=code("extract_features"),
        images="results/{scale}/images/{images}/{shard}.safetensors",
        clip=files_of(clip_path),
        frechet=files_of(frechet_path),
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
        mem_mb=4000,
        runtime=120,
    params:
        clip=clip_path,
        frechet=frechet_path,
        kind=lambda wildcards: entry(wildcards.scale, "encoders", "frechet")["kind"],
        captions=caption_options,
        size=scored_size,
    shell:
        "python -m clockwork_diffusion.steps.extract_features"
        " --images {input.images} --clip {params.clip}"
        " --frechet {params.frechet} --frechet-kind {params.kind} {params.captions}"
        " --size {params.size}"
        " --output {output} --threads {threads} --log {log}"


rule score_images:
    """Score a run: Fréchet distance, CLIP score, distance to the teacher's images.

    Reads: features of the run, of its teacher and of the reference; images of both.
    Writes: each score with n, interval, seed, encoders and versions.
    """
    input:
        code=code("score_images"),
        features=images_of("results/{scale}/features/{images}/{shard}.safetensors"),
        images=images_of("results/{scale}/images/{images}/{shard}.safetensors"),
        reference=images_of_reference(
            "results/{scale}/features/{images}/{shard}.safetensors"
        ),
        captions=images_of_captions(
            "results/{scale}/features/{images}/{shard}.safetensors"
        ),
        paired_features=images_of_teacher(
            "results/{scale}/features/{images}/{shard}.safetensors"
        ),
        paired_images=images_of_teacher(
            "results/{scale}/images/{images}/{shard}.safetensors"
        ),
    output:
        "results/{scale}/scores/{run}.json",
    log:
        "logs/{scale}/score_images/{run}.log",
    benchmark:
        "benchmarks/{scale}/score_images/{run}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        seed=setting("runs", "run", "seed"),
        seeds=seeds_of_run,
    shell:
        "python -m clockwork_diffusion.steps.score_images"
        " --run {wildcards.run} --seed {params.seed} --seeds {params.seeds}"
        " --features {input.features} --images {input.images}"
        " --reference {input.reference} --captions {input.captions}"
        " --paired-features {input.paired_features}"
        " --paired-images {input.paired_images}"
        " --output {output} --threads {threads} --log {log}"
