"""A plan for a budget, for a pipeline of the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from clockwork_experiments.base import storage, texts


def plan(
    pipeline: Annotated[
        Path,
        typer.Argument(
            metavar="PIPELINE",
            help="Folder of a pipeline, or of a model in the hub's cache.",
        ),
    ],
    prompts: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A few prompts, a line each.", dir_okay=False
        ),
    ],
    steps: Annotated[int, typer.Option(min=2, help="Most sampling steps.")] = 8,
    budget: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of the FLOPs of as many full steps."),
    ] = 0.65,
    reference: Annotated[
        int, typer.Option(min=2, help="Steps of what is to be come near to.")
    ] = 50,
    guidance: Annotated[
        float | None,
        typer.Option(
            help="Scale of guidance. [default: the pipeline's]", show_default=False
        ),
    ] = None,
    precision: Annotated[str, typer.Option(help="float32, float16 or bfloat16.")] = (
        "float32"
    ),
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file.", dir_okay=False)
    ] = Path("plan.json"),
) -> None:
    """Plan steps, full ones, predictor and time steps for a budget.

    The plan is printed and written.
    `clockwork_diffusion.plan.Plan.load` reads the file, and applies it.

    Example: clockwork plan resources/mini/stable-diffusion prompts.txt
    """
    asked = [line.strip() for line in texts.read_lines(prompts) if line.strip()]
    if precision not in ("float32", "float16", "bfloat16"):
        raise ValueError(
            f"precision {precision!r} is not one of float32, float16, bfloat16"
        )
    # Seconds, which other commands and mistakes above must not take.
    import torch
    from diffusers import DiffusionPipeline

    from clockwork_diffusion.plan import plan as make_plan
    from clockwork_experiments.models import inspection

    folder = inspection.place_of(pipeline)
    storage.existing(folder / "model_index.json")
    inspection.inspect(folder)
    storage.check_weights(folder)
    try:
        pipe = DiffusionPipeline.from_pretrained(
            folder, dtype=getattr(torch, precision), local_files_only=True
        )
    except Exception as error:  # diffusers raises many kinds for what is missing
        raise ValueError(
            f"{folder} cannot be loaded: {inspection.one_line(error)}"
        ) from error
    pipe.to("cuda" if torch.cuda.is_available() else "cpu")
    given: dict[str, Any] = {} if guidance is None else {"guidance_scale": guidance}
    made = make_plan(
        pipe, asked, steps=steps, budget=budget, reference=reference, **given
    )
    made.save(output)
    typer.echo(str(made))


COMMANDS = (plan,)
"""The commands of this module."""
