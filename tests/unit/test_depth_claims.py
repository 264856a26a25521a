"""Claims on translations, levels and schedules of levels, where the truth is known."""

import dataclasses
import json
from argparse import Namespace
from pathlib import Path

import pytest
import set_step
import torch

from clockwork_experiments.base import storage
from clockwork_experiments.claims.evidence import Evidence
from clockwork_experiments.claims.levels import LevelCount, MultiRow
from clockwork_experiments.claims.registry import Claim, ClaimsSpec, Margin, Part
from clockwork_experiments.claims.verdicts import FAILS, HOLDS, UNDECIDED, JudgedClaim
from clockwork_experiments.claims.verdicts import judge as judge_all
from clockwork_experiments.data import pair_sets
from clockwork_experiments.score import metrics

PAIRS = 80
KINDS = tuple("colour" if index % 2 else "move" for index in range(PAIRS))


def noise(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def translations() -> dict[str, dict[str, torch.Tensor]]:
    """Return a model's values, and a level's: moves go wrong there, colours do not."""
    whole = 0.4 + 0.1 * noise(PAIRS, seed=1)
    lost = torch.tensor([0.0 if kind == "colour" else 0.3 for kind in KINDS])
    return {
        "whole": {"clip_direction": whole, "lpips": 0.2 + 0.01 * noise(PAIRS, seed=2)},
        "cut": {
            "clip_direction": whole - lost + 0.02 * noise(PAIRS, seed=3),
            "lpips": 0.2 + lost + 0.01 * noise(PAIRS, seed=4),
        },
    }


LEVELS = {
    "levels": [
        {"parameters": 60 * level, "count": {"macs_with_norms": 100 * level}}
        for level in (1, 2, 3)
    ],
    "shared": {"time": 7, "output": 18},
    "rows": 3,
    "branch": None,
}
TIMES = {"levels": {"2": {"runs": [8.0, 8.1, 7.9]}, "3": {"runs": [10.0, 10.0, 10.0]}}}
SEARCH = {
    "multi": {
        "heldout_full": {"clip_image": 0.5},
        "rows": [
            {
                "row": 2,
                "problem": "b",
                # A shallower level for all steps saves most of it.
                "savings": {"time": -9.0},
                "beyond_best_single": {
                    "savings": {"time": -3.0},
                    "heldout_pairs": {"clip_image": [0.01, 0.02, 0.03]},
                },
            }
        ],
    }
}


def evidence(**changed) -> Evidence:
    known = {
        "translations": translations(),
        "kinds": {"whole": KINDS, "cut": KINDS},
        "levels": {"ip2p": LEVELS},
        "level_latency": {"ip2p": TIMES},
        "searches": {"ip2p": SEARCH},
    }
    return Evidence({}, **{**known, **changed})


def registry(margin: Margin, *parts: Part) -> ClaimsSpec:
    claim = Claim("Cut models are as good.", parts)
    return ClaimsSpec("Claims", "A caption.", {"m": margin}, {"K2": claim})


def judge(margin: Margin, *parts: Part, **changed) -> JudgedClaim:
    return judge_all(registry(margin, *parts), evidence(**changed))["K2"]


TENTH = Margin("a tenth", share=0.1, better="whole")
NO_WORSE = Part(
    "cut against whole",
    "no_worse",
    ("clip_direction", "lpips"),
    "m",
    of="cut",
    over=("whole",),
)
WORSE = dataclasses.replace(NO_WORSE, test="greater", of="whole", over=("cut",))

# --- translations ---------------------------------------------------------------------


def test_a_loss_of_some_kinds_is_found_in_these_alone():
    colours = dataclasses.replace(NO_WORSE, kinds=("colour",))
    kept = judge(TENTH, colours)
    assert [part.verdict for part in kept.parts] == [HOLDS, HOLDS]
    assert all(part.n == PAIRS // 2 and part.unit == "pairs" for part in kept.parts)
    moves = dataclasses.replace(NO_WORSE, kinds=("move",))
    lost = judge(TENTH, moves)
    assert [part.verdict for part in lost.parts] == [FAILS, FAILS]
    # Of CLIP_D more is better, of LPIPS less.
    for part in lost.parts:
        assert part.effect.value == pytest.approx(-0.3, abs=0.02)
    assert judge(TENTH, dataclasses.replace(WORSE, kinds=("move",))).verdict == HOLDS
    every = judge(TENTH, NO_WORSE).parts[0]
    assert every.n == PAIRS and every.effect.value == pytest.approx(-0.15, abs=0.02)


def test_a_share_is_of_the_score_on_the_same_kinds():
    scored = translations()
    scored["whole"]["clip_direction"][::2] += 1  # moves
    part = dataclasses.replace(NO_WORSE, metrics=("clip_direction",))
    for kind, level in (("colour", 0.4), ("move", 1.4)):
        chosen = dataclasses.replace(part, kinds=(kind,))
        (judged,) = judge(TENTH, chosen, translations=scored).parts
        assert judged.margin.value == pytest.approx(level / 10, abs=0.005)


def test_a_score_is_held_against_a_number():
    part = Part("enough", "greater", ("clip_direction",), "m", of="whole")
    assert judge(Margin("x", value=0.3), part).verdict == HOLDS
    assert judge(Margin("x", value=0.5), part).verdict == FAILS
    assert judge(Margin("x", value=0.4), part).verdict == UNDECIDED


def test_frechet_distances_of_translations_are_compared_by_jackknife():
    reference = metrics.statistics(noise(500, 4, seed=9))
    base = noise(PAIRS, 4, seed=10)

    def scored(shift: float) -> dict[str, torch.Tensor]:
        features = base + shift
        without = metrics.frechet_replicates(features, reference)
        value = metrics.frechet_score(features, reference).value
        return {
            "frechet": torch.tensor([value], dtype=torch.float64),
            "frechet_without": torch.tensor(without, dtype=torch.float64),
        }

    part = Part("x", "greater", ("translated_frechet",), "m", of="whole", over=("cut",))
    near = {"whole": scored(0.0), "cut": scored(1.0)}
    (judged,) = judge(Margin("x"), part, translations=near).parts
    # Each of 4 features is off by 1; but for what the sample's mean adds.
    assert judged.verdict == HOLDS and judged.effect.value == pytest.approx(4, abs=1)
    expected = metrics.frechet_difference(base + 1.0, base, reference)
    assert judged.effect.low == pytest.approx(expected.low, rel=1e-4)
    assert judged.effect.high == pytest.approx(expected.high, rel=1e-4)
    back = dataclasses.replace(part, of="cut", over=("whole",))
    assert judge(Margin("x"), back, translations=near).verdict == FAILS


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"of": "typo"}, "run 'typo': it is not one of the scored translations"),
        ({"metrics": ("clip_image",)}, "scored by clip_direction, lpips alone"),
        ({"kinds": ("size",)}, "0 pairs of the kinds size are fewer than 2"),
    ],
)
def test_what_was_not_scored_is_named(changed, message):
    with pytest.raises(ValueError, match="claim K2: .*" + message):
        judge(TENTH, dataclasses.replace(NO_WORSE, **changed))


