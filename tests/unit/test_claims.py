import dataclasses
import json
import math
import re
import statistics
from argparse import Namespace
from pathlib import Path

import pytest
import set_step
import torch
import yaml
from checkout import (
    ROOT,
    check_all,
    copy_checkout,
    edit_yaml,
    snakemake,
    written,
)

from clockwork_experiments.base import storage
from clockwork_experiments.claims.evidence import Evidence, Measurements
from clockwork_experiments.claims.registry import (
    METRICS,
    Cell,
    Claim,
    ClaimsSpec,
    Margin,
    Part,
)
from clockwork_experiments.claims.statistics import (
    Measured,
    frechet,
    per_caption,
    per_source,
    retrained,
)
from clockwork_experiments.claims.text import summary, to_json, to_markdown
from clockwork_experiments.claims.verdicts import (
    FAILS,
    HOLDS,
    UNDECIDED,
    Contrast,
    Judged,
    JudgedClaim,
    Number,
    contrasts,
    primary_verdicts,
    sign_agreement,
    verdict_of,
    verdict_of_all,
)
from clockwork_experiments.claims.verdicts import judge as judge_all
from clockwork_experiments.config.parse import parse
from clockwork_experiments.score import dead, metrics
from clockwork_experiments.score.student import FEW, student_quantile

REGISTRY = yaml.safe_load(
    (ROOT / "workflow" / "papers" / "clockwork.yaml").read_text("utf-8")
)["claims"]["mini"]
COUNTS = {
    "full": {"flops": 100.0},
    "adaptors": {"resnet": {"step": {"flops": 40.0}}},
}


