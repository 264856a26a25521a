"""Search for the level that a translator needs, and for a level at each step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clockwork_experiments.config.parse import parse
from clockwork_experiments.search.levels import (
    PROBLEMS,
    Answer,
    Evaluations,
    LevelCosts,
    MultiSpec,
    Schedule,
    Threshold,
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


def load_model(
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
    pipe = translators.load_translator(
        chosen.task, translator, model, device, fidelity=chosen.fidelity
    )
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


def search(
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
