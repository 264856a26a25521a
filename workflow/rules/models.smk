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
    shell:
        "cp -r {params.folders} resources/mini/ 2> {log}"


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
        code=code("train_mini_adaptor"),
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
        spec=mini_adaptor,
        folder=model_folder,
    shell:
        "rm -f {params.folder:q}/config.json &&"
        " python -m clockwork_experiments.steps.train_mini_adaptor"
        " --spec {params.spec:q} --model {input.model} --output {params.folder}"
        " --threads {threads} --log {log}"


rule quality:
    """Measure the bar: are shapes, colours, places what was asked for?"""
    input:
        expand(
            "results/mini/quality/{judged}.{kind}",
            judged=entries("mini", "quality"),
            kind=["json", "png"],
        ),


rule train_autoencoder:
    """Train the mini autoencoder.

    Reads: nothing; scenes are generated.
    Writes: an AutoencoderKL folder with its model card.
    """
    input:
        code=code("train_autoencoder"),
    output:
        card="results/mini/models/autoencoder/README.md",
    log:
        "logs/mini/train_autoencoder/autoencoder.log",
    benchmark:
        "benchmarks/mini/train_autoencoder/autoencoder.tsv"
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(4000),
        runtime=walltime(240),
    params:
        spec=recipe("autoencoder"),
        folder=model_folder,
        state="results/mini/.state/models/autoencoder.pt",
    shell:
        "python -m clockwork_experiments.steps.train_autoencoder"
        " --spec {params.spec:q} --state {params.state} --output {params.folder}"
        " --threads {threads} --log {log}"


rule train_teacher:
    """Train the mini Stable Diffusion: text encoder and UNet on the latents of scenes.

    Reads: the autoencoder.
    Writes: a StableDiffusionPipeline folder with its model card.
    """
    input:
        code=code("train_teacher"),
        vae=rules.train_autoencoder.output.card,
    output:
        card="results/mini/models/stable-diffusion/README.md",
    log:
        "logs/mini/train_teacher/teacher.log",
    benchmark:
        "benchmarks/mini/train_teacher/teacher.tsv"
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(4000),
        runtime=walltime(720),
    params:
        spec=recipe("teacher"),
        vae=vae_folder,
        folder=model_folder,
        state="results/mini/.state/models/teacher.pt",
    shell:
        "python -m clockwork_experiments.steps.train_teacher"
        " --spec {params.spec:q} --vae {params.vae}"
        " --state {params.state} --output {params.folder}"
        " --threads {threads} --log {log}"


rule train_clip:
    """Train the mini CLIP with open_clip's loss on scenes and captions.

    Reads: nothing; scenes are generated.
    Writes: an open_clip folder with its model card.
    """
    input:
        code=code("train_clip"),
    output:
        card="results/mini/models/clip/README.md",
    log:
        "logs/mini/train_clip/clip.log",
    benchmark:
        "benchmarks/mini/train_clip/clip.tsv"
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(4000),
        runtime=walltime(240),
    params:
        spec=recipe("clip"),
        folder=model_folder,
        state="results/mini/.state/models/clip.pt",
    shell:
        "python -m clockwork_experiments.steps.train_clip"
        " --spec {params.spec:q} --state {params.state} --output {params.folder}"
        " --threads {threads} --log {log}"


rule train_classifier:
    """Train the classifier of renders that measures the teacher's bar, and only that.

    Reads: nothing; scenes are generated.
    Writes: its folder with its model card.
    """
    input:
        code=code("train_classifier"),
    output:
        card="results/mini/models/classifier/README.md",
    log:
        "logs/mini/train_classifier/classifier.log",
    benchmark:
        "benchmarks/mini/train_classifier/classifier.tsv"
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(4000),
        runtime=walltime(240),
    params:
        spec=recipe("classifier"),
        folder=model_folder,
        state="results/mini/.state/models/classifier.pt",
    shell:
        "python -m clockwork_experiments.steps.train_classifier"
        " --spec {params.spec:q} --state {params.state} --output {params.folder}"
        " --threads {threads} --log {log}"


rule train_features:
    """Train the feature network of the Fréchet distance.

    Reads: nothing; scenes are generated.
    Writes: its folder with its model card.
    """
    input:
        code=code("train_features"),
    output:
        card="results/mini/models/features/README.md",
    log:
        "logs/mini/train_features/features.log",
    benchmark:
        "benchmarks/mini/train_features/features.tsv"
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(4000),
        runtime=walltime(240),
    params:
        spec=recipe("features"),
        folder=model_folder,
        state="results/mini/.state/models/features.pt",
    shell:
        "python -m clockwork_experiments.steps.train_features"
        " --spec {params.spec:q} --state {params.state} --output {params.folder}"
        " --threads {threads} --log {log}"


rule train_structure:
    """Train the ViT whose features describe structure.

    Reads: nothing; scenes are generated.
    Writes: a Hugging Face ViT folder with its model card.
    """
    input:
        code=code("train_structure"),
    output:
        card="results/mini/models/structure/README.md",
    log:
        "logs/mini/train_structure/structure.log",
    benchmark:
        "benchmarks/mini/train_structure/structure.tsv"
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(4000),
        runtime=walltime(240),
    params:
        spec=recipe("structure"),
        folder=model_folder,
        state="results/mini/.state/models/structure.pt",
    shell:
        "python -m clockwork_experiments.steps.train_structure"
        " --spec {params.spec:q} --state {params.state} --output {params.folder}"
        " --threads {threads} --log {log}"