def noise(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def settings(steps: int = 8, clock: int = 1) -> dict:
    return {
        "model": "sd",
        "adaptor": "resnet" if clock > 1 else "",
        "sampler": {"steps": steps, "guidance": 1.0, "clock": clock},
        "dataset": "test",
        "reference": "other",
        "captions": CAPTIONS,
    }


CAPTIONS, SEEDS, DIM = 60, 3, 6
RUNS = {
    "plain": settings(),
    "clocked": settings(clock=2),
    "worse": settings(3),
    **{f"steps{steps}": settings(steps) for steps in (6, 5)},
}


def evidence(**shifts: float) -> Evidence:
    """Return runs on the same captions; a run is the worse the larger its shift.

    Its Fréchet features are those of the plain run, shifted: the distance to the
    reference grows by the shift's square times their number. Its images turn away from
    their captions by an angle.
    """
    base = noise(CAPTIONS * SEEDS, DIM, seed=1)
    text = torch.zeros(CAPTIONS * SEEDS, 2, dtype=torch.float64)
    text[:, 0] = 1
    features = {
        "test": {"clip_text": text},
        "other": {"frechet": noise(4000, DIM, seed=2)},
    }
    for index, name in enumerate(RUNS):
        shift = shifts.get(name, 0.0)
        own = noise(CAPTIONS * SEEDS, seed=100 + index)
        angle = 0.3 + shift + 0.02 * noise(CAPTIONS * SEEDS, seed=3) + 0.01 * own
        features[name] = {
            "frechet": base + shift + 0.02 * noise(*base.shape, seed=50 + index),
            "clip_image": torch.stack([angle.cos(), angle.sin()], dim=1),
        }
    return Evidence(RUNS, features, flops={"sd": COUNTS})


def registry(margin: Margin, *parts: Part) -> ClaimsSpec:
    claim = Claim("Clockwork is about as good.", parts)
    return ClaimsSpec("Claims", "A caption.", {"m": margin}, {"C1": claim})


QUARTER = Margin("as the paper", share=0.25, better="plain", worse="worse")
EQUAL = Part(
    "with against without",
    "equivalent",
    ("frechet", "clip"),
    "m",
    of="clocked",
    over=("plain",),
)


def judge(margin: Margin, *parts: Part, **shifts: float) -> JudgedClaim:
    return judge_all(registry(margin, *parts), evidence(**shifts))["C1"]


# --- verdicts where the truth is known -----------------------------------------------


def test_equal_runs_are_equivalent_and_unequal_ones_are_not():
    equal = judge(QUARTER, EQUAL, worse=0.5)
    assert [part.verdict for part in equal.parts] == [HOLDS, HOLDS]
    assert equal.verdict == HOLDS
    unequal = judge(QUARTER, EQUAL, worse=0.5, clocked=0.4)
    assert [part.verdict for part in unequal.parts] == [FAILS, FAILS]
    # Four parts in ten of the loss: within a half of it, and not within a quarter.
    half = dataclasses.replace(QUARTER, share=0.9)
    assert judge(half, EQUAL, worse=0.5, clocked=0.4).verdict == HOLDS


def test_an_effect_at_its_margin_is_undecided():
    # cos 0.3 − cos 0.8 is the loss; half of it lies at 0.592.
    half = dataclasses.replace(QUARTER, share=0.5)
    clip = dataclasses.replace(EQUAL, metrics=("clip",))
    angle = math.acos((math.cos(0.3) + math.cos(0.8)) / 2) - 0.3
    judged = judge(half, clip, worse=0.5, clocked=angle)
    assert judged.verdict == UNDECIDED
    assert "1 of 1 are open" in summary(judged)


def test_better_means_lower_frechet_and_higher_clip():
    direction = Margin("a direction")
    better = Part("x", "greater", ("frechet", "clip"), "m", of="plain", over=("worse",))
    worse = dataclasses.replace(better, of="worse", over=("plain",))
    found = judge(direction, better, worse=0.5)
    assert found.verdict == HOLDS
    # A shift of 0.5 in 6 features adds 1.5, but for what the sample's mean adds.
    assert found.parts[0].effect.value == pytest.approx(1.5, abs=0.5)
    loss = math.cos(0.3) - math.cos(0.8)
    assert found.parts[1].effect.value == pytest.approx(loss, abs=0.01)
    assert judge(direction, worse, worse=0.5).verdict == FAILS
    # Between two runs that differ by chance alone there is no direction.
    chance = dataclasses.replace(better, over=("steps6",))
    assert judge(direction, chance, worse=0.5).verdict == UNDECIDED


def test_no_worse_allows_a_small_loss_and_any_gain():
    no_worse = dataclasses.replace(EQUAL, test="no_worse")
    assert judge(QUARTER, no_worse, worse=0.5, clocked=0.03).verdict == HOLDS
    assert judge(QUARTER, no_worse, worse=0.5, clocked=0.4).verdict == FAILS
    gain = judge(QUARTER, no_worse, plain=0.4, worse=0.5, steps6=0.4)
    assert gain.verdict == HOLDS
    equal = judge(QUARTER, EQUAL, plain=0.4, worse=0.5, steps6=0.4)
    assert equal.verdict == FAILS


def test_without_a_measurable_loss_there_is_nothing_to_judge_by():
    judged = judge(QUARTER, EQUAL, worse=0.0, clocked=0.4)
    assert judged.verdict == UNDECIDED
    assert all("loss of worse" in part.note for part in judged.parts)


def test_the_uncertainty_of_a_measured_margin_counts():
    samples = noise(400, seed=0)
    samples = samples - samples.mean()
    effect = per_caption(0.01 * noise(400, seed=1) + 0.9, 400)
    known = contrasts("greater", effect, 0.8)
    vague = contrasts("greater", effect, per_caption(5 * samples + 0.8, 400))
    sure = per_caption(0.0 * samples + 0.8, 400)
    assert verdict_of(known) == HOLDS
    assert contrasts("greater", effect, sure)[0].low == pytest.approx(known[0].low)
    assert verdict_of(vague) == UNDECIDED


def test_a_claim_holds_if_all_parts_do_and_not_if_any_does_not():
    assert verdict_of_all([HOLDS, HOLDS]) == HOLDS
    assert verdict_of_all([HOLDS, UNDECIDED]) == UNDECIDED
    assert verdict_of_all([HOLDS, UNDECIDED, FAILS]) == FAILS


def test_parts_of_ours_are_shown_and_have_no_vote():
    own = Part("own", "greater", ("clip",), "m", "worse", ("plain",), ours=True)
    margin = Margin("as far as that", value=0.1)
    judged = judge(
        margin, dataclasses.replace(EQUAL, metrics=("clip",)), own, worse=0.5
    )
    assert [part.verdict for part in judged.parts] == [HOLDS, FAILS]
    assert judged.verdict == HOLDS and judged.tested == 1


def test_failing_takes_more_where_there_are_more_parts_and_holding_does_not():
    # An effect 2.5 standard errors below zero.
    values = noise(1000, seed=4)
    values = (values - values.mean()) / values.std() - 2.5 / math.sqrt(1000)
    effect = per_caption(values, 1000)
    verdicts = [
        verdict_of(contrasts("greater", effect, 0.0, tested)) for tested in (1, 20)
    ]
    assert verdicts == [FAILS, UNDECIDED]
    assert verdict_of(contrasts("greater", -effect, 0.0, 20)) == HOLDS


def test_counted_parts_have_bounds_and_no_chance():
    third = Margin("a third", value=0.29, at_most=0.42)
    counted = Part("x", "counted", ("flops",), "m", of="clocked", over=("plain",))
    judged = judge(third, counted)
    # 4 · 100 + 4 · 40 of 800.
    assert judged.parts[0].effect == Number(pytest.approx(0.3))
    assert judged.verdict == HOLDS
    assert judge(dataclasses.replace(third, value=0.31), counted).verdict == FAILS
    assert judge(dataclasses.replace(third, at_most=0.295), counted).verdict == FAILS


# --- intervals -----------------------------------------------------------------------


def test_student_quantiles_of_the_tables():
    found = [student_quantile(df, 0.975) for df in (1, 2, 9, 15, 19, 100)]
    expected = [12.7062, 4.3027, 2.2622, 2.1314, 2.0930, 1.9840]
    assert found == pytest.approx(expected, abs=1e-4)
    assert student_quantile(9, 0.995) == pytest.approx(3.2498, abs=1e-4)


@pytest.mark.parametrize("captions", [16, 52])
def test_intervals_of_means_cover_and_need_the_clusters(captions):
    covered, naive = 0, 0
    for seed in range(100):
        # Seeds of a caption have most of their error in common.
        shared = noise(captions, seed=2 * seed).repeat(4)
        rows = shared + 0.5 * noise(4 * captions, seed=2 * seed + 1)
        low, high = per_caption(rows, captions).interval()
        covered += low <= 0 <= high
        low, high = per_caption(rows, len(rows)).interval()
        naive += low <= 0 <= high
    # Of 100 at 95 %; fewer have a probability of 0.15 %.
    assert 88 <= covered < 100
    assert naive < 80


def retrained_gain(seed: int, apart: float) -> Measured:
    """Return a gain of nothing over captions and three training seeds."""
    trained = apart * noise(3, seed=3 * seed)
    rows = noise(52, seed=3 * seed + 1)
    each = [
        per_caption(rows + 0.2 * noise(52, seed=9000 + 3 * seed + k), 52)
        + float(trained[k])
        for k in range(3)
    ]
    return retrained(each, "resnet")


def test_intervals_cover_other_trainings_too():
    covered, naive = 0, 0
    for seed in range(100):
        found = retrained_gain(seed, apart=0.5)
        low, high = found.interval()
        covered += low <= 0 <= high
        low, high = dataclasses.replace(found, trainings={}).interval()
        naive += low <= 0 <= high
    assert covered >= 88  # of 100 at 95 %; fewer have a probability of 0.15 %
    assert naive < 80


def test_of_one_adaptor_training_seeds_make_pairs():
    found = retrained_gain(0, apart=5.0)
    low, high = (found - found * 0.9).interval()
    alone = dataclasses.replace(found, trainings={}) * 0.1
    # What training moves in both is a tenth in their difference.
    assert high - low == pytest.approx(
        0.1 * (found.interval()[1] - found.interval()[0])
    )
    assert high - low > 3 * (alone.interval()[1] - alone.interval()[0])
    other = dataclasses.replace(found, trainings={"other": found.trainings["resnet"]})
    # Of two adaptors, what training moves in each counts: 4 degrees of freedom.
    error = math.sqrt(2 * float(found.trainings["resnet"].var()) / 3)
    assert (found - other).interval()[1] == pytest.approx(2.7764 * error, rel=1e-3)
    assert found.method == "Student's t over 52 captions, and 3 training seeds"
    assert found.tail() == pytest.approx(1 - (-found).tail(), abs=1e-6)


def test_runs_of_several_training_seeds_are_judged_together():
    known = evidence(clocked=0.1, worse=0.3)
    runs = {
        **RUNS,
        "clocked": {**RUNS["clocked"], "trained": "resnet", "replicates": ["worse"]},
    }
    found = Measurements(dataclasses.replace(known, runs=runs))
    for metric in ("frechet", "clip"):
        each = [Measurements(known).score(metric, n) for n in ("clocked", "worse")]
        both = found.score(metric, "clocked")
        assert both.value == pytest.approx(sum(one.value for one in each) / 2)
        half = (each[0].value - each[1].value) / 2
        assert both.trainings["resnet"].tolist() == pytest.approx([half, -half])


def test_intervals_of_frechet_differences_cover():
    reference = metrics.statistics(noise(3000, 4, seed=9))
    covered = 0
    for seed in range(40):
        shared = 0.3 + noise(90, 4, seed=3 * seed).repeat(2, 1)
        one, other = (
            frechet(
                shared + 0.5 * noise(180, 4, seed=1000 + 3 * seed + k), reference, 90
            )
            for k in (1, 2)
        )
        low, high = (one - other).interval()
        covered += low <= 0 <= high
    assert covered >= 34  # of 40 at 95 %; fewer have 0.3 %


def test_seeds_that_repeat_one_another_shrink_no_interval():
    values = noise(50, seed=5)
    once, thrice = (per_caption(values.repeat(k), 50) for k in (1, 3))
    assert thrice.interval() == pytest.approx(once.interval())
    # 50 captions in 20 groups: grouping rows instead would part a caption's seeds.
    features = noise(50, 4, seed=6) + 0.3
    reference = metrics.statistics(noise(3000, 4, seed=7))
    once, thrice = (frechet(features.repeat(k, 1), reference, 50) for k in (1, 3))
    widths = [high - low for low, high in (once.interval(), thrice.interval())]
    assert widths[1] == pytest.approx(widths[0], rel=0.1)
    assert len(thrice.by_seed) == 3


def test_the_wider_level_is_wider():
    for measured in (
        per_caption(noise(200, seed=1), 200),
        per_caption(noise(10, seed=1), 10),
        frechet(noise(60, 3, seed=1), metrics.statistics(noise(99, 3, seed=2)), 60),
    ):
        low, high = measured.interval()
        wide_low, wide_high = measured.interval(0.995)
        assert wide_low < low < measured.value < high < wide_high


def test_rows_are_of_captions_first_and_seeds_second():
    # Two seeds of three captions: the second seed adds 10.
    rows = torch.tensor([1.0, 2.0, 6.0, 11.0, 12.0, 16.0])
    measured = per_caption(rows, 3)
    assert measured.samples.tolist() == [6, 7, 11]
    assert measured.by_seed.tolist() == [3, 13]
    assert measured.value == 8 and measured.n == 3
    with pytest.raises(ValueError, match="6 rows are no whole number of 4 captions"):
        per_caption(rows, 4)


def test_what_is_undefined_is_left_out():
    rows = torch.tensor([1.0, math.nan, 3.0, 3.0, math.nan, 5.0])
    measured = per_caption(rows, 3)
    assert measured.samples.tolist() == [2, 4] and measured.n == 2


def test_runs_of_other_captions_or_seeds_make_no_pairs():
    one = per_caption(noise(6, seed=0), 6)
    with pytest.raises(ValueError, match="6 captions and 4 captions make no pairs"):
        one - per_caption(noise(4, seed=0), 4)
    with pytest.raises(ValueError, match="of 1 and of 2 sampling seeds"):
        one - per_caption(noise(12, seed=0), 6)


# --- measurements --------------------------------------------------------------------


def test_interpolation_at_equal_flops():
    measurements = Measurements(evidence(steps6=0.1, steps5=0.3, worse=0.8))
    # 560 FLOPs lie 0.6 of the way from 5 to 6 steps.
    weights = measurements.weights("clocked", ("steps6", "worse", "steps5"))
    assert weights == pytest.approx({"steps6": 0.6, "steps5": 0.4})
    gain = measurements.gain("clip", "clocked", weights)
    parts = [measurements.score("clip", name).value for name in ("steps6", "steps5")]
    mean = 0.6 * parts[0] + 0.4 * parts[1]
    expected = measurements.score("clip", "clocked").value - mean
    assert gain.value == pytest.approx(expected)
    with pytest.raises(ValueError, match="which no two of plain, steps6 enclose"):
        measurements.weights("clocked", ("plain", "steps6"))


def test_clip_above_chance_is_zero_for_images_of_no_caption():
    text = noise(CAPTIONS, 8, seed=1).repeat(SEEDS, 1)
    features = {
        "test": {"clip_text": text},
        "plain": {"clip_image": text},
        "worse": {"clip_image": noise(1, 8, seed=2).repeat(len(text), 1)},
    }
    measurements = Measurements(Evidence(RUNS, features))
    assert measurements.score("clip_above_chance", "plain").value > 0.8
    assert abs(measurements.score("clip_above_chance", "worse").value) < 1e-9


def test_psnr_to_the_teachers_images():
    black = torch.zeros(CAPTIONS, 3, 4, 4, dtype=torch.uint8)
    images = {"plain": black, "clocked": black + 51, "worse": black + 102}
    part = Part("x", "greater", ("psnr",), "m", "clocked", ("worse",), to="plain")
    given = Evidence(RUNS, images=lambda name: [images[name]])
    spec = registry(Margin("a direction"), part)
    judged = judge_all(spec, given)["C1"]
    assert judged.verdict == HOLDS
    assert judged.parts[0].effect.value == pytest.approx(20 * math.log10(2))


def test_savings_of_time_are_of_paired_turns():
    # The machine slows down by half; the saving stays 25 %, give or take.
    plain = [100 + 5 * turn for turn in range(10)]
    clocked = [0.75 * ms + (-1) ** turn for turn, ms in enumerate(plain)]
    timed = {"runs": {"plain": {"runs": plain}, "clocked": {"runs": clocked}}}
    part = Part("x", "greater", ("latency",), "m", "clocked", ("plain",))

    def verdict(threshold: float) -> JudgedClaim:
        spec = registry(Margin("printed", value=threshold), part)
        return judge_all(spec, Evidence(RUNS, latency=timed))["C1"]

    assert verdict(0.2).verdict == HOLDS
    assert verdict(0.3).verdict == FAILS
    assert verdict(0.25).verdict == UNDECIDED
    assert verdict(0.2).parts[0].n == 10
    timed["runs"]["clocked"]["runs"] = clocked[1:]
    with pytest.raises(ValueError, match="claim C1: 9 turns of 'clocked' and 10"):
        verdict(0.2)


def perturbation(n: int = 16) -> dict:
    """Return distances that fall by a factor e in UP-0 and stay in UP-2."""
    cells = []
    for layer, start, level in (
        ("up_blocks.0", 0, math.e),
        ("up_blocks.0", 10, 1.0),
        ("up_blocks.2", 10, math.e),
    ):
        values = (level * (0.1 * noise(n, seed=len(cells))).exp()).tolist()
        cells.append(
            {
                "layer": layer,
                "alpha": 0.7,
                "start": start,
                "values": {"image_distance": [None, *values[1:]]},
            }
        )
    return {"n": n, "cells": cells}


def test_cells_of_a_perturbation_sum_up():
    cells = (Cell("up_blocks.0", 0, 1.0), Cell("up_blocks.0", 10, -1.0))
    part = Part(
        "x",
        "greater",
        ("image_distance",),
        "m",
        perturbation="p",
        alpha=0.7,
        log=True,
        cells=cells,
    )
    given = Evidence({}, perturbations={"p": perturbation()}, captions={"p": 16})
    spec = registry(Margin("a factor of two", value=math.log(2)), part)
    judged = judge_all(spec, given)["C1"]
    assert judged.verdict == HOLDS and judged.parts[0].n == 15
    assert judged.parts[0].effect.value == pytest.approx(1, abs=0.1)
    assert judged.parts[0].interval == "95 % Student's t over 15 captions"
    other = dataclasses.replace(part, alpha=0.3)
    with pytest.raises(ValueError, match="claim C1: .* layer 'up_blocks.0', α 0.3"):
        judge_all(registry(Margin("x"), other), given)


# --- editing -------------------------------------------------------------------------

SOURCES, PROMPTS = 60, 4
LOOP = {"steps": 50, "clock": 1, "adaptor": ""}
CLOCKED = {"steps": 50, "clock": 2, "adaptor": "resnet"}
TAUS = {"guidance": 7.5, "tau_f": 0.8, "tau_a": 0.5}
EDITED_RUNS = {
    f"real/{name}/steps50": {
        "model": "sd",
        "inversion": loop,
        "generation": {**loop, **TAUS},
    }
    for name, loop in (("pnp", LOOP), ("clocked", CLOCKED))
}


def name_of(edit: str, edit_set: str = "real") -> str:
    return f"{edit_set}/{edit}/steps50"


def edits(sources: int = SOURCES, edit_set: str = "real", **shifts: float) -> dict:
    """Return scores of edited runs; a run is the worse the larger its shift.

    Sources differ by more than runs do, and pairs of a run by less.
    """
    source = torch.arange(sources).repeat(PROMPTS)
    scored = {}
    for index, edit in enumerate(("pnp", "clocked", "guided", "unedited")):
        shift = shifts.get(edit, 0.0)
        own = 0.001 * noise(2, len(source), seed=20 + index)
        level = 0.05 * noise(sources, seed=10)[source]
        scored[name_of(edit, edit_set)] = {
            "clip": 0.25 + level - shift + own[0],
            "structure": 0.1 + level + shift + own[1],
            "source": source,
        }
    return scored


LOSS = Margin(
    "a tenth of a loss", share=0.1, better=name_of("pnp"), worse=name_of("guided")
)
EDITS = Part(
    "clock 2 against without",
    "equivalent",
    ("edit_clip", "structure"),
    "m",
    of=name_of("clocked"),
    over=(name_of("pnp"),),
)


def judge_edits(margin: Margin, part: Part, **shifts: float) -> JudgedClaim:
    given = Evidence(EDITED_RUNS, flops={"sd": COUNTS}, edits=edits(**shifts))
    return judge_all(registry(margin, part), given)["C1"]


def test_edited_runs_have_known_effects_whose_sign_is_for_the_better():
    worse = dataclasses.replace(EDITS, test="greater")
    better = dataclasses.replace(worse, of=EDITS.over[0], over=(EDITS.of,))
    direction = Margin("a direction")
    for part, effect, verdict in ((worse, -0.02, FAILS), (better, 0.02, HOLDS)):
        judged = judge_edits(direction, part, clocked=0.02)
        assert [each.metric for each in judged.parts] == ["edit_clip", "structure"]
        for each in judged.parts:
            assert each.effect.value == pytest.approx(effect, abs=0.0005)
            assert each.verdict == verdict
            assert (each.n, each.unit) == (SOURCES, "sources")
            # Sources spread by 0.05, pairs of one source by next to nothing.
            assert abs(each.standardised) == pytest.approx(0.02 / 0.05, rel=0.2)


def test_margins_of_edited_runs_are_shares_of_their_losses():
    equal = judge_edits(LOSS, EDITS, guided=0.1)
    assert [part.verdict for part in equal.parts] == [HOLDS, HOLDS]
    assert equal.parts[1].margin.value == pytest.approx(0.01, abs=0.0005)
    assert judge_edits(LOSS, EDITS, guided=0.1, clocked=0.02).verdict == FAILS
    half = dataclasses.replace(LOSS, share=0.5)
    assert judge_edits(half, EDITS, guided=0.1, clocked=0.02).verdict == HOLDS
    # The source itself fits the target prompt less: a loss of CLIP alone.
    unedited = dataclasses.replace(LOSS, worse=name_of("unedited"))
    assert judge_edits(unedited, EDITS, unedited=0.1).verdict == HOLDS
    nothing = judge_edits(unedited, EDITS, unedited=-0.1)
    assert nothing.verdict == UNDECIDED
    assert "nothing to judge by" in nothing.parts[0].note


def test_sources_are_averaged_before_they_count():
    """By hand: sources of one, two and three prompts, in no order."""
    values = torch.tensor([4.0, 1.0, 7.0, 3.0, 8.0, 9.0])
    measured = per_source(values, torch.tensor([5, 2, 9, 2, 9, 9]))
    assert measured.samples.tolist() == [2, 4, 8]
    assert measured.value == pytest.approx(14 / 3) and measured.n == 3
    # t of 2 degrees of freedom; the mean over pairs would be 16 / 3.
    half = 4.3027 * statistics.stdev([2, 4, 8]) / math.sqrt(3)
    assert measured.interval() == pytest.approx(
        (14 / 3 - half, 14 / 3 + half), rel=1e-4
    )
    assert measured.method == "Student's t over 3 sources"


@pytest.mark.parametrize("sources", [12, 60])
def test_intervals_of_edited_runs_are_those_of_source_means(sources):
    """Against the textbook, on means of a plain loop."""
    scored = edits(sources, clocked=0.02)
    given = Evidence({}, edits=scored)
    gain = Measurements(given).gain(
        "structure", name_of("pnp"), {name_of("clocked"): 1.0}
    )
    pairs: dict[int, list[float]] = {}
    for pair, source in enumerate(scored[name_of("pnp")]["source"].tolist()):
        one, other = (scored[name_of(edit)] for edit in ("clocked", "pnp"))
        difference = float(one["structure"][pair] - other["structure"][pair])
        pairs.setdefault(source, []).append(difference)
    means = [sum(values) / len(values) for values in pairs.values()]
    assert len(means) == sources and gain.value == pytest.approx(statistics.mean(means))
    error = statistics.stdev(means) / math.sqrt(sources)
    low, high = gain.interval()
    if sources < FEW:
        half, tolerance = 2.2010 * error, 1e-4
    else:
        half, tolerance = 1.96 * error, 0.05
    assert (high - low) / 2 == pytest.approx(half, rel=tolerance)
    assert (high + low) / 2 == pytest.approx(gain.value, abs=0.1 * half)


def test_pairs_of_one_source_are_not_so_many_sources():
    scored = edits()[name_of("pnp")]
    clustered = per_source(scored["clip"], scored["source"])
    alone = per_source(scored["clip"], torch.arange(SOURCES * PROMPTS))
    widths = [high - low for low, high in (clustered.interval(), alone.interval())]
    assert widths[0] == pytest.approx(2 * widths[1], rel=0.15)


def test_flops_of_edited_runs_are_counted_by_their_settings():
    counted = dataclasses.replace(EDITS, test="counted", metrics=("flops",))
    third = Margin("about a third", value=0.28, at_most=0.38)
    judged = judge_edits(third, counted)
    # Half of all passes cost 40 instead of 100.
    assert judged.parts[0].effect == Number(pytest.approx(0.3))
    assert judged.verdict == HOLDS


def test_edited_runs_of_other_pairs_do_not_compare():
    scored = edits()
    clocked = scored[name_of("clocked")]
    clocked["source"] = clocked["source"].flip(0)
    given = Evidence({}, edits=scored)
    direction = registry(Margin("a direction"), EDITS)
    with pytest.raises(ValueError, match="not those of other runs of 'real'"):
        judge_all(direction, given)
    del scored[name_of("clocked")]
    with pytest.raises(ValueError, match="clocked/steps50': it is not one of the scor"):
        judge_all(direction, given)


@pytest.mark.parametrize(
    ("values", "sources", "message"),
    [
        ([1.0, 2.0, 3.0], [0, 1], "3 values and 2 sources make no pairs"),
        ([1.0, math.nan, 3.0], [0, 1, 2], "1 pairs have no value"),
        ([1.0, 2.0, 3.0], [4, 4, 4], "1 sources with a value are fewer than 2"),
    ],
)
def test_scores_without_sources_are_refused(values, sources, message):
    with pytest.raises(ValueError, match=message):
        per_source(torch.tensor(values), torch.tensor(sources))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metrics": ("clip",)}, "'clip' is not known of edited runs"),
        ({"metrics": ("psnr",), "to": "x"}, "'psnr' is not known of edited runs"),
        ({"of": "sd", "over": ("x",)}, "'edit_clip' is not known of runs from text"),
        ({"of": "pnp/steps50"}, "'pnp/steps50' is not <edit set>/<edit>/<setting>"),
        ({"of": name_of("clocked", "fake")}, "make no pairs"),
        ({"of": "sd"}, "'sd' and 'real/pnp/steps50' make no pairs"),
    ],
)
def test_parts_that_mix_edited_runs_with_others_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(EDITS, **change)


