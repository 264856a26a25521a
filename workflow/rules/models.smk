"""Training of the mini models, which no default run does, and the bar they must pass.

The default run reads the shipped weights under resources/mini. `snakemake mini_models`
trains all of them again into results/mini/models; `ship_models` puts those in place.
"""


localrules:
    mini_models,
    mini_adaptors,
    ship_models,
    ship_adaptors,
    quality,
    draw_quality,
    hub_folders,
    make_hub_folder,
    world,


rule mini_models:
    """Train every mini model again (hours on a CPU, minutes on a GPU)."""
    input:
        expand("results/mini/models/{model}/README.md", model=mini.mini_models()),


rule ship_models:
    """Replace the shipped weights by those that `mini_models` trained."""
    input:
        rules.mini_models.input,
    log:
        "logs/mini/ship_models.log",
    conda:
        "../../environment.yml"
    params:
        folders=expand("results/mini/models/{model}", model=mini.mini_models()),
        teachers=mini.mini_teachers(),
    shell:
        "python -m clockwork_experiments.steps.ship_models"
        " --models {params.folders:q} --teachers {params.teachers:q}"
        " --into resources/mini --log {log}"


rule mini_adaptors:
    """Train the shipped adaptors of the mini models, those of Table 1."""
    input:
        expand(
            "results/mini/models/adaptors/{teacher}/README.md",
            teacher=REGISTRY.others["mini_adaptors"],
        ),


rule ship_adaptors:
    """Replace the shipped adaptors by those that `mini_adaptors` trained."""
    input:
        rules.mini_adaptors.input,
    log:
        "logs/mini/ship_adaptors.log",
    conda:
        "../../environment.yml"
    shell:
        "cp -r results/mini/models/adaptors resources/mini/ 2> {log}"


rule train_mini_adaptor:
    """Train an adaptor of a shipped mini model with the library's `train_adaptor`.

    Reads: the shipped model.
    Writes: the adaptor's weights in half precision, and its card.
    """
    input:
        model="resources/mini/{teacher}/SHA256SUMS",
    output:
        card="results/mini/models/adaptors/{teacher}/README.md",
    log:
        "logs/mini/train_mini_adaptor/{teacher}.log",
    benchmark:
        "benchmarks/mini/train_mini_adaptor/{teacher}.tsv"
    wildcard_constraints:
        teacher="|".join(REGISTRY.others["mini_adaptors"]),
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(4000),
        runtime=walltime(120),
    params:
        code=code("train_mini_adaptor", mini.adaptor_spec),
        spec=mini.adaptor_spec,
        folder=mini.folder,
    shell:
        "rm -f {params.folder:q}/config.json &&"
        " python -m clockwork_experiments.steps.train_mini_adaptor"
        " --spec {params.spec:q} --model {input.model:q} --output {params.folder}"
        " --threads {threads} --log {log}"


rule quality:
    """Measure the bar: are shapes, colours, places what was asked for?"""
    input:
        expand(
            "results/mini/quality/{judged}.{kind}",
            judged=REGISTRY.entries("mini", "quality"),
            kind=["json", "png"],
        ),


rule train_mini:
    """Train one of the mini models by its recipe, in workflow/mini_models.yaml.

    Reads: the models that its entry names; scenes are generated.
    Writes: the model's folder with its model card.
    """
    input:
        unpack(mini.reads),
    output:
        card="results/mini/models/{mini_model}/README.md",
    log:
        "logs/mini/train_mini/{mini_model}.log",
    benchmark:
        "benchmarks/mini/train_mini/{mini_model}.tsv"
    wildcard_constraints:
        mini_model="|".join(REGISTRY.others["mini_models"]),
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(6000),
        runtime=walltime(720),
    params:
        code=code("train_mini", module=mini.recipe),
        recipe=mini.recipe,
        spec=mini.spec,
        reads=mini.options,
        folder=mini.folder,
        state="results/mini/.state/models/{mini_model}.pt",
    shell:
        "python -m clockwork_experiments.steps.train_mini --recipe {params.recipe}"
        " --spec {params.spec:q} {params.reads} --state {params.state}"
        " --output {params.folder} --threads {threads} --log {log}"


rule make_backbone:
    """Make a cheaper backbone out of a teacher by distillation.

    Reads: the teacher's pipeline, images and their prompts.
    Writes: a StableDiffusionPipeline folder with its model card.
    """
    input:
        teacher=mini.backbone_teacher_files,
        images=mini.backbone_images,
        prompts=mini.backbone_prompts,
    output:
        sums="results/{scale}/models/{backbone}/SHA256SUMS",
        card="results/{scale}/models/{backbone}/README.md",
    log:
        "logs/{scale}/make_backbone/{backbone}.log",
    benchmark:
        "benchmarks/{scale}/make_backbone/{backbone}.tsv"
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(16000),
        runtime=walltime(2880),
    params:
        code=code("make_backbone"),
        spec=mini.backbone_spec,
        teacher=mini.backbone_teacher,
        quality=mini.quality_option,
        folder=mini.folder,
        state="results/{scale}/.state/models/{backbone}.pt",
    shell:
        "python -m clockwork_experiments.steps.make_backbone"
        " --spec {params.spec:q} --teacher {params.teacher:q}"
        " --images {input.images:q} --prompts {input.prompts:q} {params.quality}"
        " --state {params.state} --output {params.folder}"
        " --threads {threads} --log {log}"


