"""The search for levels, on evaluators whose answer is known."""

import itertools
import random

import pytest

from clockwork_experiments.search.levels import (
    DIRECTION,
    LIKENESS,
    PROBLEMS,
    Evaluations,
    LevelCosts,
    MultiSpec,
    Surrogate,
    Threshold,
    expand,
    group_sizes,
    level_costs,
    scan,
    search_levels,
)

LEVELS = tuple(range(13, 0, -1))
STEPS = 7


def constant(values):
    """Return an evaluator of single depths, by level."""

    def evaluate(schedule):
        (level,) = set(schedule)
        return values[level]

    return evaluate


def psnrs(*values):
    return {
        level: {"psnr_to_teacher": value, "frechet": 60.0 - value}
        for level, value in zip(LEVELS, values, strict=False)
    }


FALLING = psnrs(58.9, 40, 36, 34, 33, 30, 27, 25, 24, 20, 18, 15, 10)
DIPPING = psnrs(58.9, 40, 36, 27, 33, 30, 29, 25, 24, 20, 18, 15, 10)


# --- single depth ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("threshold", "values", "chosen", "limit"),
    [
        (Threshold("psnr_to_teacher", at_least=28.0), FALLING, 8, 28.0),
        (Threshold("psnr_to_teacher", at_least=30.0), FALLING, 8, 30.0),
        (Threshold("psnr_to_teacher", at_least=30.1), FALLING, 9, 30.1),
        (Threshold("frechet", at_most=32.0), FALLING, 8, 32.0),
        (Threshold("psnr_to_teacher", at_least=0.5, of_full=True), FALLING, 8, 29.45),
        (Threshold("frechet", at_most=25.0, of_full=True), FALLING, 9, 27.5),
        # The levels after a break are not reached, however good.
        (Threshold("psnr_to_teacher", at_least=28.0), DIPPING, 11, 28.0),
        (Threshold("psnr_to_teacher", at_least=1.0), FALLING, 1, 1.0),
        (Threshold("psnr_to_teacher", at_least=41.0), FALLING, 13, 41.0),
    ],
)
def test_the_scan_chooses_the_level_before_the_first_break(
    threshold, values, chosen, limit
):
    found = scan(constant(values), [threshold], LEVELS, STEPS)
    assert found.chosen == chosen
    assert found.limits[threshold.metric] == pytest.approx(limit)
    assert found.metrics == values
    assert not found.broken[chosen]
    if chosen > 1:
        assert found.broken[chosen - 1] == (threshold.metric,)


def test_any_of_two_thresholds_ends_the_scan_and_is_named():
    one = Threshold("psnr_to_teacher", at_least=28.0)
    other = Threshold("frechet", at_most=24.0)
    found = scan(constant(FALLING), [one, other], LEVELS, STEPS)
    assert found.chosen == 11
    assert found.broken[10] == ("frechet",)
    assert found.broken[7] == ("psnr_to_teacher", "frechet")


def test_the_scan_may_end_at_the_break():
    evaluate = Evaluations(constant(DIPPING))
    threshold = Threshold("psnr_to_teacher", at_least=28.0)
    found = scan(evaluate, [threshold], LEVELS, STEPS, whole=False)
    assert found.chosen == 11
    assert len(evaluate) == 4
    assert set(evaluate.measured) == {(level,) * STEPS for level in (13, 12, 11, 10)}


def test_scans_that_make_no_sense_are_refused():
    good = Threshold("psnr_to_teacher", at_least=28.0)
    for levels in ((), (12, 13), (13, 13)):
        with pytest.raises(ValueError, match="do not go from the deepest upwards"):
            scan(constant(FALLING), [good], levels, STEPS)
    with pytest.raises(ValueError, match="needs a threshold"):
        scan(constant(FALLING), [], LEVELS, STEPS)
    with pytest.raises(ValueError, match="'clip' is not one of psnr_to_teacher, frech"):
        scan(constant(FALLING), [Threshold("clip", at_least=1.0)], LEVELS, STEPS)
    strict = Threshold("frechet", at_most=1.0)
    with pytest.raises(ValueError, match="full model breaks .* frechet: it is 1.1"):
        scan(constant(FALLING), [strict], LEVELS, STEPS)
    share = Threshold("clip_direction", at_least=0.9, of_full=True)
    with pytest.raises(ValueError, match="is -0.1, of which no share"):
        share.limit({"clip_direction": -0.1})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "needs either at_least or at_most"),
        ({"at_least": 1.0, "at_most": 2.0}, "needs either at_least or at_most"),
        ({"at_most": 2.0}, "'clip_image' must be at_least"),
    ],
)
def test_thresholds_on_the_wrong_side_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Threshold("clip_image", **settings)
    with pytest.raises(ValueError, match="'frechet' must be at_most"):
        Threshold("frechet", at_least=2.0)