def test_margins_of_another_edit_set_are_refused():
    with pytest.raises(ValueError, match="make no pairs"):
        dataclasses.replace(LOSS, worse=name_of("guided", "fake"))
    fake = dataclasses.replace(
        LOSS, better=name_of("pnp", "fake"), worse=name_of("guided", "fake")
    )
    with pytest.raises(ValueError, match="'fake/pnp/steps50', which makes no pairs wi"):
        registry(fake, EDITS)
    with pytest.raises(ValueError, match="which makes no pairs with 'clocked'"):
        registry(LOSS, EQUAL)


# --- what makes no part --------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test": "better"}, "test 'better' is not one of greater"),
        ({"metrics": ("fid",)}, "metric 'fid' is not one of frechet"),
        ({"metrics": ("psnr",)}, "PSNR and a target"),
        ({"of": ""}, "'frechet' needs both `of` and `over`"),
        ({"metrics": ("image_distance",)}, "cells of a perturbation"),
        ({"metrics": ("flops",)}, "'flops' does not go with the test 'equivalent'"),
        ({"metrics": ("latency",), "over": ("a", "b")}, "compares with one run"),
    ],
)
def test_parts_that_make_no_comparison_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(EQUAL, **change)


def test_margins_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="a share needs the run"):
        Margin("x", share=0.5)
    with pytest.raises(ValueError, match="stands beside a value"):
        Margin("x", share=0.5, better="plain", value=1.0)
    with pytest.raises(ValueError, match="margin 'n' is not one of m"):
        registry(QUARTER, dataclasses.replace(EQUAL, margin="n"))
    with pytest.raises(ValueError, match="which latency does not have"):
        latency = Part("x", "greater", ("latency",), "m", "clocked", ("plain",))
        registry(QUARTER, latency)
    with pytest.raises(ValueError, match="its first part is the primary one"):
        registry(QUARTER, dataclasses.replace(EQUAL, ours=True))


