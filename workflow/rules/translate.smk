"""Image-to-image translation: pairs, translations and their scores."""


localrules:
    translations,


rule translations:
    """Score every mini translation."""
    input:
        translation_scores("mini", entries("mini", "translations")),


rule prepare_pairs:
    """Make pairs to translate from scenes, or read them from a folder.

    Reads: the folder's list; for synthesis of scenes the net that restores them.
    Writes: prompts and captions by pair; `inputs` and, where known, `targets`.
    """
    input:
        unpack(translation_set_inputs),
        code=code("prepare_pairs"),
    output:
        json="results/{scale}/pairs/{translation_set}.json",
        images="results/{scale}/pairs/{translation_set}.safetensors",
    log:
        "logs/{scale}/prepare_pairs/{translation_set}.log",
    benchmark:
        "benchmarks/{scale}/prepare_pairs/{translation_set}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=memory(16000),
        runtime=walltime(60),
    params:
        spec=translation_set_spec,
    shell:
        "python -m clockwork_experiments.steps.prepare_pairs"
        " --spec {params.spec:q} --output {output.json}"
        " --threads {threads} --log {log}"


rule translate_images:
    """Translate one shard of a set, with the whole UNet or some levels, with a clock.

    Reads: the translator, the set; the pipeline that a ControlNet controls, or that the
    translator's weights lie over.
    Writes: `images`, uint8 (N, 3, H, W).
    """
    input:
        unpack(translation_inputs),
        code=code("translate_images"),
        translator=files_of(translator_path),
    output:
        "results/{scale}/translated/{translation}/{shard}.safetensors",
    log:
        "logs/{scale}/translate_images/{translation}/{shard}.log",
    benchmark:
        "benchmarks/{scale}/translate_images/{translation}/{shard}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(16000),
        runtime=walltime(720),
    params:
        spec=translation_spec,
        translator=translator_path,
        options=translation_options,
        shard=lambda wildcards: int(wildcards.shard),
        shards=translation_shard_count,
        state="results/{scale}/.state/translated/{translation}/{shard}",
    shell:
        "python -m clockwork_experiments.steps.translate_images"
        " --spec {params.spec:q} --translator {params.translator} {params.options}"
        " --set {input.set} --images {input.images}"
        " --shard {params.shard} --shards {params.shards}"
        " --state {params.state} --output {output}"
        " --threads {threads} --log {log}"


for scale, chosen, names in scored_together():

    # Score the translations of one set.
    # Reads: the set, its translations, the encoders.
    # Writes: each score with n, interval, encoders and versions; the value of each pair.
    rule:
        name:
            f"score_translations_{scale}_{chosen}"
        input:
            code=code("score_translations"),
            set=f"results/{scale}/pairs/{chosen}.json",
            images=f"results/{scale}/pairs/{chosen}.safetensors",
            translated=translated_shards(scale, names),
            clip=files_of(lambda _, scale=scale: translations_clip(scale)),
            frechet=files_of(
                lambda _, scale=scale: entry(scale, "encoders", "frechet")["path"]
            ),
            lpips=files_of(
                lambda _, scale=scale: entry(scale, "encoders", "lpips")["path"]
            ),
            aesthetic=aesthetic_file(scale),
        output:
            json=translation_scores(scale, names),
            pairs=[
                f"results/{scale}/scores/translations/{name}.safetensors"
                for name in names
            ],
        log:
            f"logs/{scale}/score_translations/{chosen}.log",
        benchmark:
            f"benchmarks/{scale}/score_translations/{chosen}.tsv"
        conda:
            "../../environment.yml"
        threads: 1
        resources:
            gpu=1,
            gpu_model=gpu_model,
            mem_mb=memory(32000),
            runtime=walltime(240),
        params:
            teachers=translation_teachers(scale, names),
            clip=translations_clip(scale),
            frechet=entry(scale, "encoders", "frechet")["path"],
            frechet_kind=entry(scale, "encoders", "frechet")["kind"],
            lpips=entry(scale, "encoders", "lpips")["path"],
            lpips_kind=entry(scale, "encoders", "lpips")["kind"],
            aesthetic=aesthetic_option(scale),
        shell:
            "python -m clockwork_experiments.steps.score_translations"
            " --teachers {params.teachers:q} --set {input.set} --images {input.images}"
            " --translated {input.translated} --clip {params.clip}"
            " --frechet {params.frechet} --frechet-kind {params.frechet_kind}"
            " --lpips {params.lpips} --lpips-kind {params.lpips_kind}"
            " {params.aesthetic} --output {output.json}"
            " --threads {threads} --log {log}"
