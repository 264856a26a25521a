import itertools
import random

import pytest

from clockwork_diffusion.masks import (
    additive,
    all_masks,
    all_spans,
    best_mask,
    costs_of_steps,
    mask_of_span,
    spans_of,
)


def test_all_masks_are_there_once_and_begin_with_a_full_step():
    masks = all_masks(8)
    assert len(set(masks)) == len(masks) == 2**7
    assert all(len(mask) == 8 and mask[0] == "1" for mask in masks)


def test_spans_tile_a_mask():
    for mask in all_masks(6):
        spans = spans_of(mask)
        ends = [stop for _, stop in spans]
        assert [start for start, _ in spans] == [0, *ends[:-1]]
        assert ends[-1] == 6
        assert len(spans) == mask.count("1")


def test_the_mask_of_a_span_has_that_span_alone():
    assert len(all_spans(8)) == 28
    for span in all_spans(8):
        light = [
            each for each in spans_of(mask_of_span(8, span)) if each in all_spans(8)
        ]
        assert light == [span]


@pytest.mark.parametrize("seed", range(20))
def test_dynamic_programming_finds_what_looking_at_all_masks_finds(seed):
    draw = random.Random(seed)
    steps = draw.choice((5, 8, 9))
    costs = {span: draw.expovariate(1) for span in all_spans(steps)}
    for full in range(1, steps + 1):
        all_of_them = [mask for mask in all_masks(steps) if mask.count("1") == full]
        cheapest = min(all_of_them, key=lambda mask: additive(mask, costs))
        assert best_mask(steps, full, costs) == cheapest


def test_of_equals_the_one_with_the_first_full_steps():
    costs = dict.fromkeys(all_spans(8), 0.0)
    assert best_mask(8, 3, costs) == "11100000"


def test_costs_of_steps_add_up():
    per_step = {index: 2.0**index for index in range(1, 8)}
    costs = costs_of_steps(per_step, 8)
    for mask in all_masks(8):
        light = [index for index, digit in enumerate(mask) if digit == "0"]
        assert additive(mask, costs) == sum(per_step[index] for index in light)
    # Late steps are dearer, and so they are the full ones.
    assert best_mask(8, 4, costs) == "10000111"


@pytest.mark.parametrize(("steps", "full"), itertools.product((4,), (0, 5)))
def test_counts_that_no_mask_has_are_refused(steps, full):
    with pytest.raises(ValueError, match=f"{full} full steps are not between 1 and"):
        best_mask(steps, full, {})
