"""Claims on time steps, on made-up searches where the truth is known."""

import dataclasses
import json
import math
from argparse import Namespace
from copy import deepcopy
from pathlib import Path

import pytest
import set_step
import yaml
from step_answers import SEEN, UNSEEN, search

from clockwork_experiments.base import storage
from clockwork_experiments.claims import timesteps
from clockwork_experiments.claims.evidence import Evidence
from clockwork_experiments.claims.registry import Claim, ClaimsSpec, Margin, Part
from clockwork_experiments.claims.timesteps import GammaRange, StepAnswer, gamma_range
from clockwork_experiments.claims.verdicts import (
    FAILS,
    HOLDS,
    UNDECIDED,
    Judged,
    Number,
)
from clockwork_experiments.claims.verdicts import judge as judge_all
from clockwork_experiments.config.parse import parse

REGISTRY = Path(__file__).parents[2] / "workflow" / "papers" / "compression.yaml"

FOUND = {
    "edits": search({5: 0.33, 20: 0.98}, evolved=(5,)),
    "guided": search({5: 0.45, 20: 0.98}),
    "restored": search({5: 1.9}, task="restoration"),
}


def judge(part: Part, margin: Margin | None = None, **searches) -> Judged:
    """Return the first part's verdict."""
    margin = margin or Margin("a direction")
    claim = Claim("Few steps are enough.", (part,))
    spec = ClaimsSpec("Claims", "A caption.", {"m": margin}, {"K4": claim})
    evidence = Evidence({}, step_searches={**FOUND, **searches})
    return judge_all(spec, evidence)["K4"].parts[0]


def part(test: str, metric: str, *asked: object, **compared: str) -> Part:
    return Part("x", test, (metric,), "m", steps=StepAnswer(*asked, **compared))


def changed(name: str, method: str, steps: int, /, **values) -> dict:
    """Return a search of which one answer is another."""
    found = deepcopy(FOUND[name])
    answers = found["searches"]
    chosen = timesteps.answer_of({name: found}, name, steps, method)
    answers[answers.index(chosen)] = {**chosen, **values}
    return found


# --- held-out pairs -------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["steps_psnr", "steps_clip_image", "steps_target"])
def test_time_steps_are_compared_in_held_out_pairs(metric):
    judged = judge(part("greater", metric, "edits", 5, "greedy", over="uniform"))
    score = timesteps.SCORES[metric]
    answer = timesteps.answer_of(FOUND, "edits", 5, "greedy")
    gain = answer["heldout"]["minus_uniform"][score]
    assert judged.effect.value == pytest.approx(gain["value"])
    # The made-up interval is of two standard errors, ours of Student's t.
    assert judged.effect.low == pytest.approx(gain["low"], abs=0.1 * gain["value"])
    assert (judged.n, judged.unit) == (UNSEEN, "held-out pairs")
    assert judged.verdict == HOLDS
    assert judged.compared == {"edits/5/greedy": 1.0, "edits/5/uniform": -1.0}


def test_a_gain_holds_fails_or_is_undecided():
    asked = part("greater", "steps_psnr", "edits", 5, "greedy", over="uniform")
    for margin, verdict in ((1.0, HOLDS), (4.0, FAILS)):
        assert judge(asked, Margin("x", value=margin)).verdict == verdict
    at = judge(asked).effect.value
    assert judge(asked, Margin("x", value=at)).verdict == UNDECIDED
    back = part("greater", "steps_psnr", "edits", 5, "uniform", over="greedy")
    assert judge(back).verdict == FAILS
    # What is marginal is no more than a margin.
    marginal = part("no_worse", "steps_psnr", "edits", 20, "uniform", over="greedy")
    assert judge(marginal, Margin("x", value=0.5)).verdict == HOLDS
    marginal = part("no_worse", "steps_psnr", "edits", 5, "uniform", over="greedy")
    assert judge(marginal, Margin("x", value=0.5)).verdict == FAILS


# --- γ --------------------------------------------------------------------------------


def trials(*points: tuple[float, float], **changes) -> dict:
    best = max(points, key=lambda point: point[1])
    listed = [{"gamma": gamma, "quality": quality} for gamma, quality in points]
    answer = {"method": "bracketed", "gamma": best[0], "quality": best[1]}
    return {**answer, "trials": listed, **changes}