# --- three layers ---------------------------------------------------------------------


def test_a_p_value_is_what_its_intervals_say():
    many, few = noise(200, seed=5) + 0.15, noise(8, seed=6) + 0.8
    jackknife = Measured(0.3, noise(12, seed=7) * 0.01 + 0.3, many, 12, grouped=True)
    for effect in (per_caption(many, 200), per_caption(few, 8), jackknife):
        for sign in (1.0, -1.0):
            p = (effect * sign).tail()
            low, high = (effect * sign).interval(abs(1 - 2 * p))
            edge = low if p < 0.5 else high
            assert abs(edge) < 0.02 * abs(effect.value), (effect.method, p, low, high)
        assert effect.tail() + (-effect).tail() == pytest.approx(1, abs=0.01)


def part_of(p_holds: float | None, verdict: str = UNDECIDED, **more) -> Judged:
    known = None if p_holds is None else 1 - p_holds
    return Judged(
        *("label", "clip", "greater", verdict, Number(0.01), Number(0.0), None, "m"),
        contrasts=(Contrast(0.1, 0.1, 0.1, p_holds, known),),
        **more,
    )


def test_primary_verdicts_are_corrected_by_holm():
    # 0.025 by 3, 2, 1; what has no p-value takes no share.
    found = primary_verdicts(
        {"a": part_of(0.008), "b": part_of(0.012), "c": part_of(0.03),
         "counted": part_of(None, HOLDS)}
    )  # fmt: skip
    assert found == {"a": HOLDS, "b": HOLDS, "c": UNDECIDED, "counted": HOLDS}
    # The first that is not clear ends it, however clear the next would be alone.
    found = primary_verdicts({name: part_of(0.012) for name in "abc"})
    assert set(found.values()) == {UNDECIDED}
    found = primary_verdicts({"a": part_of(0.999), "b": part_of(0.5)})
    assert found == {"a": FAILS, "b": UNDECIDED}
    assert primary_verdicts({"a": part_of(0.001, judgeable=False)}) == {"a": UNDECIDED}


