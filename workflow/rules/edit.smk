"""Text-guided editing: sets, inversions, edits and their scores."""


localrules:
    long_edits,


rule make_scene_edits:
    """Write a mini editing set: scenes and exact edits of them, or seeds to sample.

    Reads: nothing.
    Writes: a folder in the layout of ImageNet-R-TI2I.
    """
    output:
        "results/{scale}/scene_edits/{edit_set}/prompts.yaml",
    log:
        "logs/{scale}/make_scene_edits/{edit_set}.log",
    conda:
        "../../environment.yml"
    params:
        code=code("make_scene_edits", edits.scene_edits_spec),
        spec=edits.scene_edits_spec,
        folder="results/{scale}/scene_edits/{edit_set}",
    shell:
        "python -m clockwork_experiments.steps.make_scene_edits"
        " --spec {params.spec:q} --output {params.folder} --log {log}"


rule prepare_edit_set:
    """Read an editing set, name what is missing, and sample sources that have seeds.

    Reads: a folder in the layout of ImageNet-R-TI2I; the pipeline for seeds.
    Writes: sources and pairs of source and target prompt; the sources' images.
    """
    input:
        unpack(files(edits.edit_set_needs)),
    output:
        json="results/{scale}/edit_sets/{edit_set}.json",
        images="results/{scale}/edit_sets/{edit_set}.safetensors",
    log:
        "logs/{scale}/prepare_edit_set/{edit_set}.log",
    benchmark:
        "benchmarks/{scale}/prepare_edit_set/{edit_set}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(4000, paper=16000),
        runtime=walltime(60),
    params:
        code=code("prepare_edit_set", edits.edit_set_spec),
        spec=edits.edit_set_spec,
        options=options(edits.edit_set_needs),
    shell:
        "python -m clockwork_experiments.steps.prepare_edit_set"
        " --spec {params.spec:q} {params.options} --output {output.json}"
        " --threads {threads} --log {log}"


rule invert_images:
    """Invert the sources of a set by DDIM; those that an earlier job did are kept.

    Reads: the pipeline, the set; with a learned adaptor that and its CLIP.
    Writes: an index; beside it one file per source with its latent of every timestep.
    """
    input:
        unpack(files(edits.loop_needs)),
        set="results/{scale}/edit_sets/{edit_set}.json",
        sources="results/{scale}/edit_sets/{edit_set}.safetensors",
    output:
        "results/{scale}/inversions/{edit_set}/{inversion}/{setting}/index.json",
    log:
        "logs/{scale}/invert_images/{edit_set}/{inversion}/{setting}.log",
    benchmark:
        "benchmarks/{scale}/invert_images/{edit_set}/{inversion}/{setting}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(4000, paper=16000),
        runtime=walltime(240),
    params:
        code=code("invert_images", edits.inversion_spec, edits.loop_adaptor),
        spec=edits.inversion_spec,
        options=options(edits.loop_needs),
    shell:
        "python -m clockwork_experiments.steps.invert_images"
        " --spec {params.spec:q} {params.options}"
        " --set {input.set} --sources {input.sources} --output {output}"
        " --threads {threads} --log {log}"


rule edit_images:
    """Edit a set by Plug-and-Play.

    Reads: the pipeline, the set, its inversion; with a learned adaptor that and its
    CLIP.
    Writes: `images`, uint8 (P, 3, S, S), one per pair.
    """
    input:
        unpack(files(edits.loop_needs)),
        set="results/{scale}/edit_sets/{edit_set}.json",
        inversion=edits.inversion_indices,
    output:
        "results/{scale}/edited/{edit_set}/{edit}/{setting}.safetensors",
    log:
        "logs/{scale}/edit_images/{edit_set}/{edit}/{setting}.log",
    benchmark:
        "benchmarks/{scale}/edit_images/{edit_set}/{edit}/{setting}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(4000, paper=16000),
        runtime=walltime(240),
    params:
        code=code("edit_images", edits.edit_spec, edits.loop_adaptor),
        spec=edits.edit_spec,
        options=options(edits.loop_needs),
        state="results/{scale}/.state/edited/{edit_set}/{edit}/{setting}",
    shell:
        "python -m clockwork_experiments.steps.edit_images"
        " --spec {params.spec:q} {params.options}"
        " --set {input.set} --inversion {input.inversion}"
        " --state {params.state} --output {output}"
        " --threads {threads} --log {log}"


if edits.together("mini"):

    # All settings in one job, which loads the pipeline once, where all are made.
    ruleorder: invert_images_together > invert_images
    ruleorder: edit_images_together > edit_images

    use rule invert_images as invert_images_together with:
        output:
            expand(
                "results/{{scale}}/inversions/{{edit_set}}/{{inversion}}/{setting}/index.json",
                setting=edits.together("mini"),
            ),
        log:
            "logs/{scale}/invert_images/{edit_set}/{inversion}/together.log",
        benchmark:
            "benchmarks/{scale}/invert_images/{edit_set}/{inversion}/together.tsv"
        wildcard_constraints:
            scale="mini",
            edit_set="|".join(edits.edited_whole("mini")),

    use rule edit_images as edit_images_together with:
        output:
            expand(
                "results/{{scale}}/edited/{{edit_set}}/{{edit}}/{setting}.safetensors",
                setting=edits.together("mini"),
            ),
        log:
            "logs/{scale}/edit_images/{edit_set}/{edit}/together.log",
        benchmark:
            "benchmarks/{scale}/edit_images/{edit_set}/{edit}/together.tsv"
        wildcard_constraints:
            scale="mini",
            edit_set="|".join(edits.edited_whole("mini")),
            edit="|".join(edits.made_together("mini")),
        params:
            code=code("edit_images", edits.edit_spec, edits.loop_adaptor),
            spec=edits.edit_spec,
            options=options(edits.loop_needs),
            state="results/{scale}/.state/edited/{edit_set}/{edit}/together",


rule score_edits:
    """Score all edits of a set at one setting.

    Reads: the set, the edited images, CLIP, the ViT whose keys tell structure.
    Writes: each score with n, interval, encoders and versions; the value of each pair.
    """
    input:
        unpack(files(edits.judge_needs)),
        set="results/{scale}/edit_sets/{edit_set}.json",
        sources="results/{scale}/edit_sets/{edit_set}.safetensors",
        edited=edits.edited_images,
        clip=models.clip_files,
        structure=edits.structure_files,
    output:
        json="results/{scale}/scores/edits/{edit_set}/{setting}.json",
        pairs="results/{scale}/scores/edits/{edit_set}/{setting}.safetensors",
    log:
        "logs/{scale}/score_edits/{edit_set}/{setting}.log",
    benchmark:
        "benchmarks/{scale}/score_edits/{edit_set}/{setting}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(4000, paper=16000),
        runtime=walltime(60),
    params:
        code=code("score_edits"),
        clip=models.clip_path,
        structure=edits.structure_path,
        teachers=edits.edit_teachers,
        options=options(edits.judge_needs),
    shell:
        "python -m clockwork_experiments.steps.score_edits"
        " --teachers {params.teachers:q} --set {input.set} --sources {input.sources}"
        " --edited {input.edited} --clip {params.clip:q}"
        " --structure {params.structure:q} {params.options} --output {output.json}"
        " --threads {threads} --log {log}"


rule long_edits:
    """Draw what the default run leaves out: inversions of 200 steps and more."""
    input:
        listed.on_request("mini"),
