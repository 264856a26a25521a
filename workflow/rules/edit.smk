"""Text-guided editing: sets, inversions, edits and their scores."""


localrules:
    long_edits,


rule make_scene_edits:
    """Write a mini editing set: scenes and exact edits of them, or seeds to sample.

    Reads: nothing.
    Writes: a folder in the layout of ImageNet-R-TI2I.
    """
    input:
        code=code("make_scene_edits"),
    output:
        "results/{scale}/scene_edits/{edit_set}/prompts.yaml",
    log:
        "logs/{scale}/make_scene_edits/{edit_set}.log",
    conda:
        "../../environment.yml"
    params:
        spec=scene_edits_spec,
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
        unpack(edit_set_inputs),
        code=code("prepare_edit_set"),
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
        spec=edit_set_spec,
        options=edit_set_options,
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
        unpack(adaptor_of(loop_of)),
        code=code("invert_images"),
        model=edited_model_files,
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
        spec=inversion_spec,
        model=edited_model,
        adaptor=adaptor_options,
    shell:
        "python -m clockwork_experiments.steps.invert_images"
        " --spec {params.spec:q} --model {params.model} {params.adaptor}"
        " --set {input.set} --sources {input.sources} --output {output}"
        " --threads {threads} --log {log}"


rule edit_images:
    """Edit a set by Plug-and-Play.

    Reads: the pipeline, the set, its inversion; with a learned adaptor that and its
    CLIP.
    Writes: `images`, uint8 (P, 3, S, S), one per pair.
    """
    input:
        unpack(adaptor_of(loop_of)),
        code=code("edit_images"),
        model=edited_model_files,
        set="results/{scale}/edit_sets/{edit_set}.json",
        inversion=inversion_indices,
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
        spec=edit_spec,
        model=edited_model,
        adaptor=adaptor_options,
        state="results/{scale}/.state/edited/{edit_set}/{edit}/{setting}",
    shell:
        "python -m clockwork_experiments.steps.edit_images"
        " --spec {params.spec:q} --model {params.model} {params.adaptor}"
        " --set {input.set} --inversion {input.inversion}"
        " --state {params.state} --output {output}"
        " --threads {threads} --log {log}"


for scale, settings in together().items():

    workflow.ruleorder(f"invert_images_{scale}", "invert_images")
    workflow.ruleorder(f"edit_images_{scale}", "edit_images")

    # The same at several settings, in one job that loads the pipeline once.
    rule:
        name:
            f"invert_images_{scale}"
        input:
            unpack(adaptor_of(loop_of)),
            code=code("invert_images"),
            model=edited_model_files,
            set="results/{scale}/edit_sets/{edit_set}.json",
            sources="results/{scale}/edit_sets/{edit_set}.safetensors",
        output:
            [
                f"results/{{scale}}/inversions/{{edit_set}}/{{inversion}}/{setting}/index.json"
                for setting in settings
            ],
        log:
            "logs/{scale}/invert_images/{edit_set}/{inversion}/together.log",
        benchmark:
            "benchmarks/{scale}/invert_images/{edit_set}/{inversion}/together.tsv"
        wildcard_constraints:
            scale=scale,
            edit_set=edited_whole(scale),
        conda:
            "../../environment.yml"
        threads: 1
        resources:
            gpu=1,
            gpu_model=gpu_model,
            mem_mb=memory(4000, paper=16000),
            runtime=walltime(240),
        params:
            spec=inversion_spec,
            model=edited_model,
            adaptor=adaptor_options,
        shell:
            "python -m clockwork_experiments.steps.invert_images"
            " --spec {params.spec:q} --model {params.model} {params.adaptor}"
            " --set {input.set} --sources {input.sources} --output {output}"
            " --threads {threads} --log {log}"

    # The same for edits.
    rule:
        name:
            f"edit_images_{scale}"
        input:
            unpack(adaptor_of(loop_of)),
            code=code("edit_images"),
            model=edited_model_files,
            set="results/{scale}/edit_sets/{edit_set}.json",
            inversion=inversion_indices,
        output:
            [
                f"results/{{scale}}/edited/{{edit_set}}/{{edit}}/{setting}.safetensors"
                for setting in settings
            ],
        log:
            "logs/{scale}/edit_images/{edit_set}/{edit}/together.log",
        benchmark:
            "benchmarks/{scale}/edit_images/{edit_set}/{edit}/together.tsv"
        wildcard_constraints:
            scale=scale,
            edit_set=edited_whole(scale),
            edit=made_together(scale),
        conda:
            "../../environment.yml"
        threads: 1
        resources:
            gpu=1,
            gpu_model=gpu_model,
            mem_mb=memory(4000, paper=16000),
            runtime=walltime(240),
        params:
            spec=edit_spec,
            model=edited_model,
            adaptor=adaptor_options,
            state="results/{scale}/.state/edited/{edit_set}/{edit}/together",
        shell:
            "python -m clockwork_experiments.steps.edit_images"
            " --spec {params.spec:q} --model {params.model} {params.adaptor}"
            " --set {input.set} --inversion {input.inversion}"
            " --state {params.state} --output {output}"
            " --threads {threads} --log {log}"


rule score_edits:
    """Score all edits of a set at one setting.

    Reads: the set, the edited images, CLIP, the ViT whose keys tell structure.
    Writes: each score with n, interval, encoders and versions; the value of each pair.
    """
    input:
        code=code("score_edits"),
        set="results/{scale}/edit_sets/{edit_set}.json",
        sources="results/{scale}/edit_sets/{edit_set}.safetensors",
        edited=edited_images,
        clip=files_of(clip_path),
        structure=files_of(structure_path),
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
        clip=clip_path,
        structure=structure_path,
        teachers=edit_teachers,
    shell:
        "python -m clockwork_experiments.steps.score_edits"
        " --teachers {params.teachers:q} --set {input.set} --sources {input.sources} --edited {input.edited}"
        " --clip {params.clip} --structure {params.structure} --output {output.json}"
        " --threads {threads} --log {log}"


rule long_edits:
    """Draw what the default run leaves out: inversions of 200 steps and more."""
    input:
        on_request("mini"),
