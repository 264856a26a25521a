"""Search for the level that a translator needs, and for a level at each step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.random.marks import mark
from clockwork_experiments.run import run
from clockwork_experiments.search.levels import (
    PROBLEMS,
    Answer,
    Evaluations,
    LevelCosts,
    MultiSpec,
    Schedule,
    Threshold,
    level_costs,
    scan,
    search_levels,
)

if TYPE_CHECKING:
    from clockwork_experiments.search.evaluator import (
        Evaluator,
        Model,
        SamplingSchedule,
    )


@dataclass(frozen=True)
class DepthSearchSpec:
    """What to search, and with which settings.

    Attributes:
        translation: A `generate.translate.TranslationSpec`, as plain data.
        seed: Pair *i* starts from the same noise with every schedule.
        batch_size: Pairs per batch; has no influence on the images.
        levels: The levels to scan, from the full model's upwards.
        thresholds: What the chosen level keeps to.
        multi: How to search for a level for each step; not at all if left out.
    """

    translation: dict[str, object]
    seed: int
    batch_size: int
    levels: tuple[int, ...]
    thresholds: tuple[Threshold, ...]
    multi: MultiSpec | None = None

    def __post_init__(self) -> None:
        """Reject batches of nothing."""
        if self.batch_size < 1:
            raise ValueError(f"batch_size {self.batch_size} is less than 1")


def search_depth(
    spec: DepthSearchSpec,
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
    loaded = _load(spec, translator, model, judges)
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
            **_report(spec, loaded, schedule, costs, *on),
            "versions": provenance.versions("torch", "diffusers", "torchmetrics"),
        },
    )


def _load(
    spec: DepthSearchSpec,
    translator: Path,
    model: Path | None,
    judges: tuple[Path, Path | None, str],
) -> Model:
    """Load what translates and scores.

    Raises:
        ValueError: If the levels do not start at the full model's, or with a clock.
    """
    from clockwork_experiments.generate import translate, translators
    from clockwork_experiments.models import encoders, loading
    from clockwork_experiments.search import evaluator

    chosen = parse(translate.TranslationSpec, spec.translation, "spec.translation")
    if chosen.clock != 1:
        raise ValueError(f"clock {chosen.clock}: levels are searched without")
    device = loading.default_device()
    pipe = translators.load_translator(chosen.task, translator, model, device)
    clip, frechet, kind = judges
    network = None
    if frechet is not None:
        network = encoders.load_frechet(kind, frechet, device)
    loaded = evaluator.Model(pipe, chosen, encoders.load_clip(clip, device), network)
    if spec.levels[:1] != (loaded.full,):
        raise ValueError(
            f"levels {list(spec.levels)} do not start at the full model's, "
            f"{loaded.full}"
        )
    return loaded


def _report(
    spec: DepthSearchSpec,
    model: Model,
    schedule: Callable[[Schedule], SamplingSchedule],
    costs: LevelCosts,
    searched: Evaluator,
    heldout: Evaluator,
) -> dict[str, Any]:
    """Search, and return all that was found."""
    steps = model.spec.steps
    full = schedule((model.full,) * steps)
    evaluate = Evaluations(lambda levels: searched(schedule(levels)))
    found = scan(evaluate, spec.thresholds, spec.levels, steps)
    evaluations = {"scan": len(evaluate)}
    held = schedule((found.chosen,) * steps)
    report: dict[str, Any] = {
        "task": model.spec.task,
        "steps": steps,
        "pairs": {"search": len(searched), "heldout": len(heldout)},
        "scan": [
            {
                "level": level,
                "time": 100 * costs.macs[level] / costs.macs[costs.full],
                "parameters": 100 * costs.parameters[level],
                "metrics": found.metrics[level],
                "scores": searched.scores(schedule((level,) * steps)),
                "broken": found.broken[level],
            }
            for level in found.metrics
        ],
        "limits": found.limits,
        "chosen": found.chosen,
        "heldout": {
            "metrics": heldout(held),
            "scores": heldout.scores(held),
            "minus_full": heldout.differences(held, full),
        },
    }
    if spec.multi is not None:
        multi = search_levels(evaluate, spec.multi, steps, model.full, costs.macs)
        evaluations |= multi.evaluations
        report["multi"] = {
            "groups": multi.sizes,
            "changes": multi.changes,
            "joint": multi.joint,
            "heldout_full": heldout(full),
            "rows": [
                _row(each, costs, schedule, searched, heldout) for each in multi.answers
            ],
        }
    report["evaluations"] = {**evaluations, "heldout": heldout.count}
    report["encoders"] = {
        name: {"sha256": each.sha256, "preprocessing": each.preprocessing}
        for name, each in (("clip", model.clip), ("frechet", model.frechet))
        if each is not None
    }
    return report


def _row(
    answer: Answer,
    costs: LevelCosts,
    plan: Callable[[Schedule], SamplingSchedule],
    searched: Evaluator,
    heldout: Evaluator,
) -> dict[str, Any]:
    """Return a row of Table S6: what differs from the row, and from the best level."""
    steps = len(answer.schedule)
    schedule = plan(answer.schedule)
    single = plan((answer.row,) * steps)
    best_single = plan((answer.best_single,) * steps)
    return {
        **answer.to_json(),
        "title": PROBLEMS[answer.problem].title,
        "improved": schedule != single,
        "savings": costs.savings(answer.schedule, answer.row),
        "search": searched.differences(schedule, single),
        "heldout": heldout.differences(schedule, single),
        "beyond_best_single": {
            "savings": costs.savings(answer.schedule, answer.best_single),
            "search": searched.differences(schedule, best_single),
            "heldout": heldout.differences(schedule, best_single),
            "heldout_pairs": heldout.gaps(schedule, best_single),
        },
    }


if __name__ == "__main__":
    run(search_depth)
