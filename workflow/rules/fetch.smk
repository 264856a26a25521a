"""Real weights and data: fetched, verified, or checked where the user placed them.

Nothing here runs unless something of paper scale needs it, or somebody asks for it.
"""


localrules:
    fetched,
    placed,
    fetch_source,
    prepare_coco,


rule fetched:
    """Everything of the paper scale that can be fetched, and what is made of it."""
    input:
        fetching.fetched(),


rule placed:
    """Check everything of the paper scale that is to be placed by hand."""
    input:
        fetching.placed(),


# No module of ours is an input: the bytes do not depend on them, and to verify all
# again would run everything of paper scale again.
rule fetch_source:
    """Bring a source to its place, or accept what the user placed there; verify it.

    Reads: the network, the hub's cache, or the folder; what the first fetch recorded.
    Writes: what is there now, with checksums.
    """
    output:
        "resources/paper/manifests/{source}.json",
    log:
        "logs/paper/fetch_source/{source}.log",
    conda:
        "../../environment.yml"
    params:
        spec=fetching.source_spec,
        lock=fetching.LOCK,
    shell:
        "python -m clockwork_experiments.steps.fetch_source"
        " --source {wildcards.source} --spec {params.spec:q} --lock {params.lock}"
        " --output {output} --log {log}"


rule prepare_coco:
    """Turn COCO's archives into captions and images, or these into pairs.

    Reads: archives or folders that were fetched or made before.
    Writes: the folder; what is there now, with checksums.
    """
    input:
        unpack(fetching.coco_inputs),
    output:
        "resources/paper/manifests/{coco}.json",
    log:
        "logs/paper/prepare_coco/{coco}.log",
    conda:
        "../../environment.yml"
    params:
        spec=fetching.coco_spec,
        options=fetching.coco_options,
    shell:
        "python -m clockwork_experiments.steps.prepare_coco"
        " --name {wildcards.coco} --spec {params.spec:q} {params.options}"
        " --output {output} --log {log}"
