"""Searches for γ, on made-up qualities whose best is known."""

import math
from functools import partial

import pytest

from clockwork_diffusion.timesteps import ending_timesteps, gamma_timesteps
from clockwork_experiments.search.gamma import (
    bracketed_search,
    ending_search,
    greedy_search,
)


def peaked(gamma, end=None):
    """Return a quality that is best at the steps of γ, and which calls it got."""
    calls = []

    def quality(timesteps):
        calls.append(timesteps)
        best = gamma_timesteps(len(timesteps), gamma)
        if end is not None:
            best = ending_timesteps(len(timesteps), gamma, end)
        pairs = zip(timesteps, best, strict=True)
        squared = sum((a - b) ** 2 for a, b in pairs) / len(timesteps)
        return 30 - math.sqrt(squared) / 20 - squared / 5000

    return quality, calls


def test_the_published_search_step_by_step():
    quality, calls = peaked(1.53)
    found = greedy_search(quality, 5, 1)
    p = [trial.gamma for trial in found.trials]
    # By 0.2 to 1.6, where 1.8 is worse; 1.7, 1.65, 1.62, 1.61 are worse, too.
    assert p == pytest.approx([1, 1.2, 1.4, 1.6, 1.8, 1.7, 1.65, 1.62, 1.61])
    assert found.best.gamma == pytest.approx(1.6)
    assert found.best.timesteps == gamma_timesteps(5, 1.6)
    assert [trial.timesteps for trial in found.trials] == calls
    found = greedy_search(peaked(1 / 1.53)[0], 5, -1)
    assert [1 / trial.gamma for trial in found.trials] == pytest.approx(p)


def official_search(quality, steps, direction):
    """The published script's search, told anew: its best PSNR starts at 0."""
    p, best = 1.0, 0.0
    for increment in (0.2, 0.1, 0.05, 0.02, 0.01):
        further = p + increment
        while quality(gamma_timesteps(steps, further**direction)) > best:
            p, best = further, quality(gamma_timesteps(steps, further**direction))
            further = p + increment
    return p**direction


@pytest.mark.parametrize("direction", [-1, 1])
@pytest.mark.parametrize("best", [1.0, 1.07, 1.2, 1.33, 1.8, 2.0])
def test_the_published_search_is_the_official_one_where_even_steps_are_better_too(
    best, direction
):
    for steps in (5, 10, 15):
        quality = peaked(best**direction)[0]
        found = greedy_search(quality, steps, direction)
        wanted = official_search(quality, steps, direction)
        assert found.best.gamma == pytest.approx(wanted, abs=1e-9)
        assert found.trials[0].gamma == 1.0


def test_even_steps_stay_where_they_are_best_and_the_published_search_leaves_them():
    found = greedy_search(peaked(1.0)[0], 10, -1)
    # The 0.833 of Table S1 is this floor.
    assert found.best.gamma == pytest.approx(1 / 1.2)
    assert found.best.quality < found.trials[0].quality
    found = bracketed_search(peaked(1.0)[0], 10, most=6)
    assert found.best.gamma == 1.0 and len(found.trials) == 6


@pytest.mark.parametrize("steps", [5, 10, 20])
@pytest.mark.parametrize("gamma", [0.322, 0.556, 0.71, 0.9, 1.1, 1.42, 1.6, 1.9])
def test_ours_finds_the_best_with_no_more_evaluations(steps, gamma):
    quality, calls = peaked(gamma)
    published = greedy_search(quality, steps, 1 if gamma > 1 else -1)
    del calls[:]
    ours = bracketed_search(quality, steps, most=len(published.trials))
    assert len(ours.trials) == len(calls) <= len(published.trials)
    assert ours.best.gamma == pytest.approx(gamma, rel=0.02)
    # It steps back where the published search cannot: there it is better by a lot.
    assert ours.best.quality > published.best.quality - 0.1
    assert ours.trials[0].gamma == 1.0


def test_of_two_hills_the_higher_is_climbed():
    lower, higher = peaked(0.6)[0], peaked(1.6)[0]

    def quality(timesteps):
        return max(lower(timesteps), higher(timesteps) + 0.5)

    found = bracketed_search(quality, 10, most=10)
    assert found.best.gamma == pytest.approx(1.6, rel=0.02)


@pytest.mark.parametrize("steps", [5, 10, 20])
@pytest.mark.parametrize(("gamma", "end"), [(1.0, 30), (1.0, 64), (0.8, 90), (1.3, 0)])
def test_an_end_of_its_own_is_found_where_gamma_alone_cannot(steps, gamma, end):
    quality, calls = peaked(gamma, end)
    found = ending_search(quality, steps, most=30)
    assert len(calls) == len(set(calls)) == len(found.trials) <= 25
    assert found.trials[0].timesteps == gamma_timesteps(steps, 1.0)
    # One after the other: exact where γ is 1 or the end 0, else near.
    assert found.best.quality > (29.5 if gamma == 1 or not end else 28.5)
    if gamma == 1:
        alone = bracketed_search(quality, steps, most=30)
        assert found.best.quality > alone.best.quality + 0.2
    short = ending_search(quality, steps, most=3)
    assert len(short.trials) == 3


def test_no_steps_are_evaluated_twice_and_the_budget_is_kept():
    for most in (1, 2, 3, 5, 8):
        quality, calls = peaked(0.4)
        told = []
        bracketed_search(
            quality,
            5,
            most=most,
            on_trial=partial(lambda told, *it: told.append(it), told),
        )
        assert len(calls) == len(set(calls)) <= most
        assert [trial.timesteps for trial, _ in told] == calls
        assert [rest for _, rest in told] == [most - 1 - i for i in range(len(calls))]
        quality, calls = peaked(0.4)
        assert len(greedy_search(quality, 5, -1, most=most).trials) == most
    # Three steps hardly tell one γ from the next: many have the same.
    quality, calls = peaked(1.3)
    greedy_search(quality, 2, -1)
    assert len(calls) == len(set(calls))
    with pytest.raises(ValueError, match="0 evaluations are not 1 or more"):
        bracketed_search(quality, 5, most=0)


def test_gammas_that_make_no_steps_end_a_search():
    # The more extreme the better: until steps coincide.
    def quality(timesteps):
        return -float(sum(timesteps))

    for found in (
        greedy_search(quality, 12, 1),
        bracketed_search(quality, 12, most=40),
    ):
        assert 2 < found.best.gamma < 8
        with pytest.raises(ValueError, match="the same"):
            gamma_timesteps(12, found.best.gamma * 1.1)
    with pytest.raises(ValueError, match="1 steps are not between"):
        greedy_search(quality, 1, 1)
    with pytest.raises(ValueError, match="1001 steps are not between"):
        bracketed_search(quality, 1001, most=3)


def test_what_was_found_as_plain_data():
    found = greedy_search(peaked(1.0)[0], 5, 1)
    plain = found.to_json()
    assert plain["evaluations"] == len(plain["trials"]) == 7
    assert plain["best"]["timesteps"] == gamma_timesteps(5, 1.2)
