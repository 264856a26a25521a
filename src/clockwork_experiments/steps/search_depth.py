"""Search for the level that a translator needs, and for a level at each step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.random.marks import mark
from clockwork_experiments.run import run
from clockwork_experiments.search import depth
from clockwork_experiments.search.levels import (
    Schedule,
    level_costs,
)

if TYPE_CHECKING:
    from clockwork_experiments.search.evaluator import (
        SamplingSchedule,
    )


def search_depth(
    spec: depth.DepthSearchSpec,
    translator: Path,
    set: Path,
    heldout: Path,
    clip: Path,
    levels: Path,
    state: Path,
    output: Path,
    model: Path | None = None,
    timing: Path | None = None,
    frechet: Path | None = None,
    frechet_kind: str | None = None,
) -> None:
    """Scan the levels, search schedules, and measure the answers on other pairs.

    Args:
        spec: What to search.
        translator: The model's folder.
        set: Prepared set to search on, JSON; its images beside it.
        heldout: Prepared set of other pairs, likewise.
        clip: Folder of the CLIP that scores.
        levels: Counts of the levels, JSON.
        state: Resumable state.
        output: JSON to write.
        model: Pipeline folder that a ControlNet controls.
        timing: Timings of the levels, JSON.
        frechet: The Fréchet distance's network.
        frechet_kind: Kind of that network.
    """
    counted = storage.read_json(storage.existing(levels))
    timed = storage.read_json(storage.existing(timing)) if timing is not None else None
    costs = level_costs(counted, timed)

    from clockwork_experiments.search import evaluator

    by_frechet = any(each.metric == "frechet" for each in spec.thresholds)
    if by_frechet and frechet is None:
        raise ValueError("a threshold of the Fréchet distance needs its network")
    judges = (clip, frechet if by_frechet else None, frechet_kind or "")
    loaded = depth.load_model(spec, translator, model, judges)
    chosen = loaded.spec

    def schedule(levels: Schedule) -> SamplingSchedule:
        return evaluator.SamplingSchedule(
            chosen.visited, levels, scheduler=chosen.scheduler
        )

    marks = [storage.sha256_folder(translator)]
    marks += [storage.sha256_folder(model)] if model is not None else []
    marks += [provenance.code_sha256("steps.search_depth")]
    full = schedule((loaded.full,) * chosen.steps)
    on = [
        evaluator.open_evaluator(
            loaded,
            path,
            full,
            state / name,
            marks,
            seed=spec.seed,
            batch_size=spec.batch_size,
        )
        for name, path in (("search", set), ("heldout", heldout))
    ]
    # What was measured stays: another threshold, or timing, needs none of it again.
    storage.write_json(
        output,
        {
            **mark([translator, model, clip, frechet]),
            **depth.search(spec, loaded, schedule, costs, *on),
            "versions": provenance.versions("torch", "diffusers", "torchmetrics"),
        },
    )


if __name__ == "__main__":
    run(search_depth)