def test_signs_are_those_of_printed_effects():
    better, worse, none = ((0.3, 0.2), (0.2, 0.3), (0.3, 0.3))
    parts = [part_of(0.1, printed=each) for each in (better, worse, none, None)]
    assert sign_agreement(parts) == (1, 2)


def test_a_margin_may_be_a_share_of_each_metrics_own_score():
    margin = Margin("m", shares={"frechet": 0.5, "clip": 0.02}, better="plain")
    judged = judge(margin, EQUAL)
    distance, clip = (part.margin for part in judged.parts)
    plain = Measurements(evidence())
    assert distance.value == pytest.approx(0.5 * plain.score("frechet", "plain").value)
    assert clip.value == pytest.approx(0.02 * plain.score("clip", "plain").value)
    with pytest.raises(ValueError, match="no share for clip"):
        registry(dataclasses.replace(margin, shares={"frechet": 0.5}), EQUAL)
    with pytest.raises(ValueError, match="one run's own score"):
        dataclasses.replace(margin, worse="worse")


# --- for people ----------------------------------------------------------------------


def test_markdown_says_the_verdict_with_its_numbers():
    printed = {"clip": (0.295, 0.3)}
    clip = dataclasses.replace(EQUAL, metrics=("clip",), printed=printed)
    own = dataclasses.replace(EQUAL, metrics=("clip",), label="own", ours=True)
    spec = registry(QUARTER, clip, own)
    judged = judge_all(spec, evidence(worse=0.5, clocked=0.4))
    text = to_markdown(spec, judged)
    effect = math.cos(0.7) - math.cos(0.3)
    shown = f"−{abs(judged['C1'].parts[0].effect.value):.4f}"
    assert abs(judged["C1"].parts[0].effect.value - effect) < 0.005
    lines = text.splitlines()
    layers = [line for line in lines if line.startswith("- **")][:3]
    assert layers == [
        "- **Signs**: 1 of 1 printed effects have the printed sign here, 100% "
        "[21%, 100%].",
        "- **Primary parts**: of 1 claims 0 hold, 1 does not hold and 0 are undecided.",
        "- **All parts**: of 1 claims 0 hold, 1 does not hold and 0 are undecided.",
    ]
    assert (
        "| C1 | Clockwork is about as good. | 1 of 1 | **does not hold** | 0, 1, 0 "
        "| does not hold |" in lines
    )
    (sentence,) = (line for line in lines if line.startswith("Does not hold in 1 of 1"))
    assert "“with against without”, CLIP " + shown in sentence
    assert "where within ±" in sentence
    row, other = (line for line in lines if "within ±" in line and "| CLIP |" in line)
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[0] == "with against without" and cells[2].startswith(shown)
    assert cells[4].count(",") == SEEDS - 1 and cells[5] == f"{CAPTIONS} × {SEEDS}"
    assert cells[6:] == ["0.295, 0.3", "does not hold"]
    assert other.startswith("| own (ours) |")
    assert (
        "- **m** (0.25 of the loss of `worse` against `plain`): as the paper" in lines
    )
    assert "at 1 − 0.05 / k" in text and "(1 tested parts)" in text


