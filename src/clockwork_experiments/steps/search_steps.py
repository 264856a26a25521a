"""Search for the time steps of a translator, and measure them on other pairs."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from clockwork_diffusion.timesteps import gamma_timesteps
from clockwork_experiments.base import provenance, storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.random.marks import mark
from clockwork_experiments.run import new_parser, run
from clockwork_experiments.search.evolution import Candidate, EvolutionSpec, evolve
from clockwork_experiments.search.gamma import (
    Timesteps,
    Trial,
    bracketed_search,
    ending_search,
    greedy_search,
)

if TYPE_CHECKING:
    from clockwork_experiments.search.evaluator import Bench, Plan

UNIFORM, GREEDY, BRACKETED, ENDING = "uniform", "greedy", "bracketed", "ending"
FITNESSES = {"evolution_psnr": "psnr_to_teacher", "evolution_frechet": "frechet"}
"""Metric that AutoDiffusion goes by, by method."""

METHODS = (GREEDY, BRACKETED, ENDING, *FITNESSES)
"""What can be asked for; evenly spaced steps are always there."""


@dataclass(frozen=True)
class StepSearchSpec:
    """What to search, and with which settings.

    Attributes:
        translation: A `generate.translate.TranslationSpec`, as plain data;
            its ``steps`` are those of the reference, evenly spaced.
        seed: Of the noise.
        batch_size: Pairs per batch; has no influence on the images.
        steps: Numbers of steps n.
        methods: Members of `METHODS`, and for which n; with ``evolution`` alone a
            method is AutoDiffusion's.
        direction: Of the greedy search: 1 towards γ > 1, -1 towards γ < 1.
        most: Evaluations of a search for γ, at most; the bracketed one takes no more
            than the greedy one took, where both are asked for.
        evolution: AutoDiffusion's budget.
        level: The deepest level of the UNet to keep (depth-skip); all if left out.
        cut: Where the UNet is split, with a clock.
        kind: Kind of an adaptor without weights, with a clock.
        whole_reference: Compare with what the whole UNet makes, and not with what it
            makes at that level.
    """

    translation: dict[str, object]
    seed: int
    batch_size: int
    steps: tuple[int, ...]
    methods: dict[str, tuple[int, ...]]
    direction: int = -1
    most: int = 30
    evolution: EvolutionSpec = field(default_factory=EvolutionSpec)
    level: int | None = None
    cut: str = "stage1"
    kind: str = ""
    whole_reference: bool = False

    def __post_init__(self) -> None:
        """Reject methods that there are not, and steps that are nobody's."""
        if self.batch_size < 1:
            raise ValueError(f"batch_size {self.batch_size} is less than 1")
        if not self.steps or list(self.steps) != sorted(set(self.steps)):
            raise ValueError(f"steps {list(self.steps)} are none, or do not ascend")
        for steps in self.steps:
            gamma_timesteps(steps, 1.0)
        for name, asked in self.methods.items():
            if name not in METHODS:
                raise ValueError(f"method {name!r} is not one of {', '.join(METHODS)}")
            for steps in asked:
                if steps not in self.steps:
                    listed = ", ".join(map(str, self.steps))
                    raise ValueError(
                        f"{steps} steps of method {name!r} are not one of {listed}"
                    )