def test_the_range_of_a_gamma_is_what_is_as_good():
    # 0.02 dB fall over ln 2 on one side, so half of it is enough; on the other 0.1.
    found = gamma_range(trials((0.5, 19.98), (1.0, 20.0), (2.0, 19.9), (4.0, 18.0)))
    assert found.value == 0
    assert found.low == pytest.approx(-math.log(2) / 2)
    assert found.high == pytest.approx(math.log(2) / 10)
    # As good throughout, and beyond the last trial nothing is known.
    flat = gamma_range(trials((1.0, 20.0), (2.0, 19.995), (4.0, 19.991)))
    assert (flat.low, flat.high) == (0, pytest.approx(math.log(4)))
    with pytest.raises(ValueError, match="'evolution_psnr' finds time steps without"):
        gamma_range(trials((1.0, 20.0), gamma=None, method="evolution_psnr"))


def test_ratios_of_gamma_are_as_uncertain_as_both():
    ratio = GammaRange(-1.0, -1.1, -0.8) - GammaRange(-0.5, -0.7, -0.4)
    assert [ratio.value, ratio.low, ratio.high] == pytest.approx([-0.5, -0.7, -0.1])


@pytest.mark.parametrize(
    ("name", "metric", "verdict"),
    [
        ("edits", "gamma_below", HOLDS),
        ("edits", "gamma_above", FAILS),
        ("restored", "gamma_above", HOLDS),
        ("restored", "gamma_below", FAILS),
    ],
)
def test_the_side_of_a_gamma_is_judged_where_both_are_searched(name, metric, verdict):
    judged = judge(part("greater", metric, name, 5, "bracketed"))
    assert judged.verdict == verdict
    gamma = timesteps.answer_of(FOUND, name, 5, "bracketed")["gamma"]
    sign = 1 if metric == "gamma_above" else -1
    assert judged.effect == Number(pytest.approx(sign * math.log(gamma)))
    assert judged.note.startswith(f"γ {gamma:.3f} [") and " dB over" in judged.note


def test_a_side_counts_as_far_as_its_steps_are_better():
    asked = part("greater", "gamma_below", "edits", 5, "bracketed")
    even = timesteps.answer_of(FOUND, "edits", 5, "uniform")["heldout"]["pairs"]
    # Better and worse in turns: γ is below 1, and might as well be above.
    pairs = [x + (1 if at % 2 else -1) for at, x in enumerate(even["psnr_to_teacher"])]
    chance = changed(
        "edits", "bracketed", 5, heldout={"pairs": {"psnr_to_teacher": pairs}}
    )
    judged = judge(asked, edits=chance)
    assert judged.verdict == UNDECIDED and judged.effect.value > 1
    # Next to 1 there is no side.
    answer = timesteps.answer_of(FOUND, "edits", 5, "bracketed")
    near = changed("edits", "bracketed", 5, gamma=0.995, heldout=answer["heldout"])
    assert judge(asked, Margin("x", value=0.01), edits=near).verdict == UNDECIDED
    assert judge(asked, Margin("x", value=0.001), edits=near).verdict == HOLDS


def drawn_again(name: str, apart: float) -> dict:
    """Return a search that was run on eight resampled sets, so far apart in ln γ."""
    answer = timesteps.answer_of(FOUND, name, 5, "bracketed")
    spread = [apart * (k - 3.5) for k in range(8)]
    again = [answer["gamma"] * math.exp(x) for x in spread]
    return changed(name, "bracketed", 5, resampled=again)


def test_resampled_searches_give_a_gamma_its_interval():
    asked = part("greater", "gamma_below", "edits", 5, "bracketed")
    near = judge(asked, edits=drawn_again("edits", 0.1))
    assert near.verdict == HOLDS and near.unit == "resampled searches"
    # The standard error is the spread of what is found, not that of its mean.
    half = 2.3646 * 0.1 * math.sqrt(6)
    assert near.effect.high - near.effect.value == pytest.approx(half, rel=1e-3)
    assert judge(asked, edits=drawn_again("edits", 1.0)).verdict == UNDECIDED
    above = part("greater", "gamma_above", "edits", 5, "bracketed")
    assert judge(above, edits=drawn_again("edits", 0.1)).verdict == FAILS


def test_gammas_of_equal_draws_make_pairs():
    asked = part("greater", "gamma_ratio", "guided", 5, "bracketed", than="edits")
    known = {name: drawn_again(name, 0.3) for name in ("edits", "guided")}
    judged = judge(asked, **known)
    assert judged.verdict == HOLDS
    assert judged.effect.high == pytest.approx(judged.effect.value)