# --- levels and schedules -------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "level", "value"),
    [
        ("deep_share", LevelCount("ip2p", 2), 300 / 360),
        # The output layers count in what is kept, the time embedding nowhere.
        ("footprint", LevelCount("ip2p", 2), 1 - 198 / 360),
        ("macs_saved", LevelCount("ip2p", 2), 1 / 3),
        # 10 steps of three rows of 200.
        ("macs", LevelCount("ip2p", 2, 10, 5e-9), 0.2),
    ],
)
def test_counts_lie_between_bounds(metric, level, value):
    part = Part("x", "counted", (metric,), "m", level=level)
    around = Margin("x", value=value - 1e-6, at_most=value + 1e-6)
    judged = judge(around, part)
    assert judged.verdict == HOLDS and judged.parts[0].compared == {}
    assert judged.parts[0].effect.value == pytest.approx(value)
    assert judge(Margin("x", value=value + 1e-3), part).verdict == FAILS


def test_time_is_compared_turn_by_turn():
    part = Part("x", "greater", ("level_time",), "m", level=LevelCount("ip2p", 2))
    (judged,) = judge(Margin("a direction"), part).parts
    assert judged.verdict == HOLDS and judged.n == 3 and judged.unit == "turns"
    assert judged.effect.value == pytest.approx(0.2)
    slower = {"levels": {**TIMES["levels"], "2": {"runs": [11.0, 11.1, 10.9]}}}
    judged = judge(Margin("a direction"), part, level_latency={"ip2p": slower})
    assert judged.verdict == FAILS


