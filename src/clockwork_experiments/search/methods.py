"""Ways to find time steps, each a class; found by name, or ``my_module:MySearch``.

A method gets a function from time steps to measures, and a budget. Nothing here needs
torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tqdm import tqdm

from clockwork_diffusion.timesteps import gamma_timesteps
from clockwork_experiments.base import classes
from clockwork_experiments.search.evolution import Candidate, EvolutionSpec, evolve
from clockwork_experiments.search.gamma import (
    Found,
    Timesteps,
    Trial,
    bracketed_search,
    ending_search,
    greedy_search,
)

UNIFORM = "uniform"
"""Evenly spaced steps, which are no search, and always there."""

Measure = Callable[[Timesteps], Mapping[str, float]]
"""Returns the measures of time steps, by metric."""

OnTrial = Callable[[dict[str, Any]], None]
"""Called after each evaluation with what a person who watches is shown of it."""


@dataclass(frozen=True)
class StepSearchSpec:
    """What to search, and with which settings.

    Attributes:
        translation: A `generate.translate.TranslationSpec`, as plain data;
            its ``steps`` are those of the reference, evenly spaced.
        seed: Of the noise.
        batch_size: Pairs per batch; has no influence on the images.
        steps: Numbers of steps n.
        methods: Names of methods, and for which n.
        direction: Of the greedy search: 1 towards γ > 1, -1 towards γ < 1.
        most: Evaluations of a search for γ, at most; the bracketed one takes no more
            than the greedy one took, where both are asked for.
        resamples: Sets of as many pairs, drawn with replacement, on which the bracketed
            search is run once more, for how far γ would differ on other pairs.
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
    resamples: int = 0
    evolution: EvolutionSpec = field(default_factory=EvolutionSpec)
    level: int | None = None
    cut: str = "stage1"
    kind: str = ""
    whole_reference: bool = False

    def __post_init__(self) -> None:
        """Reject unknown methods, and numbers of steps that are not searched."""
        if self.batch_size < 1:
            raise ValueError(f"batch_size {self.batch_size} is less than 1")
        if self.resamples < 0 or self.resamples == 1:
            raise ValueError(f"resamples {self.resamples} are not 0, nor 2 or more")
        if not self.steps or list(self.steps) != sorted(set(self.steps)):
            raise ValueError(f"steps {list(self.steps)} are none, or do not ascend")
        for steps in self.steps:
            gamma_timesteps(steps, 1.0)
        for name, asked in self.methods.items():
            find(name)
            for steps in asked:
                if steps not in self.steps:
                    listed = ", ".join(map(str, self.steps))
                    raise ValueError(
                        f"{steps} steps of method {name!r} are not one of {listed}"
                    )