def test_two_gammas_are_told_apart_by_their_ranges():
    asked = {
        test: part(test, "gamma_ratio", "guided", 5, "bracketed", than="edits")
        for test in ("greater", "no_worse", "equivalent")
    }
    small = Margin("x", value=0.02)
    rises = judge(asked["greater"], small)
    assert rises.verdict == HOLDS
    assert rises.effect.value == pytest.approx(math.log(0.45 / 0.33), abs=0.02)
    assert " against 0.3" in rises.note
    assert judge(asked["equivalent"], small).verdict == FAILS
    assert judge(asked["equivalent"], Margin("x", value=0.4)).verdict == HOLDS
    falls = part("no_worse", "gamma_ratio", "edits", 5, "bracketed", than="guided")
    assert judge(falls, small).verdict == FAILS
    # As good from 0.3 to 0.5: then it may as well be the same.
    points = ((0.3, 20.0), (0.4, 20.001), (0.5, 20.0))
    flat = changed("edits", "bracketed", 5, **trials(*points))
    assert judge(asked["equivalent"], small, edits=flat).verdict == UNDECIDED
    assert judge(falls, small, edits=flat).verdict == UNDECIDED


# --- what a search takes --------------------------------------------------------------


def test_less_search_is_counted_against_the_full_budget():
    answer = timesteps.answer_of(FOUND, "edits", 5, "greedy")
    tries = answer["evaluations"]
    cost = part("counted", "search_cost", "edits", 5, "greedy")
    ratio = 499 * 1000 * 5 / (100 * (5 * tries + 50))
    judged = judge(cost, Margin("x", value=62))
    assert judged.effect.value == pytest.approx(ratio)
    assert judged.verdict == (HOLDS if ratio >= 62 else FAILS)
    assert judge(cost, Margin("x", value=ratio + 1)).verdict == FAILS
    # As run: whatever rows of guidance there are, they are on both sides.
    calls = part("counted", "search_calls", "edits", 5, "greedy")
    ratio = 499 * 1000 * 5 / (SEEN * (5 * tries + 50))
    assert judge(calls).effect.value == pytest.approx(ratio)


# --- what is refused ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("typo", 5, "greedy"), "'typo' is not one of those: edits, guided, restored"),
        (("edits", 10, "greedy"), "no answer by 'greedy' at 10 steps, but by uniform"),
        (("edits", 20, "evolution_psnr"), "no answer by 'evolution_psnr' at 20 steps"),
    ],
)
def test_what_was_not_searched_for_is_named(asked, message):
    with pytest.raises(ValueError, match="claim K4: .*" + message):
        judge(part("greater", "steps_psnr", *asked, over="uniform"))


def test_scores_that_a_search_lacks_are_named():
    asked = part("greater", "steps_clip", "edits", 5, "greedy", over="uniform")
    with pytest.raises(ValueError, match="'clip' is not one of psnr_to_teacher, clip_"):
        judge(asked)
    asked = part("greater", "gamma_below", "edits", 5, "evolution_psnr")
    with pytest.raises(ValueError, match="finds time steps without a γ"):
        judge(asked)
    asked = part("counted", "search_cost", "edits", 5, "uniform")
    with pytest.raises(ValueError, match="'edits/5/uniform' is no search"):
        judge(asked)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            {"method": "annealing"},
            "method 'annealing' is not one of uniform, evolution_f",
        ),
        (
            {"over": "annealing"},
            "method 'annealing' is not one of uniform, evolution_f",
        ),
        ({"over": "greedy"}, "'edits/5/greedy' is compared with itself"),
        ({"than": "edits"}, "'edits/5/greedy' is compared with itself"),
        ({"over": "uniform", "than": "guided"}, "one comparison at a time"),
    ],
)
def test_answers_that_cannot_be_meant_are_refused(answer, message):
    with pytest.raises(ValueError, match=message):
        StepAnswer(**{"search": "edits", "steps": 5, "method": "greedy", **answer})


@pytest.mark.parametrize(
    ("test", "metric", "compared", "message"),
    [
        ("greater", "steps_psnr", {}, "'steps_psnr' needs `over`"),
        ("greater", "steps_psnr", {"than": "guided"}, "'steps_psnr' needs `over`"),
        ("greater", "gamma_ratio", {"over": "uniform"}, "takes no `over`"),
        ("greater", "gamma_ratio", {}, "'gamma_ratio' needs `than`"),
        ("greater", "gamma_below", {"than": "guided"}, "takes no `than`"),
        ("no_worse", "gamma_below", {}, "goes with the test 'greater' alone"),
        ("greater", "search_cost", {}, "does not go with the test 'greater'"),
        (
            "counted",
            "gamma_ratio",
            {"than": "guided"},
            "not go with the test 'counted'",
        ),
        ("greater", "clip_image", {}, "`steps` do not go together"),
    ],
)
def test_comparisons_that_cannot_be_made_are_refused(test, metric, compared, message):
    with pytest.raises(ValueError, match=message):
        part(test, metric, "edits", 5, "greedy", **compared)