def test_a_single_level_is_held_against_a_schedule():
    row = MultiRow("ip2p", 2, "b")
    part = Part("x", "no_worse", ("multi_clip_image",), "m", multi=row)
    (judged,) = judge(Margin("x", value=0.1), part).parts
    assert judged.effect.value == pytest.approx(-0.04)
    assert (judged.n, judged.unit, judged.verdict) == (3, "held-out pairs", HOLDS)
    assert judge(Margin("x", value=0.001), part).verdict == UNDECIDED
    none = {"multi": {**SEARCH["multi"], "heldout_full": {"clip_image": 0.0}}}
    with pytest.raises(
        ValueError, match="clip_image is 0, of which nothing is a share"
    ):
        judge(Margin("x", value=0.1), part, searches={"ip2p": none})
    time = Part("x", "counted", ("multi_time",), "m", multi=row)
    assert judge(Margin("x", value=0.0, at_most=3.5), time).verdict == HOLDS
    assert judge(Margin("x", value=0.0, at_most=2.5), time).verdict == FAILS


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"level": LevelCount("typo", 2)}, "'typo' is not one of those counted: ip2p"),
        ({"level": LevelCount("ip2p", 4)}, "level 4 is not one of 1 to 3"),
        (
            {
                "metrics": ("multi_time",),
                "level": None,
                "multi": MultiRow("ip2p", 3, "a"),
            },
            r"'ip2p' has no answer for D3 and problem \(a\)",
        ),
    ],
)
def test_what_was_not_counted_or_searched_is_named(changed, message):
    part = Part("x", "counted", ("footprint",), "m", level=LevelCount("ip2p", 2))
    with pytest.raises(ValueError, match=message):
        judge(Margin("x"), dataclasses.replace(part, **changed))


# --- the registry ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"over": ()}, "needs both `of` and `over`"),
        ({"over": ("whole", "other")}, "compares with one run"),
        ({"test": "counted"}, "does not go with the test 'counted'"),
        ({"level": LevelCount("ip2p", 2)}, "`level` do not go together"),
        ({"multi": MultiRow("ip2p", 2, "a")}, "`multi` do not go together"),
        ({"metrics": ("footprint",), "test": "counted"}, "`level` do not go together"),
        (
            {"metrics": ("translated_frechet",), "kinds": ("move",)},
            "not known of kinds of pairs",
        ),
        ({"metrics": ("clip",), "kinds": ("move",)}, "not known of kinds of pairs"),
    ],
)
def test_comparisons_that_cannot_be_made_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(NO_WORSE, **changed)


def test_printed_macs_and_their_steps_need_each_other():
    with pytest.raises(ValueError, match="steps 50 and expected 0 need each other"):
        LevelCount("ip2p", 9, steps=50)
    with pytest.raises(ValueError, match="`macs` and what is printed"):
        Part("x", "counted", ("macs",), "m", level=LevelCount("ip2p", 9))
    with pytest.raises(ValueError, match="'e' is not one of a, b, c, d"):
        MultiRow("ip2p", 9, "e")


# --- the step -------------------------------------------------------------------------


def write_evidence(folder: Path, *notes: str) -> Namespace:
    pairs = pair_sets.PairSet(
        "edit",
        tuple(map(str, range(PAIRS))),
        ("do",) * PAIRS,
        ("a",) * PAIRS,
        ("b",) * PAIRS,
        KINDS,
    )
    pair_sets.write_set(folder / "edits.json", pairs)
    paths = []
    for (name, values), note in zip(translations().items(), notes, strict=True):
        paths.append(folder / f"{name}.safetensors")
        storage.write_tensors(paths[-1], values, {"encoders": note})
    spec = registry(TENTH, dataclasses.replace(NO_WORSE, kinds=("move",)))
    sets = {"whole": "edits", "cut": "edits"}
    nothing = ("features", "images", "flops", "perturbations", "edits")
    return Namespace(
        spec=json.dumps(dataclasses.asdict(spec)),
        settings=json.dumps({"runs": {}, "perturbations": {}, "translations": sets}),
        **dict.fromkeys(nothing, ()),
        translations=paths,
        pairs=[folder / "edits.json"],
        levels=[],
        level_latency=[],
        searches=[],
        step_searches=[],
        latency=None,
        output=folder / "out" / "paper.md",
    )


def test_step_judges_translations_by_kind(tmp_path):
    set_step.claims(write_evidence(tmp_path, '{"clip": "x"}', '{"clip": "x"}'))
    data = storage.read_json(tmp_path / "out" / "paper.json")
    parts = data["claims"]["K2"]["parts"]
    assert [part["verdict"] for part in parts] == [FAILS, FAILS]
    assert [part["n"] for part in parts] == [PAIRS // 2] * 2
    assert data["encoders"] == [{"clip": "x"}]


def test_step_refuses_translations_of_several_encoders(tmp_path):
    arguments = write_evidence(tmp_path, '{"clip": "x"}', '{"clip": "y"}')
    with pytest.raises(ValueError, match="translations scored by 2 sets of encoders"):
        set_step.claims(arguments)