# --- a level for each step ------------------------------------------------------------

CHOICE = (13, 11, 10, 9, 8)
TIMES = {13: 100, 12: 93, 11: 90, 10: 88, 9: 86, 8: 77}
SPEC = MultiSpec(groups=4, levels=CHOICE, rows=(10, 9, 8), verified=4)


def toy(seed, interaction=0.0, whole=False):
    """Return an evaluator that adds up steps, but for what pairs of them do."""
    draw = random.Random(seed)
    steps = range(10)
    worth = {
        (name, step, level): -draw.random() * (13 - level) ** 1.5 / 400
        for name in (LIKENESS, DIRECTION)
        for step in steps
        for level in TIMES
    }
    if whole:
        worth |= {key: 0.0 for key in worth if key[2] == 13}

    def evaluate(schedule):
        assert len(schedule) == 10
        found = {"psnr_to_teacher": 30.0}
        for name, base in ((LIKENESS, 0.9), (DIRECTION, 0.3)):
            found[name] = base + sum(
                worth[name, step, level] for step, level in enumerate(schedule)
            )
            shallow = [13 - level for level in schedule]
            found[name] -= interaction * sum(
                a * b for a, b in itertools.pairwise(shallow)
            )
        return found

    return evaluate


def cost(levels, sizes=(2, 3, 2, 3)):
    return sum(TIMES[level] * size for level, size in zip(levels, sizes, strict=True))


def exhaustive(evaluate, row, name):
    """Return the best worth of any assignment that keeps the constraint."""
    sizes, problem = group_sizes(10, 4), PROBLEMS[name]
    single = evaluate((row,) * 10)
    slack = SPEC.tolerance if name == "a" else 0.0
    best = None
    for levels in itertools.product(CHOICE, repeat=4):
        found = evaluate(expand(levels, sizes))
        if name == "a" and max(levels) > row:
            continue
        if name in "bc" and cost(levels) > cost((row,) * 4):
            continue
        if name in "ad" and any(
            found[metric] < single[metric] - slack for metric in (LIKENESS, DIRECTION)
        ):
            continue
        worth = -cost(levels) if name in "ad" else found[problem.goal]
        best = worth if best is None else max(best, worth)
    return best


def worth(answer):
    goal = PROBLEMS[answer.problem].goal
    return -cost(answer.levels) if goal == "time" else answer.metrics[goal]


def test_groups_are_contiguous_and_as_equal_as_can_be():
    assert group_sizes(10, 4) == (2, 3, 2, 3)
    assert group_sizes(50, 5) == (10,) * 5
    assert group_sizes(3, 3) == (1, 1, 1)
    assert expand((13, 9), (2, 1)) == (13, 13, 9)
    with pytest.raises(ValueError, match="4 groups are not between 1 and 3 steps"):
        group_sizes(3, 4)


@pytest.mark.parametrize("seed", range(4))
def test_where_steps_add_up_the_answer_is_the_best_there_is(seed):
    evaluate = toy(seed)
    multi = search_levels(Evaluations(evaluate), SPEC, 10, 13, TIMES)
    assert len(multi.answers) == 12
    improved = 0
    for answer in multi.answers:
        best = exhaustive(evaluate, answer.row, answer.problem)
        assert worth(answer) == pytest.approx(best, abs=1e-9)
        assert answer.metrics == {
            name: evaluate(answer.schedule)[name] for name in (LIKENESS, DIRECTION)
        }
        for candidate in answer.candidates:
            for name, value in candidate.measured.items():
                assert candidate.predicted[name] == pytest.approx(value, abs=1e-9)
        improved += answer.levels != (answer.row,) * 4
    # Or else the single depth would be all that this test sees.
    assert improved >= 6


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("interaction", [0.0005, -0.0005, 0.003])
def test_with_interactions_no_answer_breaks_its_constraint(seed, interaction):
    evaluate = toy(seed, interaction)
    multi = search_levels(Evaluations(evaluate), SPEC, 10, 13, TIMES)
    for answer in multi.answers:
        single = evaluate((answer.row,) * 10)
        found = evaluate(answer.schedule)
        if answer.problem == "a":
            assert max(answer.schedule) <= answer.row
        if answer.problem in "bc":
            assert cost(answer.levels) <= cost((answer.row,) * 4)
            goal = PROBLEMS[answer.problem].goal
            assert found[goal] >= single[goal]
        else:
            slack = SPEC.tolerance if answer.problem == "a" else 0.0
            assert cost(answer.levels) <= cost((answer.row,) * 4)
            for name in (LIKENESS, DIRECTION):
                assert found[name] >= single[name] - slack
        assert len(answer.candidates) <= SPEC.verified


