"""Rebuild the tables and figures of two papers on cheap diffusion models."""

from snakemake.utils import min_version

min_version("9.0")


include: "workflow/rules/common.smk"
include: "workflow/rules/fetch.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/adaptor.smk"
include: "workflow/rules/sample.smk"
include: "workflow/rules/edit.smk"
include: "workflow/rules/translate.smk"
include: "workflow/rules/search.smk"
include: "workflow/rules/score.smk"
include: "workflow/rules/profile.smk"
include: "workflow/rules/sizes.smk"
include: "workflow/rules/paper.smk"
include: "workflow/rules/benchmark.smk"
include: "workflow/rules/models.smk"


report: "workflow/report/workflow.rst"


remember_signatures(workflow.rules)


rule all:
    """Every table, figure and claim that a laptop can work out; the headline ones first."""
    default_target: True
    input:
        reporting.of_a_run(
            listed.tables("mini"),
            listed.figures("mini"),
            listed.claims("mini"),
            listed.claims("paper"),
            listed.tables("paper"),
            listed.drawn_figures("paper"),
            benchmarking.sliced("mini"),
            expand("results/{scale}/tables/costs.md", scale=["paper", "pilot"]),
        ),
