"""Image-to-image translation: pairs, translations and their scores."""


localrules:
    translations,


rule translations:
    """Score every mini translation."""
    input:
        translating.translation_scores("mini", REGISTRY.entries("mini", "translations")),


rule prepare_pairs:
    """Make pairs to translate from scenes, or read them from a folder.

    Reads: the folder's list; for synthesis of scenes the net that restores them.
    Writes: prompts and captions by pair; `inputs` and, where known, `targets`.
    """
    input:
        unpack(files(translating.pairs_needs)),
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
        code=code("prepare_pairs", translating.pairs_spec),
        spec=translating.pairs_spec,
    shell:
        "python -m clockwork_experiments.steps.prepare_pairs"
        " --spec {params.spec:q} --output {output.json}"
        " --threads {threads} --log {log}"


rule translate_images:
    """Translate one shard of a set, with the whole UNet or some levels, with a clock.

    Reads: the translator, the set; the pipeline that a ControlNet controls.
    Writes: `images`, uint8 (N, 3, H, W).
    """
    input:
        unpack(files(translating.translation_needs)),
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
        code=code("translate_images", translating.translation_spec),
        spec=translating.translation_spec,
        options=options(translating.translation_needs),
        shard=models.shard_index,
        shards=translating.translation_shards,
        state="results/{scale}/.state/translated/{translation}/{shard}",
    shell:
        "python -m clockwork_experiments.steps.translate_images"
        " --spec {params.spec:q} {params.options}"
        " --shard {params.shard} --shards {params.shards}"
        " --state {params.state} --output {output}"
        " --threads {threads} --log {log}"


rule score_translations:
    """Score a translation against targets, prompts, and its teacher's images.

    Or a set's inputs as they are, under the set's id.

    Reads: the set, the images, the encoders.
    Writes: each score with n, interval, encoders and versions; the value of each pair.
    """
    input:
        unpack(files(translating.score_needs)),
    output:
        json="results/{scale}/scores/translations/{translation}.json",
        pairs="results/{scale}/scores/translations/{translation}.safetensors",
    log:
        "logs/{scale}/score_translations/{translation}.log",
    benchmark:
        "benchmarks/{scale}/score_translations/{translation}.tsv"
    wildcard_constraints:
        translation=registry.ids(REGISTRY, "translations", "translation_sets"),
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(32000),
        runtime=walltime(240),
    params:
        code=code("score_translations", options(translating.score_needs)),
        options=options(translating.score_needs),
        teachers=translating.teachers,
    shell:
        "python -m clockwork_experiments.steps.score_translations"
        " --teachers {params.teachers:q} {params.options} --output {output.json}"
        " --threads {threads} --log {log}"
