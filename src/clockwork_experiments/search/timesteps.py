"""Search for a translator's time steps by several methods, and judge the answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from clockwork_diffusion.timesteps import gamma_timesteps, uniform_timesteps
from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.generate import runs, translators
from clockwork_experiments.generate.translate import TranslationSpec
from clockwork_experiments.models import encoders, loading, perceptual
from clockwork_experiments.search.evaluator import (
    TO_REFERENCE,
    Evaluator,
    Model,
    SamplingSchedule,
    open_evaluator,
)
from clockwork_experiments.search.gamma import Timesteps, Trial
from clockwork_experiments.search.methods import (
    METHODS,
    UNIFORM,
    Bracketed,
    Greedy,
    Method,
    StepSearchSpec,
    asked,
    find,
    plain,
)


@dataclass(frozen=True)
class Networks:
    """Folders of the networks that score, the first of them CLIP's.

    Attributes:
        clip: CLIP's.
        frechet: The Fréchet distance's, if it is to be measured.
        frechet_kind: Its kind.
        lpips: LPIPS's, likewise.
        lpips_kind: Its kind.
    """

    clip: Path
    frechet: Path | None = None
    frechet_kind: str | None = None
    lpips: Path | None = None
    lpips_kind: str | None = None


@dataclass(frozen=True)
class Models:
    """What translates and scores, while searching and while judging."""

    searching: Model
    judging: Model


def load_models(
    spec: StepSearchSpec, translator: Path, model: Path | None, networks: Networks
) -> Models:
    """Load what translates and scores.

    Raises:
        ValueError: If a method goes by the Fréchet distance without its network.
    """
    chosen = parse(TranslationSpec, spec.translation, "spec.translation")
    device = loading.default_device()
    loaded = translators.load_translator(
        chosen.task, translator, model, device, fidelity=chosen.fidelity
    )
    clip = encoders.load_clip(networks.clip, device)
    frechet = lpips = None
    if networks.frechet is not None:
        kind = networks.frechet_kind or ""
        frechet = encoders.load_frechet(kind, networks.frechet, device)
    if networks.lpips is not None:
        kind = networks.lpips_kind or ""
        lpips = perceptual.load_perceptual(kind, networks.lpips, device)
    by_frechet = any(find(name).frechet for name in spec.methods)
    if by_frechet and frechet is None:
        raise ValueError("AutoDiffusion by the Fréchet distance needs its network")
    adaptor = None
    if spec.kind:
        adaptor = runs.load_passes(
            loaded.pipe,
            translator,
            spec.cut,
            scheduler=chosen.scheduler,
            steps=None,
            kind=spec.kind,
        ).passes.adaptor
    fitness = frechet if by_frechet else None
    searching = Model(loaded, chosen, clip, fitness, adaptor)
    return Models(searching, replace(searching, frechet=frechet, lpips=lpips))


@dataclass(frozen=True)
class Evaluators:
    """What time steps are searched and judged on.

    Attributes:
        search: Pairs that are searched on.
        evolution: Pairs that AutoDiffusion goes by.
        validation: Other pairs, on which answers are judged; None if none are.
    """

    search: Evaluator
    evolution: Evaluator
    validation: Evaluator | None


def schedule_of(
    spec: StepSearchSpec, chosen: TranslationSpec
) -> Callable[[Timesteps], SamplingSchedule]:
    """Return what makes a sampling schedule of time steps, with clock and level."""

    def schedule(timesteps: Timesteps) -> SamplingSchedule:
        levels = () if spec.level is None else (spec.level,) * len(timesteps)
        adaptor = f"{spec.kind}-{spec.cut}" if spec.kind else ""
        return SamplingSchedule(
            timesteps, levels, chosen.clock, chosen.scheduler, adaptor
        )

    return schedule


def reference_of(spec: StepSearchSpec, chosen: TranslationSpec) -> SamplingSchedule:
    """Return the schedule that others are compared with: many even steps, in full."""
    even = schedule_of(spec, chosen)(uniform_timesteps(chosen.steps))
    reference = replace(even, clock=1, scheduler="ddim", adaptor="")
    return replace(reference, levels=()) if spec.whole_reference else reference


def open_evaluators(
    spec: StepSearchSpec,
    models: Models,
    sets: Mapping[str, Path | None],
    state: Path,
    marks: Sequence[str],
    references: Path | None,
) -> Evaluators:
    """Open the sets of pairs; AutoDiffusion's is that of all searches if left out.

    Args:
        spec: What to search.
        models: What translates and scores.
        sets: ``search``, and if there are such ``evolution`` and ``validation``.
        state: Folder of what was measured.
        marks: Checksums of models and code.
        references: Folder of references' images.
    """
    reference = reference_of(spec, models.searching.spec)

    def opened(name: str, folder: str) -> Evaluator | None:
        path = sets[name]
        if path is None:
            return None
        return open_evaluator(
            models.judging if name == "validation" else models.searching,
            path,
            reference,
            state / folder,
            marks,
            seed=spec.seed,
            batch_size=spec.batch_size,
            # As published: one noise for all that is searched on.
            shared_noise=name == "search",
            references=references,
        )

    searched = opened("search", "search")
    assert searched is not None
    validation = opened("validation", "heldout")
    return Evaluators(
        searched, opened("evolution", "evolution") or searched, validation
    )


def search_all(
    spec: StepSearchSpec,
    chosen: TranslationSpec,
    on: Evaluators,
    others: Mapping[str, Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Search for every number of steps by every method, and judge all answers.

    Args:
        spec: What to search.
        chosen: How the model translates.
        on: What to search and judge on.
        others: Results of other searches, whose time steps are judged, too, by name.
    """
    schedule = schedule_of(spec, chosen)
    entries = []
    for steps in spec.steps:
        found = search(spec, steps, on, schedule)
        for name, report in others.items():
            found |= taken_over(name, report, steps)
        uniform = schedule(gamma_timesteps(steps, 1.0))
        for name, answer in found.items():
            own = schedule(tuple(answer["timesteps"]))
            tried = [schedule(tuple(trial["timesteps"])) for trial in answer["trials"]]
            seeing = on.evolution if _evolves(name) else on.search
            calls = len(tried) * steps * len(seeing) * chosen.branches
            entries.append(
                {
                    "steps": steps,
                    "method": name,
                    **answer,
                    "evaluations": len(tried),
                    "unet_calls": calls,
                    "seconds": sum(seeing.seconds(each) for each in tried),
                    "search": seeing.scores(own),
                    "heldout": judged(
                        on.validation, own, None if name == UNIFORM else uniform
                    ),
                }
            )
    return entries