def test_json_has_everything():
    spec = registry(QUARTER, EQUAL)
    data = to_json(spec, judge_all(spec, evidence(worse=0.5)))
    data = json.loads(json.dumps(data, allow_nan=False))
    part = data["claims"]["C1"]["parts"][1]
    assert part["effect"]["low"] < part["effect"]["value"] < part["effect"]["high"]
    assert part["compared"] == {"clocked": 1.0, "plain": -1.0}
    assert len(part["by_seed"]) == SEEDS and part["n"] == CAPTIONS
    assert abs(part["standardised"]) < 1 and part["failing_level"] == 0.975
    assert len(part["contrasts"]) == 2
    assert data["margins"]["m"]["why"] == "as the paper"


# --- the step ------------------------------------------------------------------------

DEPTH = (
    "translations",
    "pairs",
    "levels",
    "level_latency",
    "searches",
    "step_searches",
)
"""What other claims are judged by."""


def write_evidence(folder: Path, **shifts: float) -> Namespace:
    features = []
    for name, tensors in evidence(**shifts).features.items():
        # In two shards, that must be joined in order.
        for shard in (0, 1):
            path = folder / name / f"{shard:03d}.safetensors"
            parts = {key: value.chunk(2)[shard] for key, value in tensors.items()}
            storage.write_tensors(path, parts, {"encoders": '{"clip": "x"}'})
            features.append(path)
    storage.write_json(folder / "sd.json", COUNTS)
    return Namespace(
        spec=json.dumps(dataclasses.asdict(registry(QUARTER, EQUAL))),
        settings=json.dumps({"runs": RUNS, "perturbations": {}}),
        features=features,
        images=[],
        flops=[folder / "sd.json"],
        perturbations=[],
        edits=[],
        **dict.fromkeys(DEPTH, ()),
        latency=None,
        output=folder / "out" / "paper.md",
    )


