"""AutoDiffusion's search for time steps (Li et al., ICCV 2023), the baseline.

An evolution over sorted sets of K of the 1000 timesteps, as its official code runs it
for Stable Diffusion:

- The first generation is the evenly spaced steps, random sets until half of the
  population is there, and mutants of the evenly spaced ones.
- Parents are the best sets so far. A generation is mutants of parents, uniform
  crossovers of two of them, and random sets until the population is there.
- A mutant draws each step anew with a small probability, from the timesteps that its
  parent lacks. A set that was seen before is drawn again.

A crossover may have the same timestep from either parent at two places. The official
code keeps such a set; here it is drawn again. Nothing here needs torch.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from clockwork_diffusion.timesteps import LAST, gamma_timesteps
from clockwork_experiments.search.gamma import Quality, Timesteps

_TRIES = 10
"""Draws for each mutant or crossover that is wanted, at most (official code)."""


@dataclass(frozen=True)
class EvolutionSpec:
    """How to search; the defaults are the full budget, of 499 evaluations.

    Attributes:
        population: Sets in a generation.
        epochs: Generations.
        parents: Best sets so far from which others are made.
        mutants: Mutants in a generation.
        crossovers: Crossovers in a generation.
        mutation: Probability that a step is drawn anew.
        seed: Of all draws.
    """

    population: int = 50
    epochs: int = 10
    parents: int = 10
    mutants: int = 25
    crossovers: int = 15
    mutation: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        """Reject budgets that make no generations."""
        for name in ("population", "epochs", "parents"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} is less than 1")
        made = self.mutants + self.crossovers
        if min(self.mutants, self.crossovers) < 0 or made > self.population:
            raise ValueError(
                f"mutants {self.mutants} and crossovers {self.crossovers} do not fit a "
                f"population of {self.population}"
            )
        if not 0 < self.mutation <= 1:
            raise ValueError(f"mutation {self.mutation:g} is not above 0 and at most 1")


@dataclass(frozen=True)
class Candidate:
    """A set of time steps that was evaluated.

    Attributes:
        timesteps: The steps, descending.
        quality: What they are worth.
        origin: ``uniform``, ``random``, ``mutant`` or ``crossover``.
    """

    timesteps: Timesteps
    quality: float
    origin: str


@dataclass(frozen=True)
class Evolved:
    """What an evolution found.

    Attributes:
        best: The best candidate.
        generations: All candidates by generation, in the order of evaluation.
    """

    best: Candidate
    generations: tuple[tuple[Candidate, ...], ...]

    @property
    def evaluations(self) -> int:
        """The number of evaluations."""
        return sum(map(len, self.generations))

    def to_json(self) -> dict[str, Any]:
        """Return the fields, and the number of evaluations."""
        return {**asdict(self), "evaluations": self.evaluations}


def evolve(
    quality: Quality,
    steps: int,
    spec: EvolutionSpec,
    on_candidate: Callable[[Candidate, int], None] | None = None,
) -> Evolved:
    """Search for K time steps.

    Draws depend on the seed and on what was found, so that a search that was killed
    draws the same again: whoever keeps what was evaluated goes on where it was.

    Args:
        quality: Measures time steps, more is better; minus a Fréchet distance.
        steps: K.
        spec: The budget.
        on_candidate: Called after each evaluation with it and its generation from 0.

    Raises:
        ValueError: If there are no such steps, or fewer sets of them than wanted.
    """
    evolution = _Evolution(quality, steps, spec, on_candidate)
    for epoch in range(spec.epochs):
        evolution.generation(epoch)
    generations = tuple(tuple(each) for each in evolution.generations)
    return Evolved(evolution.ranked()[0], generations)


class _Evolution:
    """Generations, one after the other."""

    def __init__(
        self,
        quality: Quality,
        steps: int,
        spec: EvolutionSpec,
        on_candidate: Callable[[Candidate, int], None] | None,
    ) -> None:
        self.uniform = gamma_timesteps(steps, 1.0)
        self.quality, self.steps, self.spec = quality, steps, spec
        self.on_candidate = on_candidate
        self.seen: set[Timesteps] = set()
        self.generations: list[list[Candidate]] = []
        self.draw = random.Random(spec.seed)

    def ranked(self) -> list[Candidate]:
        """Return all candidates, the best first, of equals the first."""
        every = (each for candidates in self.generations for each in candidates)
        return sorted(every, key=lambda each: -each.quality)

    def generation(self, epoch: int) -> None:
        """Make a generation and evaluate it."""
        spec = self.spec
        parents = [each.timesteps for each in self.ranked()[: spec.parents]]
        self.generations.append([])
        if epoch == 0:
            self.add(self.uniform, "uniform")
            self.fill(spec.population // 2)
            rest = spec.population - spec.population // 2 - 1
            self.breed("mutant", rest, lambda: self.mutant([self.uniform]))
            return
        self.breed("mutant", spec.mutants, lambda: self.mutant(parents))
        self.breed("crossover", spec.crossovers, lambda: self.crossover(parents))
        self.fill(spec.population)

    def add(self, timesteps: Iterable[int], origin: str) -> bool:
        """Evaluate a set unless it was seen, or is none."""
        chosen = tuple(sorted(timesteps, reverse=True))
        if chosen in self.seen or len(set(chosen)) < self.steps:
            return False
        self.seen.add(chosen)
        candidate = Candidate(chosen, self.quality(chosen), origin)
        self.generations[-1].append(candidate)
        if self.on_candidate is not None:
            self.on_candidate(candidate, len(self.generations) - 1)
        return True

    def breed(self, origin: str, wanted: int, make: Callable[[], list[int]]) -> None:
        """Make so many candidates of a kind, or as many as come of so many tries."""
        tries = wanted * _TRIES
        while wanted and tries:
            tries -= 1
            wanted -= self.add(make(), origin)

    def fill(self, size: int) -> None:
        """Add random sets until a generation has a size."""
        failed = 0
        while len(self.generations[-1]) < size:
            drawn = self.draw.sample(range(LAST + 1), self.steps)
            failed = 0 if self.add(drawn, "random") else failed + 1
            if failed > 1000:
                raise ValueError(
                    f"no more sets of {self.steps} steps are found that were not seen"
                )

    def mutant(self, parents: list[Timesteps]) -> list[int]:
        """Draw some steps of a parent anew."""
        mutated = list(self.draw.choice(parents))
        others = [each for each in range(LAST + 1) if each not in set(mutated)]
        for index in range(len(mutated)):
            if others and self.draw.random() < self.spec.mutation:
                place = self.draw.randrange(len(others))
                mutated[index] = others.pop(place)
        return mutated

    def crossover(self, parents: list[Timesteps]) -> list[int]:
        """Take each step from one of two parents."""
        pair = [self.draw.choice(parents) for _ in range(2)]
        return [self.draw.choice(both) for both in zip(*pair, strict=True)]