def test_metrics_of_time_steps_need_an_answer_and_no_share():
    with pytest.raises(ValueError, match="'steps_psnr' and `steps` do not go together"):
        Part("x", "greater", ("steps_psnr",), "m", of="a", over=("b",))
    asked = part("no_worse", "steps_psnr", "edits", 5, "greedy", over="uniform")
    with pytest.raises(ValueError, match="which searches of time steps do not have"):
        judge(asked, Margin("x", share=0.1, better="whole"))


# --- the registry ---------------------------------------------------------------------

NAMES = ("K4", "K5", "K6", "K7", "K8", "K9")


def registered() -> ClaimsSpec:
    spec = yaml.safe_load(REGISTRY.read_text("utf-8"))["claims"]["mini"]
    return parse(
        ClaimsSpec,
        {**spec, "claims": {name: spec["claims"][name] for name in NAMES}},
    )


def as_published() -> dict[str, dict]:
    """Return searches that find what the paper prints."""
    edits = {5: 0.322, 10: 0.556, 15: 0.709, 20: 0.97}
    restored = {5: 1.9, 10: 1.6, 15: 1.61, 20: 1.03}
    found = {
        "ip2p": search(edits, evolved=(5,)),
        "ip2p_d9": search({5: 0.322, 10: 0.556, 15: 0.714}),
        "stablesr": search(restored, evolved=(10,), task="restoration"),
        "stablesr_d8": search(restored, task="restoration"),
        "controlnet": search(
            {5: 0.452, 10: 0.617, 15: 0.709, 20: 0.97}, evolved=(5,), task="control"
        ),
        "ip2p_dpmpp": search({5: 0.322, 10: 0.556}, evolved=(5,)),
        "stablesr_dpmpp": search({5: 1.9, 10: 1.6}, evolved=(5,), task="restoration"),
    }
    for name, gammas in (
        ("ip2p_image12", (0.333, 0.581, 0.714)),
        ("ip2p_image14", (0.377, 0.617, 0.833)),
        ("ip2p_image16", (0.435, 0.704, 0.833)),
    ):
        found[name] = search(dict(zip((5, 10, 15), gammas, strict=True)))
    for answer in found["controlnet"]["searches"]:
        pairs = answer["heldout"]["pairs"]
        pairs["clip"] = [x / 100 for x in pairs["psnr_to_teacher"]]
    return found


def verdicts(found: dict[str, dict]) -> dict[str, str]:
    judged = judge_all(registered(), Evidence({}, step_searches=found))
    return {name: claim.verdict for name, claim in judged.items()}


def test_what_the_paper_prints_holds_by_the_registry_and_the_reverse_does_not():
    found = as_published()
    assert verdicts(found) == dict.fromkeys(NAMES, HOLDS)
    # Each claim fails alone where only its own truth is another.
    flat = {**found, "ip2p_dpmpp": search({5: 1.0, 10: 1.0}, evolved=(5,))}
    assert verdicts(flat)["K9"] != HOLDS
    deep = search({5: 0.6, 10: 0.556, 15: 0.714})
    assert verdicts({**found, "ip2p_d9": deep}) == {
        **dict.fromkeys(NAMES, HOLDS),
        "K6": FAILS,
    }
    guided = search({5: 0.322, 10: 0.556, 15: 0.6})
    assert verdicts({**found, "ip2p_image16": guided})["K7"] == FAILS
    swapped = {**found, "controlnet": found["stablesr"] | {"task": "control"}}
    for answer in swapped["controlnet"]["searches"]:
        answer["heldout"]["pairs"]["clip"] = [0.3, 0.3]
    with pytest.raises(ValueError, match="'controlnet' has no answer by 'evolution_f"):
        verdicts(swapped)


def test_step_and_markdown_show_gamma_and_what_decides(tmp_path):
    paths = []
    for name, found in FOUND.items():
        paths.append(tmp_path / f"{name}.json")
        storage.write_json(paths[-1], found)
    claim = Claim("γ < 1.", (part("greater", "gamma_below", "edits", 5, "bracketed"),))
    spec = ClaimsSpec("T", "C", {"m": Margin("why")}, {"K5": claim})
    nothing = ("features", "images", "flops", "perturbations", "edits", "translations")
    others = ("pairs", "levels", "level_latency", "searches")
    set_step.claims(
        Namespace(
            spec=json.dumps(dataclasses.asdict(spec)),
            settings=json.dumps({"runs": {}, "perturbations": {}}),
            **dict.fromkeys((*nothing, *others), ()),
            step_searches=paths,
            latency=None,
            output=tmp_path / "out" / "paper.md",
        )
    )
    text = (tmp_path / "out" / "paper.md").read_text("utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith("| x | −ln γ")]
    assert "holds (γ 0.3" in line and "above +0.000" not in line
    data = storage.read_json(tmp_path / "out" / "paper.json")
    assert data["claims"]["K5"]["parts"][0]["n"] == UNSEEN
