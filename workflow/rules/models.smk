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


rule mini_models:
    """Train every mini model again (hours on a CPU, minutes on a GPU)."""
    input:
        expand("results/mini/models/{model}/README.md", model=mini_models()),


rule ship_models:
    """Replace the shipped weights by those that `mini_models` trained."""
    input:
        rules.mini_models.input,
    log:
        "logs/mini/ship_models.log",
    conda:
        "../../environment.yml"
    params:
        folders=expand("results/mini/models/{model}", model=mini_models()),
        teachers=json.dumps(mini_teachers()),
    shell:
        "python -m clockwork_experiments.steps.ship_models"
        " --models {params.folders:q} --teachers {params.teachers:q}"
        " --into resources/mini --log {log}"


rule mini_adaptors:
    """Train the shipped adaptors of the mini models, those of Table 1."""
    input:
        expand(
            "results/mini/models/adaptors/{teacher}/README.md", teacher=mini_adaptors()
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
        teacher="|".join(mini_adaptors()),
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(4000),
        runtime=walltime(120),
    params:
        code=code("train_mini_adaptor", mini_adaptor),
        spec=mini_adaptor,
        folder=model_folder,
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
            judged=entries("mini", "quality"),
            kind=["json", "png"],
        ),


rule train_mini:
    """Train one of the mini models by its recipe, in workflow/mini_models.yaml.

    Reads: the models that its entry names; scenes are generated.
    Writes: the model's folder with its model card.
    """
    input:
        unpack(mini_model_reads),
    output:
        card="results/mini/models/{mini_model}/README.md",
    log:
        "logs/mini/train_mini/{mini_model}.log",
    benchmark:
        "benchmarks/mini/train_mini/{mini_model}.tsv"
    wildcard_constraints:
        mini_model="|".join(MINI_MODELS),
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(6000),
        runtime=walltime(720),
    params:
        code=code("train_mini", module=mini_model_recipe),
        recipe=mini_model_recipe,
        spec=mini_model_spec,
        reads=mini_model_options,
        folder=model_folder,
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
        teacher=files_of(backbone_teacher),
        images=backbone_images,
        prompts=prompts_of("backbones", "backbone"),
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
        spec=spec("backbones", "backbone", "spec"),
        teacher=backbone_teacher,
        quality=quality_option,
        folder=model_folder,
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
        checkpoints=manifest("stablesr"),
        tokenizer=manifest("stable_diffusion_2"),
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
        folder=lambda wildcards, output: str(Path(output.sums).parent),
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
        images=judged_images,
        judge=files_of(judge_path),
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
        dataset=judged_scenes,
        title=setting("quality", "judged", "title"),
        judge=judge_path,
    shell:
        "python -m clockwork_experiments.steps.judge_images"
        " --images {input.images:q} --judge {params.judge:q}"
        " --dataset {params.dataset:q} --title {params.title:q}"
        " --output {output.json} --log {log}"


use rule draw_figure as draw_quality with:
    input:
        unpack(judged_grid_inputs),
    output:
        pdf="results/{scale}/quality/{judged}.pdf",
        png="results/{scale}/quality/{judged}.png",
    log:
        "logs/{scale}/draw_quality/{judged}.log",
    params:
        code=code("draw_figure", judged_grid, module=grid_module),
        kind="grid",
        spec=judged_grid,
        inputs=judged_grid_options,