rule train_restorer:
    """Train the small restoration net that high-frequency synthesis starts from.

    Reads: nothing; scenes are generated.
    Writes: its folder with its model card.
    """
    input:
        code=code("train_restorer"),
    output:
        card="results/mini/models/restorer/README.md",
    log:
        "logs/mini/train_restorer/restorer.log",
    benchmark:
        "benchmarks/mini/train_restorer/restorer.tsv"
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(4000),
        runtime=walltime(240),
    params:
        spec=recipe("restorer"),
        folder=model_folder,
        state="results/mini/.state/models/restorer.pt",
    shell:
        "python -m clockwork_experiments.steps.train_restorer"
        " --spec {params.spec:q} --state {params.state} --output {params.folder}"
        " --threads {threads} --log {log}"


rule train_translator:
    """Make an image-to-image model out of the mini Stable Diffusion.

    Reads: the mini Stable Diffusion; pairs of scenes are generated.
    Writes: a folder in the format of diffusers, with its model card.
    """
    input:
        unpack(restorer_of),
        code=code("train_translator"),
        teacher=rules.train_teacher.output.card,
    output:
        card="results/mini/models/{translator}/README.md",
    log:
        "logs/mini/train_translator/{translator}.log",
    benchmark:
        "benchmarks/mini/train_translator/{translator}.tsv"
    wildcard_constraints:
        translator="|".join(entry("mini", "training", "translators")),
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(6000),
        runtime=walltime(720),
    params:
        spec=translator_recipe,
        teacher=lambda wildcards, input: str(Path(input.teacher).parent),
        restorer=restorer_option,
        folder=model_folder,
        state="results/mini/.state/models/{translator}.pt",
    shell:
        "python -m clockwork_experiments.steps.train_translator"
        " --spec {params.spec:q} --teacher {params.teacher} {params.restorer}"
        " --state {params.state} --output {params.folder}"
        " --threads {threads} --log {log}"


rule distil_steps:
    """Distil the mini StableSR into one of few deterministic steps.

    Reads: the mini StableSR; pairs of scenes are generated.
    Writes: SPADE layers and structure encoder, with their model card.
    """
    input:
        code=code("distil_steps"),
        teacher="results/mini/models/stablesr/README.md",
    output:
        card="results/mini/models/stablesr-distilled/README.md",
    log:
        "logs/mini/distil_steps/stablesr-distilled.log",
    benchmark:
        "benchmarks/mini/distil_steps/stablesr-distilled.tsv"
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        gpu=1,
        gpu_model=gpu_model,
        mem_mb=memory(6000),
        runtime=walltime(240),
    params:
        spec=recipe("stablesr_distilled"),
        teacher=lambda wildcards, input: str(Path(input.teacher).parent),
        folder=model_folder,
        state="results/mini/.state/models/stablesr-distilled.pt",
    shell:
        "python -m clockwork_experiments.steps.distil_steps"
        " --spec {params.spec:q} --teacher {params.teacher}"
        " --state {params.state} --output {params.folder}"
        " --threads {threads} --log {log}"


rule make_backbone:
    """Make a cheaper backbone out of a teacher by distillation.

    Reads: the teacher's pipeline, images and their prompts.
    Writes: a StableDiffusionPipeline folder with its model card.
    """
    input:
        code=code("make_backbone"),
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
        spec=spec("backbones", "backbone", "spec"),
        teacher=backbone_teacher,
        quality=quality_option,
        folder=model_folder,
        state="results/{scale}/.state/models/{backbone}.pt",
    shell:
        "python -m clockwork_experiments.steps.make_backbone"
        " --spec {params.spec:q} --teacher {params.teacher}"
        " --images {input.images} --prompts {input.prompts} {params.quality}"
        " --state {params.state} --output {params.folder}"
        " --threads {threads} --log {log}"


rule convert_stablesr:
    """Turn StableSR's published checkpoints into a pipeline folder.

    Reads: both checkpoints, SD 2.1's tokenizer.
    Writes: a folder with UNet, structure encoder, CFW autoencoder and text encoder.
    """
    input:
        code=code("convert_stablesr"),
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
        checkpoint="resources/paper/stablesr_000117.ckpt",
        cfw="resources/paper/vqgan_cfw_00011.ckpt",
        tokenizer="resources/paper/stable-diffusion-2-1-base/tokenizer",
        folder=lambda wildcards, output: str(Path(output.sums).parent),
    shell:
        "python -m clockwork_experiments.steps.convert_stablesr"
        " --checkpoint {params.checkpoint} --cfw {params.cfw}"
        " --tokenizer {params.tokenizer} --output {params.folder}"
        " --threads {threads} --log {log}"


rule recognise_images:
    """Recognise a model's images with the classifier of renders.

    Reads: images of the run that the model is judged by, the classifier.
    Writes: the share recognised by attribute, with intervals; JSON and a table.
    """
    input:
        code=code("recognise_images"),
        images=judged_images,
        classifier=files_of(classifier_path),
    output:
        json="results/{scale}/quality/{judged}.json",
        md="results/{scale}/quality/{judged}.md",
    log:
        "logs/{scale}/recognise_images/{judged}.log",
    benchmark:
        "benchmarks/{scale}/recognise_images/{judged}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=walltime(30),
    params:
        dataset=judged_scenes,
        title=setting("quality", "judged", "title"),
        classifier=classifier_path,
    shell:
        "python -m clockwork_experiments.steps.recognise_images"
        " --images {input.images} --classifier {params.classifier}"
        " --dataset-spec {params.dataset:q} --title {params.title:q}"
        " --output {output.json} --log {log}"


use rule draw_figure as draw_quality with:
    input:
        unpack(judged_grid_inputs),
        code=code("draw_figure"),
    output:
        pdf="results/{scale}/quality/{judged}.pdf",
        png="results/{scale}/quality/{judged}.png",
    log:
        "logs/{scale}/draw_quality/{judged}.log",
    params:
        kind="grid",
        spec=judged_grid,
        inputs=input_options("images", "prompts"),
