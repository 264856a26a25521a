"""The configuration and the papers' tables, figures and claims, checked."""

from clockwork_experiments.config import registry
from clockwork_experiments.config.check import checked
from clockwork_experiments.config.paper_checks import figure_answers
from clockwork_experiments.report.tables.results import COLUMN_SOURCES
from clockwork_experiments.report.tables.timesteps import STEP_TABLES

RANDOM = config["random"]
"""What `workflow/random.yaml` says, before it is laid over the paper scale."""

try:
    WORKFLOW = ROOT / "workflow"
    REGISTRY = checked(
        config,
        registry.read_papers(WORKFLOW / "papers"),
        WORKFLOW / "schemas",
        COLUMN_SOURCES,
        STEP_TABLES,
    )
except ValueError as error:
    raise WorkflowError(str(error)) from None
config.update(REGISTRY.config)
PAPERS = REGISTRY.papers


def items(scale, kind):
    """Return the tables or figures at a scale as (paper, id, settings)."""
    return list(REGISTRY.items(scale, kind))


def with_scores(table):
    """Return a table of paper scale, with the scores that it has at mini scale."""
    return registry.with_scores(table, COLUMN_SOURCES)


def claim_registries(scale):
    """Return the papers that claim something at a scale, with what they claim."""
    return list(REGISTRY.claims(scale))


def ids(section):
    """Return a wildcard constraint: the ids of a section at any scale."""
    names = {name for scale in SCALES for name in REGISTRY.entries(scale, section)}
    return "|".join(sorted(names)) or "none"


def paper_ids(kind):
    """Return a wildcard constraint: the ids of tables or figures."""
    return "|".join(
        sorted({name for registry in PAPERS.values() for name in registry[kind]})
    )


wildcard_constraints:
    scale="|".join(SCALES),
    model=ids("models"),
    dataset=ids("datasets"),
    trajectory=ids("trajectories"),
    adaptor=ids("adaptors"),
    run=ids("runs"),
    judged=ids("quality"),
    backbone=ids("backbones"),
    perturbation=ids("perturbations"),
    translator=ids("translators"),
    search=ids("depth_searches"),
    step_search=ids("step_searches"),
    benchmark_task=ids("benchmark_tasks"),
    method=ids("benchmark"),
    shown="methods|slice|plans|masks",
    finetuned=ids("finetuned"),
    source=ids("sources"),
    coco=ids("coco"),
    edit_set=ids("edit_sets"),
    inversion=ids("editing.inversions"),
    edit=ids("editing.edits"),
    setting=ids("editing.settings"),
    images="|".join((ids("runs"), ids("datasets"))),
    paper="|".join(PAPERS),
    table=paper_ids("tables"),
    figure=paper_ids("figures"),
    shard=r"\d{3}",


def tables(scale):
    """Return the files of every table at a scale, and the document that binds them."""
    return [
        *(
            f"results/{scale}/tables/{paper}/{name}.{kind}"
            for paper, name, _ in items(scale, "tables")
            for kind in ("csv", "md", "tex")
        ),
        f"results/{scale}/tables/tables.tex",
    ]


def figures(scale):
    """Return the files of every figure at a scale that is not made on request alone."""
    return figure_files(scale, lambda figure: not figure.get("on_request"))


def on_request(scale):
    """Return the files of the figures at a scale that are made on request alone."""
    return figure_files(scale, lambda figure: figure.get("on_request"))


def figure_files(scale, wanted):
    """Return the files of the figures at a scale that are wanted."""
    return [
        f"results/{scale}/figures/{paper}/{name}.{kind}"
        for paper, name, figure in items(scale, "figures")
        for kind in ("pdf", "png")
        if wanted(figure)
    ]


def claims(scale):
    """Return the files of every paper's claims at a scale."""
    return [
        f"results/{scale}/claims/{paper}.{kind}"
        for paper, _ in claim_registries(scale)
        for kind in ("json", "md")
    ]


def drawn_figures(scale):
    """Return the files of every figure at a scale that needs no weights."""
    free = {"method", "block_map", "adaptor_map", "pnp_caching", "level_map"}

    def drawn(figure):
        published = figure.get("kind") == "step_ticks" and not figure_answers(figure)
        return published or figure.get("kind") in free

    return figure_files(scale, drawn)