def search(
    spec: StepSearchSpec,
    steps: int,
    on: Evaluators,
    schedule: Callable[[Timesteps], SamplingSchedule],
) -> dict[str, dict[str, Any]]:
    """Return what each method finds for n steps, and how it got there."""
    even = gamma_timesteps(steps, 1.0)
    quality = on.search(schedule(even))["psnr_to_teacher"]
    uniform = plain(Trial(1.0, even, quality))
    found = {UNIFORM: {**uniform, "trials": [uniform]}}
    for name, method in asked(spec, steps).items():
        seeing = on.evolution if method.evolves else on.search

        def measure(
            timesteps: Timesteps, seeing: Evaluator = seeing
        ) -> Mapping[str, float]:
            return seeing(schedule(timesteps))

        found[name] = method.run(measure, steps, spec, found)
        if name == Bracketed.name and spec.resamples:
            found[name]["resampled"] = resampled(
                method, spec, steps, seeing, schedule, found
            )
    return found


def resampled(
    method: Method,
    spec: StepSearchSpec,
    steps: int,
    on: Evaluator,
    schedule: Callable[[Timesteps], SamplingSchedule],
    found: Mapping[str, Any],
) -> list[float]:
    """Return what γ the search finds on pairs that are drawn with replacement.

    Searches on as many pairs draw the same, so that their γ make pairs. What was
    measured of a pair is not measured again: only γ that no search had tried cost time.
    """
    generator = torch.Generator().manual_seed(spec.seed)
    gammas = []
    for _ in range(spec.resamples):
        drawn = torch.randint(len(on), (len(on),), generator=generator)

        def measure(
            timesteps: Timesteps, drawn: torch.Tensor = drawn
        ) -> Mapping[str, float]:
            values = on.values(schedule(timesteps))[TO_REFERENCE]
            return {TO_REFERENCE: float(values[drawn].mean())}

        best, _ = method.search(
            measure, steps, spec, method.budget(spec, found), lambda shown: None
        )
        gammas.append(float(best.gamma))
    return gammas


def judged(
    validation: Evaluator | None,
    own: SamplingSchedule,
    uniform: SamplingSchedule | None = None,
) -> dict[str, Any]:
    """Return what time steps are worth on other pairs; nothing if there are none."""
    if validation is None:
        return {"scores": {}, "pairs": {}, "frechet": None}
    found: dict[str, Any] = {
        "scores": validation.scores(own),
        "frechet": validation(own).get("frechet"),
        "pairs": validation.pairs(own),
    }
    if uniform is not None:
        found["minus_uniform"] = validation.differences(own, uniform)
    return found


def taken_over(
    name: str, report: Mapping[str, Any], steps: int
) -> dict[str, dict[str, Any]]:
    """Return the steps that another search found, the best γ of its searches."""
    found = [
        entry
        for entry in report["searches"]
        if entry["steps"] == steps and entry["method"] in (Greedy.name, Bracketed.name)
    ]
    if not found:
        return {}
    best = max(found, key=lambda entry: float(entry["quality"]))
    kept = {key: best[key] for key in ("gamma", "timesteps")}
    return {name: {**kept, "quality": None, "trials": []}}


def report(
    spec: StepSearchSpec,
    models: Models,
    on: Evaluators,
    found: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return what was searched, how, on what, and what was found."""
    judging, chosen = models.judging, models.judging.spec
    reference = reference_of(spec, chosen)
    scoring = {
        "clip": judging.clip,
        "frechet": judging.frechet,
        "lpips": judging.lpips,
    }
    return {
        "task": chosen.task,
        "reference": chosen.steps,
        "scheduler": chosen.scheduler,
        "level": spec.level,
        "clock": chosen.clock,
        "guidance": chosen.guidance,
        "image_guidance": chosen.image_guidance,
        "pairs": {
            "search": len(on.search),
            "evolution": len(on.evolution),
            "heldout": len(on.validation) if on.validation is not None else 0,
        },
        "references": {
            "unet_calls": chosen.steps * len(on.search) * chosen.branches,
            "seconds": on.search.seconds(reference),
            "heldout": judged(on.validation, reference),
        },
        "searches": found,
        "encoders": {
            name: {"sha256": each.sha256, "preprocessing": each.preprocessing}
            for name, each in scoring.items()
            if each is not None
        },
    }


def read_others(paths: Sequence[Path]) -> dict[str, Any]:
    """Return the results of other searches by ``from_<search>``."""
    return {
        f"from_{path.stem}": storage.read_json(storage.existing(path)) for path in paths
    }


def _evolves(name: str) -> bool:
    return name in METHODS and METHODS[name].evolves
