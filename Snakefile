"""Rebuild the tables and figures of two papers on cheap diffusion models."""

from snakemake.utils import min_version

min_version("9.0")


include: "workflow/common/configuration.smk"
include: "workflow/common/bound.smk"
include: "workflow/common/sizes.smk"
include: "workflow/common/registries.smk"
include: "workflow/rules/common.smk"
include: "workflow/common/paper.smk"
include: "workflow/common/models.smk"
include: "workflow/rules/fetch.smk"
include: "workflow/common/costs.smk"
include: "workflow/common/report.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/teacher.smk"
include: "workflow/rules/adaptor.smk"
include: "workflow/rules/sample.smk"
include: "workflow/rules/edit.smk"
include: "workflow/rules/translate.smk"
include: "workflow/rules/depth.smk"
include: "workflow/rules/timesteps.smk"
include: "workflow/rules/score.smk"
include: "workflow/rules/profile.smk"
include: "workflow/rules/sizes.smk"
include: "workflow/rules/paper.smk"
include: "workflow/common/benchmark.smk"
include: "workflow/rules/benchmark.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/hub.smk"
include: "workflow/rules/world.smk"


report: "workflow/report/workflow.rst"


remember_signatures()


onstart:
    check_cluster(workflow.executor_settings)
    check_dates(workflow.dag.needrun_jobs())
    start_forkserver()


rule all:
    """Every table, figure and claim that a laptop can work out; the headline ones first."""
    default_target: True
    input:
        of_a_run(
            tables("mini"),
            figures("mini"),
            claims("mini"),
            claims("paper"),
            tables("paper"),
            drawn_figures("paper"),
            benchmarking.sliced("mini"),
            expand("results/{scale}/tables/costs.md", scale=["paper", "pilot"]),
        ),