@pytest.mark.parametrize("seed", range(6))
def test_the_best_single_depth_keeps_the_constraint_too(seed):
    jagged = toy(seed, 0.0005)

    def evaluate(schedule):
        # Levels from 9 on are all the same.
        return jagged([13 if level >= 9 else level for level in schedule])

    multi = search_levels(Evaluations(evaluate), SPEC, 10, 13, TIMES)
    for answer in multi.answers:
        single = evaluate((answer.row,) * 10)
        slack = SPEC.tolerance if answer.problem == "a" else 0.0
        worths = {}
        for level in CHOICE:
            found = evaluate((level,) * 10)
            kept = all(
                found[name] >= single[name] - slack for name in (LIKENESS, DIRECTION)
            )
            deep = answer.problem in "abc" and TIMES[level] > TIMES[answer.row]
            if not deep and (answer.problem in "bc" or kept):
                goal = PROBLEMS[answer.problem].goal
                worths[level] = -TIMES[level] if goal == "time" else found[goal]
        assert worths[answer.best_single] == max(worths.values())
        assert answer.row in worths
        if answer.row == 10 and answer.problem in "ad":
            assert answer.best_single == 9


def test_with_interactions_the_prediction_alone_would_mislead():
    saved = 0
    for seed in range(6):
        multi = search_levels(Evaluations(toy(seed, 0.003)), SPEC, 10, 13, TIMES)
        for answer in multi.answers:
            wrong = [not each.holds for each in answer.candidates]
            # A later candidate held where the most promising did not.
            saved += wrong[:1] == [True] and not all(wrong)
    assert saved


def test_a_disappointment_keeps_the_next_candidates_at_a_distance():
    seen = 0
    for seed in range(6):
        evaluate = toy(seed, 0.001)
        multi = search_levels(Evaluations(evaluate), SPEC, 10, 13, TIMES)
        for answer in multi.answers:
            single = evaluate((answer.row,) * 10)
            for before, after in itertools.pairwise(answer.candidates):
                if before.holds or answer.problem != "d":
                    continue
                gaps = {
                    name: before.predicted[name] - before.measured[name]
                    for name in (LIKENESS, DIRECTION)
                    if before.measured[name] < single[name]
                }
                seen += all(
                    after.predicted[name] >= single[name] + gap - 1e-12
                    for name, gap in gaps.items()
                )
    assert seen


def test_whatever_was_measured_is_predicted_exactly():
    evaluate = toy(3, 0.002)
    multi = search_levels(Evaluations(evaluate), SPEC, 10, 13, TIMES)
    full = {name: evaluate((13,) * 10)[name] for name in (LIKENESS, DIRECTION)}
    surrogate = Surrogate(full, multi.changes, multi.joint)
    for levels in [(level,) * 4 for level in CHOICE] + [
        (13, 9, 13, 13),
        (8, 13, 13, 13),
    ]:
        found = evaluate(expand(levels, multi.sizes))
        for name, value in surrogate(levels).items():
            assert value == pytest.approx(found[name], abs=1e-12)


def test_what_steps_make_up_for_together_is_not_mistaken_for_harmless():
    def evaluate(schedule):
        # Any step that is deep saves the image; nothing else matters.
        good = max(schedule) >= 10
        return {LIKENESS: 0.9 if good else 0.5, DIRECTION: 0.3 if good else 0.1}

    spec = MultiSpec(groups=4, levels=CHOICE, rows=(10,), verified=3)
    multi = search_levels(Evaluations(evaluate), spec, 10, 13, TIMES)
    for answer in multi.answers:
        if answer.problem in "ad":
            # Two steps at level 10, eight at level 8: the least that there is.
            assert cost(answer.levels) == 2 * TIMES[10] + 8 * TIMES[8]
            assert answer.metrics == {LIKENESS: 0.9, DIRECTION: 0.3}


def test_what_was_measured_for_one_row_serves_all():
    evaluate = toy(4, 0.001)
    evaluations = Evaluations(evaluate)
    multi = search_levels(evaluations, SPEC, 10, 13, TIMES)
    for answer in multi.answers:
        if answer.problem not in "bc":
            continue
        goal = PROBLEMS[answer.problem].goal
        row = cost((answer.row,) * 4)
        affordable = [
            found[goal]
            for schedule, found in evaluations.measured.items()
            if sum(TIMES[level] for level in schedule) <= row
        ]
        assert answer.metrics[goal] == max(affordable)


def test_the_single_depth_stands_where_nothing_is_better():
    def evaluate(schedule):
        # Any mixture of levels is a disaster.
        mixed = len(set(schedule)) > 1
        return {LIKENESS: 0.1 if mixed else 0.9, DIRECTION: 0.0 if mixed else 0.3}

    multi = search_levels(Evaluations(evaluate), SPEC, 10, 13, TIMES)
    for answer in multi.answers:
        faster = answer.problem in "ad" and len(set(answer.levels)) == 1
        assert faster or answer.levels == (answer.row,) * 4
        assert len(set(answer.schedule)) == 1


