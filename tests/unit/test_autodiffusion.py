"""AutoDiffusion: its generations, and that it finds what it looks for."""

from collections import Counter

import pytest

from clockwork_diffusion.timesteps import gamma_timesteps
from clockwork_experiments.search.evolution import Candidate, EvolutionSpec, evolve

SMALL = EvolutionSpec(population=12, epochs=4, parents=3, mutants=6, crossovers=4)


def nearness(timesteps):
    best = gamma_timesteps(len(timesteps), 0.4)
    pairs = zip(timesteps, best, strict=True)
    return -sum((a - b) ** 2 for a, b in pairs) / len(timesteps)


@pytest.fixture(scope="module")
def full():
    return evolve(nearness, 5, EvolutionSpec())


def test_the_full_budget_is_that_of_the_official_code(full):
    assert full.evaluations == 49 + 9 * 50
    first = Counter(each.origin for each in full.generations[0])
    assert first == {"uniform": 1, "random": 24, "mutant": 24}
    assert full.generations[0][0].timesteps == gamma_timesteps(5, 1.0)
    for generation in full.generations[1:]:
        counts = Counter(each.origin for each in generation)
        # Crossovers run out of tries when the parents are alike.
        assert counts["mutant"] == 25 and 5 <= counts["crossover"] <= 15
        assert counts.total() == 50


def test_sets_are_distinct_sorted_and_new(full):
    every = [each.timesteps for each in sum(full.generations, ())]
    assert len(every) == len(set(every))
    for timesteps in every:
        assert list(timesteps) == sorted(set(timesteps), reverse=True)
        assert len(timesteps) == 5
        assert timesteps[-1] >= 0 and timesteps[0] <= 999


def test_children_are_made_of_the_best_so_far(full):
    for epoch in range(1, 10):
        before = sum(full.generations[:epoch], ())
        ranked = sorted(before, key=lambda each: -each.quality)
        parents = [set(each.timesteps) for each in ranked[:10]]
        for each in full.generations[epoch]:
            steps = set(each.timesteps)
            if each.origin == "crossover":
                assert any(steps <= one | other for one in parents for other in parents)
    mutants = [each for each in full.generations[0] if each.origin == "mutant"]
    uniform = set(gamma_timesteps(5, 1.0))
    kept = [len(uniform & set(each.timesteps)) for each in mutants]
    # Of those with a change at all: most have one step of five anew.
    assert set(kept) <= {2, 3, 4} and kept.count(4) > len(kept) / 2


def test_it_finds_better_steps_generation_by_generation(full):
    best = [max(each.quality for each in many) for many in full.generations]
    uniform = nearness(gamma_timesteps(5, 1.0))
    assert best[0] > uniform
    assert full.best.quality == max(best) > 0.1 * best[0]
    assert full.best.quality > 0.02 * uniform


def test_a_killed_search_goes_on_where_it_was():
    asked = []

    def quality(timesteps):
        asked.append(timesteps)
        return nearness(timesteps)

    whole = evolve(quality, 5, SMALL)
    known = dict.fromkeys(asked[:20])

    def kept(timesteps):
        # What was evaluated before the end is known; the order is the same.
        known.pop(timesteps, None)
        return nearness(timesteps)

    assert evolve(kept, 5, SMALL) == whole and not known
    other = evolve(nearness, 5, EvolutionSpec(**{**SMALL.__dict__, "seed": 1}))
    assert other.generations != whole.generations


def test_every_candidate_is_told():
    told = []
    found = evolve(nearness, 5, SMALL, lambda each, epoch: told.append((each, epoch)))
    assert [each for each, _ in told] == list(sum(found.generations, ()))
    assert [epoch for _, epoch in told] == sorted(epoch for _, epoch in told)
    assert isinstance(told[0][0], Candidate)
    assert found.to_json()["evaluations"] == found.evaluations == len(told)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"population": 0}, "population 0 is less than 1"),
        ({"epochs": 0}, "epochs 0 is less than 1"),
        ({"mutants": 40}, "mutants 40 and crossovers 15 do not fit a population of 50"),
        ({"crossovers": -1}, "mutants 25 and crossovers -1 do not fit"),
        ({"mutation": 0.0}, "mutation 0 is not above 0 and at most 1"),
    ],
)
def test_budgets_that_make_no_generations_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        EvolutionSpec(**changed)


def test_too_few_sets_end_in_one_line():
    with pytest.raises(ValueError, match="no more sets of 1000 steps are found"):
        evolve(lambda timesteps: 0.0, 1000, SMALL)
