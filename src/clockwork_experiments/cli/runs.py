"""A run of one's own beside another, and the training of adaptors."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from clockwork_experiments.cli.adhoc import Adhoc, Asked, adhoc
from clockwork_experiments.cli.options import (
    Listed,
    Scale,
    ScaleOption,
    with_workflow,
)
from clockwork_experiments.cli.workflow import Workflow, make_with


@with_workflow()
def run(
    workflow: Workflow,
    backbone: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="The model: sd, efficient, distilled, … [default: the other run's]",
            show_default=False,
        ),
    ] = "",
    adaptor: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="What light steps run; a learned one is trained first.",
            show_default=False,
        ),
    ] = None,
    clock: Annotated[
        int | None,
        typer.Option(
            min=1, help="One full step in so many; the rest light.", show_default=False
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Sampling steps.", show_default=False)
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="dpmpp, dpm, pndm, ddim, heun, or a class of diffusers.",
            show_default=False,
        ),
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Scale of guidance.", show_default=False)
    ] = None,
    level: Annotated[
        int | None,
        typer.Option(
            min=1, max=13, help="Keep so many levels of the UNet.", show_default=False
        ),
    ] = None,
    adaptor_steps: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,…",
            help="The light steps themselves, from 1, instead of a clock.",
            show_default=False,
        ),
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(
            metavar="DIGITS",
            help="For each step 1 if it is full and 0 if light, instead of a clock.",
            show_default=False,
        ),
    ] = None,
    against: Annotated[
        str,
        typer.Option(
            metavar="RUN",
            help="The run to compare with; what it says holds for this one where "
            "nothing else is said. [default: the backbone's own]",
            show_default=False,
        ),
    ] = "",
    captions: Annotated[
        int,
        typer.Option(min=0, help="Only so many of its captions.", show_default=False),
    ] = 0,
    scale: ScaleOption = Scale.mini,
) -> None:
    """Put a run of your own beside another, and print the row.

    Both are sampled, scored and timed. The row has the metrics of Table 1, and the
    difference with its interval.

    Example: clockwork run --backbone sd --adaptor identity --clock 3 --steps 6
    --against sd
    """
    given: dict[str, Any] = {
        "adaptor": adaptor,
        "clock": clock,
        "steps": steps,
        "scheduler": scheduler,
        "guidance": guidance,
        "level": level,
        "adaptor_steps": None if adaptor_steps is None else _numbers(adaptor_steps),
        "mask": mask,
    }
    settings = {key: value for key, value in given.items() if value is not None}
    found = workflow.checkout
    asked = Asked(scale.value, backbone, against, settings, captions)
    made = adhoc(asked, found)
    dataclasses.replace(found, given=made.given).check()
    compare(workflow, made, scale.value)


def compare(workflow: Workflow, made: Adhoc, scale: str) -> None:
    """Make the table of a run and its baseline, and print it."""
    target = f"results/{scale}/compared/{made.name}.md"
    file = f"results/{scale}/adhoc/{made.name}.yaml"
    said = "to keep the run, copy its entry to config.yaml"
    make_with(workflow, [target], made.given, file, said)
    workflow.tell([target])


def _numbers(text: str) -> list[int]:
    try:
        return [int(each) for each in text.split(",")]
    except ValueError:
        raise ValueError(
            f"--adaptor-steps {text!r} is no list of whole numbers, such as 3,4,5,6"
        ) from None


@with_workflow()
def train(
    workflow: Workflow,
    adaptors: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ADAPTOR...", help="Ids of config.yaml.", show_default=False
        ),
    ] = None,
    scale: ScaleOption = Scale.mini,
    listed: Listed = False,
) -> None:
    """Train adaptors, and print their folders.

    The library loads an adaptor from its folder.

    Example: clockwork train sd_resnet
    """
    found = workflow.checkout
    known = found.entries(scale.value, "adaptors")
    if listed:
        typer.echo("\n".join(name for name, each in known.items() if "model" in each))
        return
    if not adaptors:
        raise ValueError("say which of the adaptors; --list lists them")
    for name in adaptors:
        if "model" not in found.entry(scale.value, "adaptors", name):
            raise ValueError(f"{name!r} has no weights: there is nothing to train")
    folders = [f"results/{scale.value}/adaptors/{name}" for name in adaptors]
    workflow.make([f"{each}/diffusion_pytorch_model.safetensors" for each in folders])
    workflow.tell(folders)


@with_workflow(without=("profile",))
def hub(
    workflow: Workflow,
    owner: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Whose repositories the cards name. [default: config.yaml's]",
            show_default=False,
        ),
    ] = "",
) -> None:
    """Make folders of the shipped models, to upload to a hub.

    Each has its card: licence, library, task, base model, what was measured. Nothing is
    uploaded.

    Example: clockwork hub --owner me
    """
    given = {"hub_owner": owner} if owner else {}
    said = "whose the repositories are"
    make_with(workflow, ["hub_folders"], given, "results/hub/owner.yaml", said)
    workflow.tell(["results/hub"])


COMMANDS = (run, train, hub)
"""The commands of this module."""