class Method(ABC):
    """A way to find time steps."""

    name: ClassVar[str] = ""
    label: ClassVar[str] = ""
    """How tables call it."""
    frechet: ClassVar[bool] = False
    """Whether it goes by the Fréchet distance, and so needs that network."""
    evolves: ClassVar[bool] = False
    """Whether it goes by the pairs that AutoDiffusion goes by, if these are others."""

    def budget(self, spec: StepSearchSpec, found: Mapping[str, Any]) -> int | None:
        """Return how many evaluations it may take; None where its own spec says."""
        return spec.most

    @abstractmethod
    def search(
        self,
        measure: Measure,
        steps: int,
        spec: StepSearchSpec,
        most: int | None,
        on_trial: OnTrial,
    ) -> tuple[Any, Sequence[Any]]:
        """Return the best trial, and all, `Trial` or `Candidate`, in their order."""

    def run(
        self,
        measure: Measure,
        steps: int,
        spec: StepSearchSpec,
        found: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Search for n steps, with a progress bar; return the answer as plain data.

        Args:
            measure: Measures time steps.
            steps: n.
            spec: The settings of all searches.
            found: What methods before this one have found for n.
        """
        most = self.budget(spec, found)
        with tqdm(total=most, desc=f"{self.name}, {steps} steps", disable=None) as bar:

            def on_trial(shown: dict[str, Any]) -> None:
                bar.set_postfix(shown)
                bar.update()

            best, trials = self.search(measure, steps, spec, most, on_trial)
        return {**plain(best), "trials": [plain(trial) for trial in trials]}


class GammaMethod(Method):
    """A search for γ by the PSNR to the reference."""

    @abstractmethod
    def found(
        self,
        quality: Callable[[Timesteps], float],
        steps: int,
        spec: StepSearchSpec,
        most: int,
        on_trial: Callable[[Trial, int], None],
    ) -> Found:
        """Return what it finds."""

    def search(
        self,
        measure: Measure,
        steps: int,
        spec: StepSearchSpec,
        most: int | None,
        on_trial: OnTrial,
    ) -> tuple[Trial, Sequence[Trial]]:
        """Return the best trial, and all."""
        assert most is not None
        result = self.found(
            lambda timesteps: measure(timesteps)["psnr_to_teacher"],
            steps,
            spec,
            most,
            lambda trial, remaining: on_trial(
                {
                    "gamma": f"{trial.gamma:.3f}",
                    "PSNR": f"{trial.quality:.2f}",
                    "remaining": remaining,
                }
            ),
        )
        return result.best, result.trials


class Greedy(GammaMethod):
    """As published: one way from γ = 1."""

    name: ClassVar[str] = "greedy"
    label: ClassVar[str] = "γ, greedy search"

    def found(self, quality, steps, spec, most, on_trial):  # type: ignore[no-untyped-def]
        """Return what it finds."""
        return greedy_search(
            quality, steps, spec.direction, most=most, on_trial=on_trial
        )


class Bracketed(GammaMethod):
    """Both ways, then between what was tried; ours."""

    name: ClassVar[str] = "bracketed"
    label: ClassVar[str] = "γ, bracketed search (ours)"

    def budget(self, spec: StepSearchSpec, found: Mapping[str, Any]) -> int:
        """Return as many evaluations as the greedy search took, if it ran."""
        return len(found[Greedy.name]["trials"]) if Greedy.name in found else spec.most

    def found(self, quality, steps, spec, most, on_trial):  # type: ignore[no-untyped-def]
        """Return what it finds."""
        return bracketed_search(quality, steps, most=most, on_trial=on_trial)


class Ending(GammaMethod):
    """The end of even steps, then γ with that end; ours."""

    name: ClassVar[str] = "ending"
    label: ClassVar[str] = "end and γ apart (ours)"

    def found(self, quality, steps, spec, most, on_trial):  # type: ignore[no-untyped-def]
        """Return what it finds."""
        return ending_search(quality, steps, most=most, on_trial=on_trial)


class EvolutionPSNR(Method):
    """AutoDiffusion, by the PSNR to the reference."""

    name: ClassVar[str] = "evolution_psnr"
    label: ClassVar[str] = "AutoDiffusion, PSNR"
    evolves: ClassVar[bool] = True
    fitness: ClassVar[str] = "psnr_to_teacher"
    sign: ClassVar[int] = 1

    def budget(self, spec: StepSearchSpec, found: Mapping[str, Any]) -> None:
        """Return nothing: `EvolutionSpec` says."""

    def search(
        self,
        measure: Measure,
        steps: int,
        spec: StepSearchSpec,
        most: int | None,
        on_trial: OnTrial,
    ) -> tuple[Candidate, Sequence[Candidate]]:
        """Return the best candidate, and all."""
        result = evolve(
            lambda timesteps: self.sign * measure(timesteps)[self.fitness],
            steps,
            spec.evolution,
            lambda each, generation: on_trial(
                {"generation": generation, "quality": f"{each.quality:.2f}"}
            ),
        )
        return result.best, [each for many in result.generations for each in many]


class EvolutionFrechet(EvolutionPSNR):
    """AutoDiffusion, by the Fréchet distance to the right answers; less is better."""

    name: ClassVar[str] = "evolution_frechet"
    label: ClassVar[str] = "AutoDiffusion, Fréchet distance"
    frechet: ClassVar[bool] = True
    fitness: ClassVar[str] = "frechet"
    sign: ClassVar[int] = -1


METHODS: dict[str, type[Method]] = {
    kind.name: kind
    for kind in (Greedy, Bracketed, Ending, EvolutionPSNR, EvolutionFrechet)
}
"""Methods by name, in the order in which they run."""


def find(name: str) -> Method:
    """Return a method.

    Raises:
        ValueError: If there is none of this name, and it is no ``module:Class``.
    """
    module, colon, kind = name.partition(":")
    if not colon:
        if name not in METHODS:
            raise ValueError(f"method {name!r} is not one of {', '.join(METHODS)}")
        return METHODS[name]()
    found: type[Method] = classes.found_at(module, kind, Method, f"method {name!r}")
    return found()


def asked(spec: StepSearchSpec, steps: int) -> dict[str, Method]:
    """Return the methods that are asked for n steps, in the order in which they run."""
    names = [*METHODS, *(name for name in spec.methods if name not in METHODS)]
    return {name: find(name) for name in names if steps in spec.methods.get(name, ())}


def plain(trial: Trial | Candidate) -> dict[str, Any]:
    """Return a trial as plain data; only searches for γ alone have a γ."""
    data = {"timesteps": trial.timesteps, "quality": trial.quality}
    if not isinstance(trial, Trial):
        return {"gamma": None, **data}
    if trial.end is not None:
        return {"gamma": None, "exponent": trial.gamma, "end": trial.end, **data}
    return {"gamma": trial.gamma, **data}