def main(args: Namespace) -> None:
    """Search for every n by every method, then measure all answers on other pairs."""
    spec = parse(StepSearchSpec, args.spec)
    others = {
        f"from_{path.stem}": storage.read_json(storage.existing(path))
        for path in args.also
    }

    from clockwork_diffusion.timesteps import uniform_timesteps
    from clockwork_experiments.generate import runs, translate, translators
    from clockwork_experiments.models import encoders, loading, perceptual
    from clockwork_experiments.search import evaluator

    chosen = parse(translate.TranslationSpec, spec.translation, "spec.translation")
    device = loading.default_device()
    translator = translators.load_translator(
        chosen.task, args.translator, args.model, device
    )
    clip = encoders.load_clip(args.clip, device)
    frechet = lpips = None
    if args.frechet is not None:
        frechet = encoders.load_frechet(args.frechet_kind, args.frechet, device)
    if args.lpips is not None:
        lpips = perceptual.load_perceptual(args.lpips_kind, args.lpips, device)
    if "evolution_frechet" in spec.methods and frechet is None:
        raise ValueError("AutoDiffusion by the Fréchet distance needs its network")
    adaptor = None
    if spec.kind:
        adaptor = runs.load_passes(
            translator.pipe,
            args.translator,
            spec.cut,
            scheduler=chosen.scheduler,
            steps=None,
            kind=spec.kind,
        ).passes.adaptor
    going_by = frechet if "evolution_frechet" in spec.methods else None
    model = evaluator.Model(translator, chosen, clip, going_by, adaptor)

    def plan(timesteps: Timesteps) -> Plan:
        levels = () if spec.level is None else (spec.level,) * len(timesteps)
        return evaluator.Plan(
            timesteps,
            levels,
            chosen.clock,
            chosen.scheduler,
            f"{spec.kind}-{spec.cut}" if spec.kind else "",
        )

    reference = replace(
        plan(uniform_timesteps(chosen.steps)),
        clock=1,
        scheduler="ddim",
        adaptor="",
    )
    if spec.whole_reference:
        reference = replace(reference, levels=())
    marks = [storage.sha256_folder(args.translator)]
    marks += [storage.sha256_folder(args.model)] if args.model is not None else []
    marks += [provenance.code_sha256("steps.search_steps")]

    def bench(name: str, path: Path, judging: evaluator.Model) -> Bench:
        return evaluator.open_bench(
            judging,
            path,
            reference,
            args.state / name,
            marks,
            seed=spec.seed,
            batch_size=spec.batch_size,
            # As published: one noise for all that is searched on.
            shared_noise=name == "search",
            references=args.references,
        )

    searched = bench("search", args.set, model)
    judging = replace(model, frechet=frechet, lpips=lpips)
    heldout = None
    if args.heldout is not None:
        heldout = bench("heldout", args.heldout, judging)
    evolving = searched
    if args.evolution_set is not None:
        evolving = bench("evolution", args.evolution_set, model)
    entries: list[dict[str, Any]] = []
    for steps in spec.steps:
        found = _search(
            spec,
            steps,
            lambda timesteps: searched(plan(timesteps)),
            lambda timesteps: evolving(plan(timesteps)),
        )
        for name, report in others.items():
            found |= _taken_over(name, report, steps)
        uniform = plan(gamma_timesteps(steps, 1.0))
        for method, entry in found.items():
            own = plan(tuple(entry["timesteps"]))
            asked = [plan(tuple(trial["timesteps"])) for trial in entry["trials"]]
            seeing = evolving if method in FITNESSES else searched
            calls = len(asked) * steps * len(seeing) * chosen.branches
            entries.append(
                {
                    "steps": steps,
                    "method": method,
                    **entry,
                    "evaluations": len(asked),
                    "unet_calls": calls,
                    "seconds": sum(seeing.seconds(each) for each in asked),
                    "search": seeing.scores(own),
                    "heldout": _judged(
                        heldout, own, None if method == UNIFORM else uniform
                    ),
                }
            )
    scoring = (("clip", clip), ("frechet", frechet), ("lpips", lpips))
    storage.write_json(
        args.output,
        {
            **mark([args.translator, args.model, args.clip, args.frechet, args.lpips]),
            "task": chosen.task,
            "reference": chosen.steps,
            "scheduler": chosen.scheduler,
            "level": spec.level,
            "clock": chosen.clock,
            "guidance": chosen.guidance,
            "image_guidance": chosen.image_guidance,
            "pairs": {
                "search": len(searched),
                "evolution": len(evolving),
                "heldout": len(heldout) if heldout is not None else 0,
            },
            "references": {
                "unet_calls": chosen.steps * len(searched) * chosen.branches,
                "seconds": searched.seconds(reference),
                "heldout": _judged(heldout, reference),
            },
            "searches": entries,
            "encoders": {
                name: {"sha256": each.sha256, "preprocessing": each.preprocessing}
                for name, each in scoring
                if each is not None
            },
            "versions": provenance.versions("torch", "diffusers", "torchmetrics"),
        },
    )


def _judged(
    heldout: Bench | None, own: Plan, uniform: Plan | None = None
) -> dict[str, Any]:
    """Return what time steps are worth on other pairs; nothing if none are held out."""
    if heldout is None:
        return {"scores": {}, "pairs": {}, "frechet": None}
    judged = {
        "scores": heldout.scores(own),
        "frechet": heldout(own).get("frechet"),
        "pairs": heldout.pairs(own),
    }
    if uniform is not None:
        judged["minus_uniform"] = heldout.differences(own, uniform)
    return judged