def test_step_writes_both_files(tmp_path):
    arguments = write_evidence(tmp_path, worse=0.5)
    set_step.claims(arguments)
    data = storage.read_json(tmp_path / "out" / "paper.json")
    expected = judge(QUARTER, EQUAL, worse=0.5)
    found = [part["effect"]["value"] for part in data["claims"]["C1"]["parts"]]
    assert found == pytest.approx([part.effect.value for part in expected.parts])
    assert data["encoders"] == [{"clip": "x"}]
    assert "### C1: holds" in (tmp_path / "out" / "paper.md").read_text("utf-8")


def test_step_refuses_features_of_several_encoders(tmp_path):
    arguments = write_evidence(tmp_path)
    tensors, _ = storage.read_tensors(arguments.features[0])
    storage.write_tensors(arguments.features[0], tensors, {"encoders": '{"clip": "y"}'})
    with pytest.raises(ValueError, match="2 sets of encoders"):
        set_step.claims(arguments)


def test_step_refuses_features_of_dead_images(tmp_path):
    arguments = write_evidence(tmp_path)
    name = arguments.features[0].parent.name
    shards = [path for path in arguments.features if path.parent.name == name]
    # Two shards, of which one has an image that is one.
    for constant, message in (
        (2, ""),
        (3, f"{name}: of 6 images, 6 are of one colour"),
    ):
        for path, count in zip(shards, (3, constant), strict=True):
            tensors, notes = storage.read_tensors(path)
            counts = dead.notes({name: dead.Counts(3, count)})
            storage.write_tensors(path, tensors, {**notes, **counts})
        if message:
            with pytest.raises(ValueError, match=message):
                set_step.claims(arguments)
        else:
            set_step.claims(arguments)


def write_edits(folder: Path, encoders: str = '{"clip": "x"}') -> Namespace:
    """Write the scores of two edit sets as two files each; judge the second setting."""
    paths = []
    for edit_set, shift in (("real", 0.02), ("fake", 0.5)):
        scored = edits(edit_set=edit_set, clocked=shift)
        for setting in ("steps20", "steps50"):
            sign = 1 if setting == "steps50" else -1
            tensors = {"source": torch.arange(SOURCES).repeat(PROMPTS)}
            for run, values in scored.items():
                edit = run.split("/")[1]
                tensors[f"{edit}/clip"] = sign * values["clip"]
                tensors[f"{edit}/structure"] = sign * values["structure"]
                tensors[f"{edit}/psnr_to_true"] = values["clip"]
            path = folder / edit_set / f"{setting}.safetensors"
            made_with = encoders if edit_set == "fake" else '{"clip": "x"}'
            storage.write_tensors(path, tensors, {"encoders": made_with})
            paths.append(path)
    spec = registry(Margin("a direction"), dataclasses.replace(EDITS, test="greater"))
    return Namespace(
        spec=json.dumps(dataclasses.asdict(spec)),
        settings=json.dumps({"runs": EDITED_RUNS, "perturbations": {}}),
        features=[],
        images=[],
        flops=[],
        perturbations=[],
        edits=paths,
        **dict.fromkeys(DEPTH, ()),
        latency=None,
        output=folder / "out" / "paper.md",
    )


