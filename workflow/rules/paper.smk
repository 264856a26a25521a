"""The papers' tables, figures and claims."""


localrules:
    set_table,
    set_comparison,
    bind_tables,
    draw_figure,
    estimate_costs,
    paper_scale,
    pilot,
    plan_study,
    power,
    study,


rule power:
    """What the study can see, by the spreads of the mini scale's run."""
    input:
        expand(
            "results/study/power/{paper}.md",
            paper=listed.claiming("study"),
        ),


rule plan_study:
    """Tell what a study can see of a paper's claims, before it is made.

    Reads: the verdicts of the quick run.
    Writes: of each claim's primary part the smallest effect that is seen.
    """
    input:
        claims="results/mini/claims/{paper}.json",
    output:
        json="results/{scale}/power/{paper}.json",
        md="results/{scale}/power/{paper}.md",
    log:
        "logs/{scale}/plan_study/{paper}.log",
    wildcard_constraints:
        scale="study",
    conda:
        "../../environment.yml"
    params:
        code=code("plan_study"),
        spec=shown.claims_told,
        counts=shown.power_counts,
    shell:
        "python -m clockwork_experiments.steps.plan_study"
        " --spec {params.spec:q} --counts {params.counts:q}"
        " --claims {input.claims} --output {output.json} --log {log}"


rule study:
    """Every table, figure and claim of the shipped models at sizes that decide."""
    input:
        reporting.of_a_run(
            listed.tables("study"), listed.figures("study"), listed.claims("study")
        ),


rule paper_scale:
    """Everything at paper scale; with -n also what it would cost."""
    input:
        listed.everything("paper"),
        "results/paper/tables/other_unets.md",


rule pilot:
    """Table 1's rows of Stable Diffusion that take no training, on few captions."""
    input:
        listed.tables("pilot"),


rule estimate_costs:
    """Estimate what a scale with real weights costs, rule by rule.

    Reads: the configuration, and what a unit of work costs.
    Writes: a table in Markdown.
    """
    input:
        units=UNIT_COSTS,
    output:
        "results/{scale}/tables/costs.md",
    log:
        "logs/{scale}/estimate_costs.log",
    wildcard_constraints:
        scale="paper|pilot",
    conda:
        "../../environment.yml"
    params:
        code=code("estimate_costs"),
        spec=costing.cost_spec,
        title="What the {scale} scale costs, by estimate",
    shell:
        "python -m clockwork_experiments.steps.estimate_costs"
        " --spec {params.spec:q} --units {input.units} --title {params.title:q}"
        " --output {output} --log {log}"


rule set_table:
    """Set one table.

    Reads: scores, counts and timings of its runs.
    Writes: CSV for machines, Markdown, LaTeX and HTML for people.
    """
    input:
        unpack(shown.item_inputs),
    output:
        csv="results/{scale}/tables/{paper}/{table}.csv",
        md="results/{scale}/tables/{paper}/{table}.md",
        html=report(
            "results/{scale}/tables/{paper}/{table}.html",
            caption="../report/table.rst",
            category=reporting.title,
            subcategory="Tables",
            labels={"item": "{table}", "scale": "{scale}"},
        ),
        tex="results/{scale}/tables/{paper}/{table}.tex",
    log:
        "logs/{scale}/set_table/{paper}/{table}.log",
    conda:
        "../../environment.yml"
    params:
        code=code(
            "set_table", shown.item_kind, shown.item_spec, module=shown.item_module
        ),
        kind=shown.item_kind,
        spec=shown.item_spec,
        inputs=shown.item_options,
    shell:
        "python -m clockwork_experiments.steps.set_table"
        " --kind {params.kind:q} --spec {params.spec:q} {params.inputs}"
        " --output {output.csv} --log {log}"


use rule set_table as set_comparison with:
    input:
        unpack(shown.compared_inputs),
    output:
        csv="results/{scale}/compared/{run}.csv",
        md="results/{scale}/compared/{run}.md",
        html="results/{scale}/compared/{run}.html",
        tex="results/{scale}/compared/{run}.tex",
    log:
        "logs/{scale}/set_comparison/{run}.log",
    params:
        code=code("set_table", shown.compared_spec, module=shown.compared_module),
        kind="compared",
        spec=shown.compared_spec,
        inputs=shown.compared_options,


rule bind_tables:
    """Bind a scale's numbered tables into one document.

    Reads: nothing of the tables, which it names: it changes when one is added, and not
    when one is set again.
    Writes: LaTeX; `pdflatex tables` in its folder makes a PDF.
    """
    input:
        ancient(listed.numbered_tables),
    output:
        "results/{scale}/tables/tables.tex",
    log:
        "logs/{scale}/bind_tables.log",
    conda:
        "../../environment.yml"
    params:
        code=code("bind_tables"),
        title="The tables of both papers, published and ours: {scale} scale",
    shell:
        "python -m clockwork_experiments.steps.bind_tables"
        " --title {params.title:q} --tables {input} --output {output} --log {log}"


rule draw_figure:
    """Draw one figure.

    Reads: what it shows: images, prompts, timings, scores, counts or measures.
    Writes: vector PDF and PNG.
    """
    input:
        unpack(shown.item_inputs),
    output:
        pdf="results/{scale}/figures/{paper}/{figure}.pdf",
        png=report(
            "results/{scale}/figures/{paper}/{figure}.png",
            caption="../report/figure.rst",
            category=reporting.title,
            subcategory="Figures",
            labels={"item": "{figure}", "scale": "{scale}"},
        ),
    log:
        "logs/{scale}/draw_figure/{paper}/{figure}.log",
    conda:
        "../../environment.yml"
    params:
        code=code(
            "draw_figure", shown.item_kind, shown.item_spec, module=shown.item_module
        ),
        kind=shown.item_kind,
        spec=shown.item_spec,
        inputs=shown.item_options,
    shell:
        "python -m clockwork_experiments.steps.draw_figure"
        " --kind {params.kind:q} --spec {params.spec:q} {params.inputs}"
        " --output {output.png} --log {log}"


rule judge_claims:
    """Test every claim of a paper.

    Reads: features, images, counts, timings and measures of the runs it is about.
    Writes: effects with intervals, and verdicts: JSON for machines, Markdown for people.
    """
    input:
        unpack(shown.claims_inputs),
    output:
        json="results/{scale}/claims/{paper}.json",
        md="results/{scale}/claims/{paper}.md",
        html=report(
            "results/{scale}/claims/{paper}.html",
            caption="../report/claims.rst",
            category=reporting.title,
            subcategory="Claims",
            labels={"item": "claims", "scale": "{scale}"},
        ),
    log:
        "logs/{scale}/judge_claims/{paper}.log",
    benchmark:
        "benchmarks/{scale}/judge_claims/{paper}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=memory(4000, paper=16000),
        runtime=walltime(60),
    params:
        code=code("judge_claims", shown.claims_told),
        spec=shown.claims_told,
        settings=shown.claims_settings,
        inputs=shown.claims_options,
    shell:
        "python -m clockwork_experiments.steps.judge_claims"
        " --spec {params.spec:q} --settings {params.settings:q} {params.inputs}"
        " --output {output.md} --threads {threads} --log {log}"