def _search(
    spec: StepSearchSpec,
    steps: int,
    measure: Callable[[Timesteps], dict[str, float]],
    evolving: Callable[[Timesteps], dict[str, float]],
) -> dict[str, dict[str, Any]]:
    """Return what each method finds for n steps, and how it got there."""

    def quality(timesteps: Timesteps) -> float:
        return measure(timesteps)["psnr_to_teacher"]

    even = gamma_timesteps(steps, 1.0)
    uniform = Trial(1.0, even, quality(even))
    found = {UNIFORM: {**_plain(uniform), "trials": [_plain(uniform)]}}
    asked = [name for name in METHODS if steps in spec.methods.get(name, ())]
    most = spec.most
    for name in asked:
        if name in FITNESSES:
            found[name] = _evolve(spec.evolution, steps, name, evolving)
            continue
        budget = spec.most if name == ENDING else most
        with tqdm(total=budget, desc=f"{name}, {steps} steps", disable=None) as bar:

            def tell(trial: Trial, remaining: int, bar: tqdm[Any] = bar) -> None:
                bar.set_postfix(
                    gamma=f"{trial.gamma:.3f}",
                    PSNR=f"{trial.quality:.2f}",
                    remaining=remaining,
                )
                bar.update()

            if name == GREEDY:
                result = greedy_search(
                    quality, steps, spec.direction, most=budget, on_trial=tell
                )
                most = len(result.trials)
            elif name == BRACKETED:
                result = bracketed_search(quality, steps, most=budget, on_trial=tell)
            else:
                result = ending_search(quality, steps, most=budget, on_trial=tell)
        trials = [_plain(trial) for trial in result.trials]
        found[name] = {**_plain(result.best), "trials": trials}
    return found


def _evolve(
    spec: EvolutionSpec,
    steps: int,
    name: str,
    measure: Callable[[Timesteps], dict[str, float]],
) -> dict[str, Any]:
    """Return what AutoDiffusion finds; less is better of a Fréchet distance."""
    metric = FITNESSES[name]
    sign = -1 if metric == "frechet" else 1
    with tqdm(desc=f"{name}, {steps} steps", disable=None) as bar:

        def tell(candidate: Candidate, generation: int) -> None:
            bar.set_postfix(generation=generation, quality=f"{candidate.quality:.2f}")
            bar.update()

        result = evolve(
            lambda timesteps: sign * measure(timesteps)[metric], steps, spec, tell
        )
    trials = [_plain(each) for many in result.generations for each in many]
    return {**_plain(result.best), "trials": trials}


def _plain(trial: Trial | Candidate) -> dict[str, Any]:
    """Return a trial as plain data; only searches for γ alone have a γ."""
    plain = {"timesteps": trial.timesteps, "quality": trial.quality}
    if not isinstance(trial, Trial):
        return {"gamma": None, **plain}
    if trial.end is not None:
        return {"gamma": None, "exponent": trial.gamma, "end": trial.end, **plain}
    return {"gamma": trial.gamma, **plain}


def _taken_over(
    name: str, report: dict[str, Any], steps: int
) -> dict[str, dict[str, Any]]:
    """Return the steps that another search found, the best γ of its searches."""
    found = [
        entry
        for entry in report["searches"]
        if entry["steps"] == steps and entry["method"] in (GREEDY, BRACKETED)
    ]
    if not found:
        return {}
    best = max(found, key=lambda entry: float(entry["quality"]))
    kept = {key: best[key] for key in ("gamma", "timesteps")}
    return {name: {**kept, "quality": None, "trials": []}}


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="StepSearchSpec as JSON")
    for option, what in (
        ("--translator", "the model's folder"),
        ("--set", "prepared set to search on, JSON; its images beside it"),
        ("--clip", "open_clip folder"),
    ):
        parser.add_argument(option, required=True, type=Path, help=what)
    parser.add_argument(
        "--model", type=Path, help="pipeline folder that a ControlNet controls"
    )
    parser.add_argument(
        "--heldout",
        type=Path,
        help="prepared set of other pairs; without, the answers are not judged",
    )
    parser.add_argument(
        "--evolution-set",
        type=Path,
        help="prepared set that AutoDiffusion goes by, if another",
    )
    parser.add_argument("--frechet", type=Path, help="the Fréchet distance's network")
    parser.add_argument("--frechet-kind", help="kind of that network")
    parser.add_argument("--lpips", type=Path, help="LPIPS's network")
    parser.add_argument("--lpips-kind", help="kind of that network")
    parser.add_argument(
        "--also",
        default=[],
        nargs="*",
        type=Path,
        help="results of other searches, whose time steps are measured, too",
    )
    parser.add_argument("--state", required=True, type=Path, help="resumable state")
    parser.add_argument(
        "--references",
        type=Path,
        help="folder of references' images, which searches of one model share",
    )
    parser.add_argument("--output", required=True, type=Path, help="JSON to write")
    run(parser, main)