def test_step_judges_edited_runs_of_the_set_and_setting_that_are_meant(tmp_path):
    set_step.claims(write_edits(tmp_path))
    data = storage.read_json(tmp_path / "out" / "paper.json")
    found = [part["effect"]["value"] for part in data["claims"]["C1"]["parts"]]
    assert found == pytest.approx([-0.02, -0.02], abs=0.0005)
    assert data["claims"]["C1"]["parts"][0]["n"] == SOURCES
    text = (tmp_path / "out" / "paper.md").read_text("utf-8")
    assert "| clock 2 against without | DINO distance | −0.0" in text
    assert data["encoders"] == [{"clip": "x"}]


def test_step_refuses_edits_scored_by_several_encoders(tmp_path):
    with pytest.raises(ValueError, match="edits scored by 2 sets of encoders"):
        set_step.claims(write_edits(tmp_path, encoders='{"clip": "y"}'))


# --- the registry --------------------------------------------------------------------


def test_registry_has_every_claim():
    spec = parse(ClaimsSpec, REGISTRY)
    wanted = {f"C{number}" for number in range(1, 13)}
    assert set(spec.claims) == wanted
    assert all(len(margin.why) > 20 for margin in spec.margins.values())
    used = {part.margin for claim in spec.claims.values() for part in claim.parts}
    assert used == set(spec.margins)


def test_the_papers_own_numbers_pass_the_tests():
    """A sign the wrong way round, or a margin too narrow for the paper, fails here."""
    spec = parse(ClaimsSpec, REGISTRY)
    # Table 1, without Clockwork.
    scores = {
        "sd": {"frechet": 24.64, "clip": 0.300},
        "efficient": {"frechet": 24.22, "clip": 0.302},
        "distilled": {"frechet": 25.75, "clip": 0.297},
    }
    checked = 0
    for claim in spec.claims.values():
        for part in claim.parts:
            for metric, (of, over) in part.printed.items():
                margin = spec.margins[part.margin]
                if METRICS[metric].sign:
                    own = scores.get(margin.better, {}).get(metric, 0.0)
                    effect = METRICS[metric].sign * (of - over)
                    needed = margin.value + margin.share_of(metric) * own
                else:
                    effect, needed = 1 - of / over, margin.value
                passed = {
                    "greater": effect > needed,
                    "no_worse": effect > -needed,
                    "equivalent": abs(effect) < needed,
                    "counted": needed <= effect <= (margin.at_most or 1),
                }[part.test]
                assert passed, (part.label, metric)
                checked += 1
    assert checked > 40


# --- the workflow --------------------------------------------------------------------

PAPER = "workflow/papers/clockwork.yaml"
LINKED = ("profiles", "resources/mini", "src")
SMALL = {
    "title": "Claims",
    "caption": "A caption.",
    "margins": {"m": {"why": "a direction"}},
    "claims": {
        "C3": {
            "statement": "Clockwork is good.",
            "parts": [
                {
                    "label": "x",
                    "test": "greater",
                    "metrics": ["frechet"],
                    "margin": "m",
                    "of": "sd_clockwork",
                    "over": ["sd"],
                }
            ],
        }
    },
}
CELLS = [{"layer": "up_blocks.9", "start": 0, "weight": 1}]
CASES = {
    "of": ("sd_typo", "run 'sd_typo' is not one of the runs (sd, "),
    "over": (["sd_typo"], "run 'sd_typo' is not one of the runs (sd, "),
    "margin": ("wide", "'wide' is not one of the margins (m)"),
    "metrics": (["latency"], "run 'sd_clockwork' is not one of those timed (sd)"),
    "cells": (CELLS, "'up_blocks.9' is not one of the layers of perturbation"),
}


@pytest.mark.parametrize("key", CASES)
def test_what_a_claim_lacks_is_named(key):
    value, message = CASES[key]
    config, papers = written()
    part = {**SMALL["claims"]["C3"]["parts"][0], key: value}
    if key == "cells":
        part |= {"perturbation": "distances", "alpha": 0.7}
    small = {**SMALL, "claims": {"C3": {"statement": "x", "parts": [part]}}}
    papers["clockwork"]["claims"]["mini"] = small
    if key == "metrics":
        config["mini"]["latency"]["runs"] = ["sd"]
    said = f"clockwork, claim C3 at mini scale: {message}"
    with pytest.raises(ValueError, match=re.escape(said)):
        check_all(config, papers)


def test_claims_are_a_target_with_what_they_are_judged_by(tmp_path):
    checkout = copy_checkout(tmp_path, linked=LINKED)
    edit_yaml(checkout / PAPER, "claims.mini", SMALL)
    done = snakemake(checkout, "--dry-run", "results/mini/claims/clockwork.md")
    assert done.returncode == 0, done.stdout
    (job,) = done.stdout.split("rule judge_claims:")[1:]
    inputs = job.split("input: ")[1].split("\n")[0].split(", ")
    features = [path for path in inputs if path.startswith("results/mini/features/")]
    assert features == [
        f"results/mini/features/{name}/000.safetensors"
        for name in ("sd_clockwork", "sd", "test", "reference")
    ]
    assert "results/mini/flops/sd.json" in inputs
    assert not any("/images/" in path for path in inputs)
