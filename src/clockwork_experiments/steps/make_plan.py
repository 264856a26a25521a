"""Plan for a budget on a few captions: full steps, predictor and time steps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clockwork_diffusion.plan import plan
from clockwork_diffusion.schedulers import new_scheduler
from clockwork_experiments.base import storage
from clockwork_experiments.benchmark.subject import TaskSpec, open_subject
from clockwork_experiments.generate.text import sampling_by
from clockwork_experiments.run import run


@dataclass(frozen=True)
class PlanSpec:
    """What to plan.

    Attributes:
        task: The task.
        budget: The share of the FLOPs that may be spent.
        steps: Number of sampling steps.
        most: Captions to plan on, at most.
        choose: What is chosen.
    """

    task: TaskSpec
    budget: float
    steps: int
    most: int
    choose: tuple[str, ...]


def make_plan(
    spec: PlanSpec,
    model: Path,
    output: Path,
    prompts: Path | None = None,
    set: Path | None = None,
) -> None:
    """Plan as `clockwork_diffusion.plan` does.

    Args:
        spec: What to plan.
        model: The model's folder.
        output: The plan, JSON.
        prompts: Prompts to plan on, for text-to-image.
        set: Prepared set of pairs to plan on, for other tasks.
    """
    task = spec.task
    opened = open_subject(task, model, prompts=prompts, pairs=set, most=spec.most)
    pipe, told = opened.given.pipe, opened.subject.planning()
    for key in ("prompts", "images"):
        if key in told:
            told[key] = told[key][: spec.most]
    solver = new_scheduler(task.scheduler, pipe.scheduler.config, spec.steps)
    with sampling_by(pipe, solver), storage.atomic_path(output) as partial:
        plan(
            pipe,
            told.pop("prompts"),
            steps=spec.steps,
            budget=spec.budget,
            choose=spec.choose,
            reference=task.reference,
            batch_size=task.batch_size,
            seed=task.seed,
            **told,
        ).save(partial)


if __name__ == "__main__":
    run(make_plan)