rule convert_stablesr:
    """Turn StableSR's published checkpoints into a pipeline folder.

    Reads: both checkpoints, SD 2.1's tokenizer.
    Writes: a folder with UNet, structure encoder, CFW autoencoder and text encoder.
    """
    input:
        checkpoints=fetching.manifest("stablesr"),
        tokenizer=fetching.manifest("stable_diffusion_2"),
    output:
        sums="results/paper/models/stablesr/SHA256SUMS",
    log:
        "logs/paper/convert_stablesr/stablesr.log",
    benchmark:
        "benchmarks/paper/convert_stablesr/stablesr.tsv"
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        mem_mb=memory(32000),
        runtime=walltime(60),
    params:
        code=code("convert_stablesr"),
        checkpoint="resources/paper/stablesr_000117.ckpt",
        cfw="resources/paper/vqgan_cfw_00011.ckpt",
        tokenizer="resources/paper/stable-diffusion-2-1-base/tokenizer",
        folder=mini.folder,
    shell:
        "python -m clockwork_experiments.steps.convert_stablesr"
        " --checkpoint {params.checkpoint:q} --cfw {params.cfw:q}"
        " --tokenizer {params.tokenizer:q} --output {params.folder}"
        " --threads {threads} --log {log}"


rule judge_images:
    """Judge what share of a model's images is as captioned, and hangs together.

    Reads: images of the run that the model is judged by, the judge of scenes.
    Writes: shares by attribute, with intervals, and those of renderings; JSON, a table.
    """
    input:
        images=mini.judged_images,
        judge=mini.judge_files,
    output:
        json="results/{scale}/quality/{judged}.json",
        md="results/{scale}/quality/{judged}.md",
    log:
        "logs/{scale}/judge_images/{judged}.log",
    benchmark:
        "benchmarks/{scale}/judge_images/{judged}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=walltime(30),
    params:
        code=code("judge_images"),
        dataset=mini.judged_scenes,
        title=mini.judged_title,
        judge=mini.judge_path,
    shell:
        "python -m clockwork_experiments.steps.judge_images"
        " --images {input.images:q} --judge {params.judge:q}"
        " --dataset {params.dataset:q} --title {params.title:q}"
        " --output {output.json} --log {log}"


use rule draw_figure as draw_quality with:
    input:
        unpack(mini.judged_grid_inputs),
    output:
        pdf="results/{scale}/quality/{judged}.pdf",
        png="results/{scale}/quality/{judged}.png",
    log:
        "logs/{scale}/draw_quality/{judged}.log",
    params:
        code=code("draw_figure", mini.judged_grid, module=mini.grid_module),
        kind="grid",
        spec=mini.judged_grid,
        inputs=mini.judged_grid_options,


rule hub_folders:
    """Make a folder with its card for each shipped model and adaptor."""
    input:
        expand("results/hub/{published}/README.md", published=mini.published()),


rule make_hub_folder:
    """Copy a model, and write its card in the hub's format.

    Reads: its folder with the card that training wrote, and what was measured.
    Writes: the folder, whose card has the measured values in front.
    """
    input:
        card=mini.hub_card,
        files=mini.hub_model,
    output:
        "results/hub/{published}/README.md",
    log:
        "logs/hub/{published}.log",
    wildcard_constraints:
        published="|".join(mini.published()),
    conda:
        "../../environment.yml"
    params:
        code=code("make_hub_folder"),
        spec=mini.hub_spec,
        folder="results/hub/{published}",
    shell:
        "python -m clockwork_experiments.steps.make_hub_folder"
        " --spec {params.spec:q} --card {input.card:q} --output {params.folder:q}"
        " --log {log}"


rule world:
    """Measure the gate."""
    input:
        "results/mini/quality/world.json",


rule measure_world:
    """Measure the gate's criteria.

    Reads: the teacher, the judge of what its pictures show, the networks that describe
        features and structure.
    Writes: each criterion's value, interval, bar and verdict; a table of them.
    """
    input:
        teacher="resources/mini/stable-diffusion",
        judge="resources/mini/judge",
        features="resources/mini/features",
        structure="resources/mini/structure",
    output:
        json="results/mini/quality/world.json",
        md="results/mini/quality/world.md",
    log:
        "logs/mini/measure_world/world.log",
    benchmark:
        "benchmarks/mini/measure_world/world.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(4000),
        runtime=walltime(60),
    params:
        code=code("measure_world"),
        conv_layer=config["mini"]["editing"]["edits"]["pnp"]["conv_layer"],
    shell:
        "python -m clockwork_experiments.steps.measure_world"
        " --teacher {input.teacher} --judge {input.judge}"
        " --features {input.features} --structure {input.structure}"
        " --conv-layer {params.conv_layer} --output {output.json}"
        " --threads {threads} --log {log}"
