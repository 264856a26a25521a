"""What the papers show: tables, figures, claims, all of it at once, a report."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from clockwork_experiments.cli import checkout
from clockwork_experiments.cli.options import (
    Listed,
    Scale,
    ScaleOption,
    with_workflow,
)
from clockwork_experiments.cli.workflow import Workflow, make_with
from clockwork_experiments.config.experiments import one_of

Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME...", help="<id>, or <paper>/<id>.", show_default=False
    ),
]


def listing(items: Mapping[str, Mapping[str, Any]]) -> str:
    """Return names with their titles, a line each, by paper."""
    width = max((len(name) for name in items), default=0)
    return "\n".join(
        f"{name:<{width}}  {item['title']}" for name, item in items.items()
    )


def item_targets(
    found: checkout.Checkout, scale: str, kind: str, suffix: str, names: list[str]
) -> list[str]:
    """Return the files of tables or figures.

    Raises:
        ValueError: If a name means none, or two.
    """
    known = found.items(scale, kind)
    chosen = [
        checkout.chosen_item(name, known, f"{kind} of {scale} scale") for name in names
    ]
    return [f"results/{scale}/{kind}/{name}{suffix}" for name in chosen]


def show_items(
    workflow: Workflow,
    kind: str,
    suffix: str,
    scale: Scale,
    names: list[str] | None,
    listed: bool,
) -> None:
    """List tables or figures, or make some and tell where they are."""
    if listed:
        typer.echo(listing(workflow.checkout.items(scale.value, kind)))
        return
    if not names:
        raise ValueError(f"say which of the {kind}; --list lists them")
    targets = item_targets(workflow.checkout, scale.value, kind, suffix, names)
    workflow.make(targets)
    workflow.tell(targets)


@with_workflow()
def table(
    workflow: Workflow,
    names: Names = None,
    scale: ScaleOption = Scale.mini,
    listed: Listed = False,
) -> None:
    """Set tables of the papers, and print them as Markdown.

    CSV, LaTeX and HTML lie beside the printed path.

    Example: clockwork table table_1
    """
    show_items(workflow, "tables", ".md", scale, names, listed)


@with_workflow()
def figure(
    workflow: Workflow,
    names: Names = None,
    scale: ScaleOption = Scale.mini,
    listed: Listed = False,
) -> None:
    """Draw figures of the papers, and print where they are.

    A PDF lies beside the printed PNG.

    Example: clockwork figure figure_1
    """
    show_items(workflow, "figures", ".png", scale, names, listed)


@with_workflow()
def claims(
    workflow: Workflow,
    papers: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PAPER...]", help="By default all.", show_default=False
        ),
    ] = None,
    scale: ScaleOption = Scale.mini,
) -> None:
    """Test what the papers claim, and print the verdicts.

    Example: clockwork claims clockwork
    """
    found = workflow.checkout
    known = [
        paper for paper, said in found.papers.items() if scale in said.get("claims", {})
    ]
    for paper in papers or ():
        if paper not in known:
            raise ValueError(one_of(paper, known, f"papers at {scale.value} scale"))
    targets = [f"results/{scale.value}/claims/{name}.md" for name in papers or known]
    workflow.make(targets)
    workflow.tell(targets)


@with_workflow(without=("profile",))
def mini(workflow: Workflow) -> None:
    """Make all that a laptop can work out, as `make` does.

    That is every table, figure and claim at mini scale, and of paper scale what needs
    no weights.

    Example: clockwork mini --dry-run
    """
    workflow.make([])
    workflow.tell([f"results/{scale}" for scale in ("mini", "paper")])


PILOT_SETTINGS = "results/pilot/captions.yaml"
"""Where the settings are kept of a pilot on one's own captions."""


@with_workflow()
def pilot(
    workflow: Workflow,
    captions: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Your captions, not COCO's: a text file, or a folder with images.",
            show_default=False,
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            min=3, help="How many of them. [default: 500]", show_default=False
        ),
    ] = None,
) -> None:
    """Make Table 1 of Stable Diffusion, training nothing.

    Plain steps, the identity, extrapolation and DeepCache's branches, on few captions.
    A dry run says what it costs: hours, memory, disk.

    Example: clockwork pilot --count 100 --dry-run
    """
    target = "results/pilot/tables/clockwork/table_1.md"
    given = own_pilot(workflow.checkout, captions, count)
    make_with(workflow, ["pilot"], given, PILOT_SETTINGS, "settings of the last pilot")
    workflow.tell([target])


def own_pilot(
    found: checkout.Checkout, captions: Path | None, count: int | None
) -> dict[str, Any]:
    """Return what to lay over the configuration for one's own captions, or fewer.

    Raises:
        ValueError: If there are too few of them.
    """
    if captions is None:
        if count is None:
            return {}
        name = found.entry("pilot", "runs", "sd")["dataset"]
        return {"pilot": {"datasets": {name: {"count": count}}}}
    from clockwork_experiments.data.captions import check, read

    path = captions.expanduser().resolve()
    there = len(read(path).captions)
    wanted = count or min(there, 500)
    check(path, max(wanted, 3))
    with contextlib.suppress(ValueError):
        path = path.relative_to(found.root)
    own: dict[str, Any] = {"path": str(path), "count": wanted, "size": 512, "shards": 1}
    runs: dict[str, Any] = {
        name: {"dataset": "own"} for name in found.entries("pilot", "runs")
    }
    if not read(captions.expanduser()).images:
        own["sampled"] = "sd_other_noise"
        runs["sd_other_noise"] = {"like": "sd", "dataset": "own", "seed": 1}
    return {"pilot": {"datasets": {"own": own}, "runs": runs}}


@with_workflow(without=("cores", "dry_run", "profile"))
def report(
    workflow: Workflow,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file.", dir_okay=False)
    ] = Path("results/report.html"),
) -> None:
    """Write one HTML file of all results that there are.

    Runs nothing: what has not been made is listed on its first page.

    Example: clockwork report
    """
    target = str(output)
    # Without its folder Snakemake ends in a traceback.
    (workflow.checkout.root / output).parent.mkdir(parents=True, exist_ok=True)
    workflow.report(target)
    workflow.tell([target])


COMMANDS = (table, figure, claims, mini, pilot, report)
"""The commands of this module."""
