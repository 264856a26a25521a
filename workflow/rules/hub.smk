"""What is ready to be uploaded to a hub: the shipped models, and trained adaptors."""


localrules:
    hub_folders,
    make_hub_folder,


rule hub_folders:
    """Make a folder with its card for each shipped model and adaptor."""
    input:
        expand("results/hub/{published}/README.md", published=HUB),


rule make_hub_folder:
    """Copy a model, and write its card in the hub's format.

    Reads: its folder with the card that training wrote, and what was measured.
    Writes: the folder, whose card has the measured values in front.
    """
    input:
        card=hub_card,
        files=hub_model,
    output:
        "results/hub/{published}/README.md",
    log:
        "logs/hub/{published}.log",
    wildcard_constraints:
        published="|".join(HUB),
    conda:
        "../../environment.yml"
    params:
        code=code("make_hub_folder"),
        spec=hub_spec,
        folder="results/hub/{published}",
    shell:
        "python -m clockwork_experiments.steps.make_hub_folder"
        " --spec {params.spec:q} --card {input.card:q} --output {params.folder:q}"
        " --log {log}"
