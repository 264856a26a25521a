"""Search for the level that a translator needs, and for a level at each step."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.random.marks import mark
from clockwork_experiments.run import new_parser, run
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
    from clockwork_experiments.search.evaluator import Bench, Plan


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


def main(args: Namespace) -> None:
    """Scan the levels, search schedules, and measure the answers on other pairs."""
    spec = parse(DepthSearchSpec, args.spec)
    counted = storage.read_json(storage.existing(args.levels))
    timed = None
    if args.timing is not None:
        timed = storage.read_json(storage.existing(args.timing))
    costs = level_costs(counted, timed)

    from clockwork_experiments.generate import translate, translators
    from clockwork_experiments.models import encoders, loading
    from clockwork_experiments.search import evaluator

    chosen = parse(translate.TranslationSpec, spec.translation, "spec.translation")
    device = loading.default_device()
    translator = translators.load_translator(
        chosen.task, args.translator, args.model, device
    )
    clip = encoders.load_clip(args.clip, device)
    frechet = None
    if any(each.metric == "frechet" for each in spec.thresholds):
        if args.frechet is None:
            raise ValueError("a threshold of the Fréchet distance needs its network")
        frechet = encoders.load_frechet(args.frechet_kind, args.frechet, device)
    model = evaluator.Model(translator, chosen, clip, frechet)
    if chosen.clock != 1:
        raise ValueError(f"clock {chosen.clock}: levels are searched without")
    if spec.levels[:1] != (model.full,):
        raise ValueError(
            f"levels {list(spec.levels)} do not start at the full model's, {model.full}"
        )

    def plan(levels: Schedule) -> Plan:
        return evaluator.Plan(chosen.visited, levels, scheduler=chosen.scheduler)

    full = plan((model.full,) * chosen.steps)
    marks = [storage.sha256_folder(args.translator)]
    marks += [storage.sha256_folder(args.model)] if args.model is not None else []
    marks += [provenance.code_sha256("steps.search_depth")]

    searched, heldout = (
        evaluator.open_bench(
            model,
            path,
            full,
            args.state / name,
            marks,
            seed=spec.seed,
            batch_size=spec.batch_size,
        )
        for name, path in (("search", args.set), ("heldout", args.heldout))
    )
    evaluate = Evaluations(lambda levels: searched(plan(levels)))
    found = scan(evaluate, spec.thresholds, spec.levels, chosen.steps)
    evaluations = {"scan": len(evaluate)}
    held = plan((found.chosen,) * chosen.steps)
    report: dict[str, Any] = {
        **mark([args.translator, args.model, args.clip, args.frechet]),
        "task": chosen.task,
        "steps": chosen.steps,
        "pairs": {"search": len(searched), "heldout": len(heldout)},
        "scan": [
            {
                "level": level,
                "time": 100 * costs.macs[level] / costs.macs[costs.full],
                "parameters": 100 * costs.parameters[level],
                "metrics": found.metrics[level],
                "scores": searched.scores(plan((level,) * chosen.steps)),
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
        multi = search_levels(
            evaluate, spec.multi, chosen.steps, model.full, costs.macs
        )
        evaluations |= multi.evaluations
        report["multi"] = {
            "groups": multi.sizes,
            "changes": multi.changes,
            "joint": multi.joint,
            "heldout_full": heldout(full),
            "rows": [
                _row(each, costs, plan, searched, heldout) for each in multi.answers
            ],
        }
    report["evaluations"] = {**evaluations, "heldout": heldout.count}
    report["encoders"] = {
        name: {"sha256": each.sha256, "preprocessing": each.preprocessing}
        for name, each in (("clip", clip), ("frechet", frechet))
        if each is not None
    }
    report["versions"] = provenance.versions("torch", "diffusers", "torchmetrics")
    # What was measured stays: another threshold, or timing, needs none of it again.
    storage.write_json(args.output, report)


def _row(
    answer: Answer,
    costs: LevelCosts,
    plan: Callable[[Schedule], Plan],
    searched: Bench,
    heldout: Bench,
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
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="DepthSearchSpec as JSON")
    for name, what in (
        ("--translator", "the model's folder"),
        ("--set", "prepared set to search on, JSON; its images beside it"),
        ("--heldout", "prepared set of other pairs, likewise"),
        ("--clip", "open_clip folder"),
        ("--levels", "counts of the levels, JSON"),
    ):
        parser.add_argument(name, required=True, type=Path, help=what)
    parser.add_argument(
        "--model", type=Path, help="pipeline folder that a ControlNet controls"
    )
    parser.add_argument("--timing", type=Path, help="timings of the levels, JSON")
    parser.add_argument("--frechet", type=Path, help="the Fréchet distance's network")
    parser.add_argument("--frechet-kind", help="kind of that network")
    parser.add_argument("--state", required=True, type=Path, help="resumable state")
    parser.add_argument("--output", required=True, type=Path, help="JSON to write")
    run(parser, main)