def test_measurements_are_counted_once_each():
    asked = []
    evaluate = toy(2)

    def counting(schedule):
        asked.append(schedule)
        return evaluate(schedule)

    evaluations = Evaluations(counting)
    threshold = Threshold(LIKENESS, at_least=0.1)
    scan(evaluations, [threshold], (13, 12, 11, 10, 9, 8), 10)
    assert len(evaluations) == 6
    multi = search_levels(evaluations, SPEC, 10, 13, TIMES)
    assert len(asked) == len(set(asked)) == len(evaluations)
    assert multi.evaluations["sensitivities"] == 4 * 4
    # The scan measured what every group at one level is worth.
    assert multi.evaluations["constant"] == 0
    assert 6 + sum(multi.evaluations.values()) == len(evaluations)
    fresh = search_levels(Evaluations(evaluate), SPEC, 10, 13, TIMES)
    assert fresh.answers == multi.answers
    # The full model counts among the sensitivities here.
    assert fresh.evaluations["sensitivities"] == 4 * 4 + 1
    assert fresh.evaluations["constant"] == 4


def test_changes_are_those_of_one_group_alone():
    evaluate = toy(3)
    multi = search_levels(Evaluations(evaluate), SPEC, 10, 13, TIMES)
    full = evaluate((13,) * 10)
    alone = evaluate((13,) * 2 + (9,) * 3 + (13,) * 5)
    assert multi.sizes == (2, 3, 2, 3)
    assert multi.changes[1][9][LIKENESS] == alone[LIKENESS] - full[LIKENESS]
    assert multi.changes[2][13] == {LIKENESS: 0.0, DIRECTION: 0.0}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"groups": 0}, "groups 0 and verified 4 must be 1 or more"),
        ({"verified": 0}, "groups 4 and verified 0 must be 1 or more"),
        ({"levels": (9, 9)}, r"levels \[9, 9\] are none, or not distinct"),
        ({"rows": (12,)}, r"row 12 is not one of the levels \(13, 11, 10, 9, 8\)"),
        ({"groups": 10}, "9,765,625 assignments, and 1,000,000 are the most"),
    ],
)
def test_searches_that_make_no_sense_are_refused(changed, message):
    settings = {"groups": 4, "levels": CHOICE, "rows": (10, 9), "verified": 4}
    with pytest.raises(ValueError, match=message):
        MultiSpec(**{**settings, **changed})


def test_a_level_without_cost_is_refused():
    costs = {level: TIMES[level] for level in (13, 10, 9, 8)}
    with pytest.raises(ValueError, match="level 11 has no cost"):
        search_levels(Evaluations(toy(0)), SPEC, 10, 13, costs)


# --- what it saves --------------------------------------------------------------------


def test_savings_are_points_of_the_full_model():
    costs = LevelCosts(
        {13: 200, 10: 180, 9: 170, 8: 150},
        {13: 1.0, 10: 0.7, 9: 0.6, 8: 0.4},
        {13: 10.0, 10: 9.0, 9: 8.5, 8: 8.0},
    )
    found = costs.savings((13, 8, 8, 8), 9)
    assert found["time"] == pytest.approx(100 * (650 / 4 - 170) / 200)
    assert found["parameters"] == pytest.approx(40)
    assert found["milliseconds"] == pytest.approx(100 * (34 / 4 - 8.5) / 10)
    assert costs.savings((9,) * 4, 9) == {
        "time": 0,
        "parameters": 0,
        "milliseconds": 0,
    }


def test_costs_are_read_as_they_are_written():
    counted = {
        "levels": [
            {"level": 1, "parameters": 10, "count": {"macs_with_norms": 100}},
            {"level": 2, "parameters": 30, "count": {"macs_with_norms": 300}},
        ],
        "shared": {"time": 1000, "output": 10},
        "branch": None,
    }
    found = level_costs(counted)
    assert found.macs == {1: 100, 2: 300}
    assert found.parameters == {1: 20 / 40, 2: 1.0}
    assert found.milliseconds is None
    assert "milliseconds" not in found.savings((1, 2), 1)
    timed = {
        "levels": {"1": {"runs": [2.0, 9.0, 1.0]}, "2": {"runs": [5.0]}},
        "branch": {"runs": [1.0]},
    }
    counted["branch"] = {"macs_with_norms": 50}
    found = level_costs(counted, timed)
    assert found.macs == {1: 150, 2: 350}
    assert found.milliseconds == {1: 3.0, 2: 6.0}
