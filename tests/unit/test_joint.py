"""A clock, depth-skip and time steps together: the table, its statement, the figure."""

import dataclasses
import json
from argparse import Namespace

import numpy as np
import pytest
import set_step
import torch

from clockwork_diffusion.timesteps import gamma_timesteps
from clockwork_experiments.base import storage
from clockwork_experiments.cost import formulas
from clockwork_experiments.data.pair_sets import PairSet
from clockwork_experiments.models import encoders
from clockwork_experiments.report.figures.joint import (
    JointParetoSpec,
    draw_joint_pareto,
)
from clockwork_experiments.report.tables.joint import (
    PSNR,
    Combination,
    JointModel,
    JointTableSpec,
    Point,
    beyond_plain,
    front,
    interval,
    model_points,
    statements,
    transfers,
)
from clockwork_experiments.report.tables.table import UNKNOWN, Results, Value
from clockwork_experiments.score import translation_scores
from clockwork_experiments.world.pairs import scene_pairs

PAIRS = 48
GAMMAS = {3: 0.3, 5: 0.5, 10: 0.7, 15: 0.8}
NOISE = np.random.default_rng(3).normal(size=(2, PAIRS))

COUNTS = {
    "task": "text",
    "levels": [{"count": {"flops": 1e7 * level}} for level in range(1, 14)],
    "branch": None,
    "adaptors": {"identity": {"flops": 4e7}},
}
TIMING = {
    "device": "some device",
    "dtype": "float32",
    "levels": {str(n): {"runs": [n, n, 99.0]} for n in range(1, 14)},
    "light": {"identity": {"runs": [5.0]}},
    "branch": None,
}
RUNS = {
    "t2i": {"translator": "text_to_image", "guidance": 2.0},
    "t2i_clock2": {"clock": 2, "adaptor": "identity"},
    "t2i_d8": {"level": 8},
    "t2i_d8_clock2": {"clock": 2, "adaptor": "identity", "level": 8},
}
RUNS = {name: {**RUNS["t2i"], **run} for name, run in RUNS.items()}
LOSSES = dict(zip(RUNS, (0.0, 2.5, 1.0, 3.5), strict=True))
MODEL = JointModel(
    "Text-to-image",
    ("clip",),
    tuple(
        Combination(label, search)
        for label, search in zip(
            ("plain", "clock 2", "D8", "clock 2 and D8"), RUNS, strict=True
        )
    ),
)
SPEC = JointTableSpec("Together", "A caption.", (MODEL,))


def entry(steps: int, method: str, mean: float, gamma: float = 1.0) -> dict:
    """Return an entry of a search whose PSNR has a mean and the spread of all."""
    shared, own = NOISE - NOISE.mean(axis=1, keepdims=True)
    pairs = mean + shared + 0.05 * own * (method != "uniform")
    score = dataclasses.asdict(interval(pairs))
    clip = {name: 0.9 + value / 1000 for name, value in score.items()}
    return {
        "steps": steps,
        "method": method,
        "gamma": gamma,
        "timesteps": gamma_timesteps(steps, gamma),
        "heldout": {
            "scores": {PSNR: score, "clip": clip},
            "pairs": {PSNR: pairs.tolist()},
        },
    }


def searches() -> dict[str, dict]:
    """Return made-up results of all searches, more PSNR for more steps."""
    made = {}
    for name, loss in LOSSES.items():
        plain = name == "t2i"
        entries = []
        for steps in (3, 5, 10, 15) if plain else (5, 10, 15):
            mean = 20 + 8 * np.log(steps) - loss * 5 / steps
            entries.append(entry(steps, "uniform", mean))
            if steps in (5, 10):
                gain, own = 8 / steps, GAMMAS[steps] * (1 + loss / 20)
                entries.append(entry(steps, "bracketed", mean + gain, own))
                if not plain:
                    # It loses at 5 steps with the clock, and nothing elsewhere.
                    lost = 0.4 if steps == 5 and "clock" in name else 0.0
                    taken = entry(steps, "from_t2i", mean + gain - lost, GAMMAS[steps])
                    entries.append(taken)
        made[name] = {"reference": 50, "searches": entries}
    return made


@pytest.fixture
def found() -> Results:
    counts, timings = {"text_to_image": COUNTS}, {"text_to_image": TIMING}
    return Results(RUNS, levels=counts, level_latency=timings, step_searches=searches())


# --- costs ----------------------------------------------------------------------------


def test_milliseconds_are_those_of_full_and_of_light_calls():
    run = {"steps": 5, "guidance": 2.0}
    assert formulas.translation_ms(run, {}) is None
    assert formulas.translation_ms(run, TIMING) == 5 * 13
    clocked = {**run, "level": 8, "clock": 2, "adaptor": "identity"}
    # Full at steps 1, 3 and 5. Rows are in what is timed.
    assert formulas.translation_ms(clocked, TIMING) == 3 * 8 + 2 * 5
    branched = {**TIMING, "branch": {"runs": [2.0]}}
    assert formulas.translation_ms(clocked, branched) == 3 * 8 + 2 * 5 + 5 * 2
    with pytest.raises(ValueError, match="'identity' is not one of those timed: none"):
        formulas.translation_ms(clocked, {**TIMING, "light": {}})
    with pytest.raises(ValueError, match="level 14 is not one of those timed: 1, 2"):
        formulas.translation_ms({**run, "level": 14}, TIMING)


# --- text-to-image --------------------------------------------------------------------


def test_text_is_scored_by_what_its_captions_say(root):
    clip = encoders.load_clip(root / "resources/mini/clip", torch.device("cpu"))
    made = scene_pairs("text", "test", 4)
    ids = tuple(map(str, range(4)))
    told = (made.prompts, made.source_captions, made.target_captions, made.kinds)
    described = translation_scores.describe(
        PairSet("text", ids, *told), clip, made.inputs
    )
    # Of the input, which is black, nothing is asked.
    assert described.inputs is None and described.source is None
    features = encoders.clip_image_features(clip, made.targets)
    right = translation_scores.of_features(features, described)
    wrong = translation_scores.of_features(features.flip(0), described)
    assert set(right) == {"clip"}
    assert (right["clip"] > wrong["clip"] + 0.1).all()


# --- points ---------------------------------------------------------------------------


def test_points_have_the_costs_of_their_clock_and_level(found):
    points = model_points(MODEL, found, "bracketed")
    assert len(points) == 6 + 3 * 5
    costs_of = {
        (p.combination.search, p.steps, p.method): (p.flops, p.ms) for p in points
    }
    assert costs_of["t2i", 3, "uniform"] == (2 * 3 * 13e7, 39)
    both = costs_of["t2i_d8_clock2", 5, "bracketed"]
    assert both == (2 * (3 * 8e7 + 2 * 4e7), 34)
    assert both == costs_of["t2i_d8_clock2", 5, "uniform"]


def point(flops: float, psnr: float, pairs: tuple[float, ...] = ()) -> Point:
    scores = {PSNR: Value(psnr, psnr, psnr)}
    combination = Combination("any", "any")
    return Point(combination, 5, "uniform", 1.0, (), flops, None, scores, pairs)


def test_the_front_has_what_nothing_betters():
    dear, cheap, equal, worse = (
        point(5.0, 30.0),
        point(1.0, 10.0),
        point(1.0, 9.0),
        point(3.0, 10.0),
    )
    assert front([dear, worse, equal, cheap], "flops") == [cheap, dear]
    assert front([dear], "ms") == []


def test_the_plain_sampler_is_interpolated_at_equal_flops():
    plain = [point(2.0, 0, (10.0, 20.0)), point(1.0, 0, (6.0, 10.0))]
    gain = beyond_plain(point(1.5, 0, (9.0, 17.0)), plain)
    # Between 6 and 10, and between 10 and 20: 1 and 2. Student's t of two is wide.
    assert gain.value == 1.5 and gain.high - 1.5 == pytest.approx(12.7062 * 0.5)
    assert beyond_plain(point(2.0, 0, (11.0, 21.0)), plain).value == 1.0
    assert beyond_plain(point(0.9, 0, (9.0, 17.0)), plain) is None
    assert beyond_plain(point(2.1, 0, (9.0, 17.0)), plain) is None


@pytest.mark.parametrize(("key", "value"), [("level", 1), ("clock", 2)])
def test_the_first_combination_is_plain(found, key, value):
    runs = {**RUNS, "t2i": {**RUNS["t2i"], key: value}}
    with pytest.raises(ValueError, match=f"is not plain: its {key} is {value}"):
        SPEC.table(dataclasses.replace(found, runs=runs))


# --- whether γ stays optimal ----------------------------------------------------------


def test_the_statement_is_computed_pair_by_pair(found):
    five, ten = transfers(MODEL, MODEL.combinations[1], found, "bracketed")
    assert (five.steps, five.found_without) == (5, 0.5)
    assert five.found_with == pytest.approx(0.5625)
    # The same spread in both, so that nothing is left of it.
    assert five.gain.value == pytest.approx(-0.4) == five.gain.high
    assert ten.gain.value == pytest.approx(0)
    clocked, cut, both = statements(SPEC, found)
    assert clocked == (
        "Text-to-image, clock 2: the plain sampler's γ is worse than γ found with it "
        "at 5 steps, and cannot be told from γ found with it at 10 steps (5 steps, γ "
        "0.500 for 0.562: −0.40 [−0.40, −0.40] dB; 10 steps, γ 0.700 for 0.787: +0.00 "
        "[+0.00, +0.00] dB). By these intervals it costs 0.40 dB at most."
    )
    assert "D8: the plain sampler's γ cannot be told from γ found with it at 5 " in cut
    assert "costs 0.00 dB at most" in cut and "worse" in both


def test_what_was_not_measured_is_not_stated(found):
    made = {
        name: {
            **each,
            "searches": [e for e in each["searches"] if e["method"] != "from_t2i"],
        }
        for name, each in found.step_searches.items()
    }
    less = dataclasses.replace(found, step_searches=made)
    assert statements(SPEC, less) == []
    assert all("transfer" not in row for row in SPEC.table(less).rows)


# --- the table ------------------------------------------------------------------------


def test_rows_say_what_is_gained_at_equal_cost(found):
    rows = SPEC.table(found).rows
    text = SPEC.table(found).text()
    by_key = {
        (row["combination"], row["steps"], row["method"]): (row, line)
        for row, line in zip(rows, text, strict=True)
    }
    row, line = by_key["plain", 5, "optimised"]
    # Equal FLOPs are equal steps there.
    assert row["beyond"].value == pytest.approx(1.6) and line["beyond"].startswith(
        "+1.60 [+"
    )
    assert row["gamma"] == 0.5 and row["flops"] == pytest.approx(1.3)
    assert line[PSNR].startswith("34.48 [3") and line["clip"].startswith("0.93")
    row, line = by_key["plain", 5, "uniform"]
    assert "beyond" not in row and line["beyond"] == UNKNOWN
    row, line = by_key["clock 2", 5, "optimised"]
    # Of 3 and 5 steps, at 94 % of what 5 cost less 3: (3 · 13 + 2 · 4 − 39) / 26.
    share = 8 / 26
    plain = 20 + 8 * ((1 - share) * np.log(3) + share * np.log(5))
    assert row["beyond"].value == pytest.approx(row[PSNR].value - plain)
    assert line["transfer"] == "−0.40 [−0.40, −0.40]"
    assert by_key["clock 2", 15, "uniform"][1]["transfer"] == UNKNOWN
    best = [row for row in rows if row["front"]]
    assert {row["front"] for row in best} <= {"FLOPs, ms", "FLOPs", "ms"}
    assert by_key["plain", 15, "uniform"][0] in best
    assert by_key["plain", 10, "uniform"][0] not in best


def files(tmp_path, found: Results) -> dict:
    def write(folder: str, of: dict) -> list:
        for name, data in of.items():
            storage.write_json(tmp_path / folder / f"{name}.json", data)
        return [tmp_path / folder / f"{name}.json" for name in of]

    return {
        "step_searches": write("timesteps", found.step_searches),
        "levels": write("levels", found.levels),
        "level_latency": write("latency", found.level_latency),
    }


def test_the_steps_set_the_table_and_draw_the_figure(tmp_path, found):
    given = files(tmp_path, found)
    spec = dataclasses.asdict(SPEC)
    set_step.table(
        kind="joint",
        spec=json.dumps(spec),
        runs=json.dumps(RUNS),
        **given,
        output=tmp_path / "joint.csv",
    )
    csv, markdown, latex = (
        (tmp_path / f"joint.{kind}").read_text("utf-8") for kind in ("csv", "md", "tex")
    )
    assert "beyond_low" in csv and "transfer_high" in csv
    assert len(csv.splitlines()) == 1 + 6 + 3 * 5
    assert "Timed on: some device, float32." in markdown
    said = [line for line in markdown.splitlines() if line.startswith("- Text-to-")]
    assert len(said) == 3 and "costs 0.40 dB at most" in latex
    assert "$\\gamma$" in latex
    drawn = {key: spec[key] for key in ("title", "caption", "models", "unit")}
    set_step.figure(
        Namespace(
            kind="joint_pareto",
            spec=json.dumps(drawn),
            runs=RUNS,
            output=tmp_path / "joint.png",
            **given,
        )
    )
    assert (tmp_path / "joint.pdf").stat().st_size > 10_000


# --- the figure -----------------------------------------------------------------------


def figure_spec(**changed) -> JointParetoSpec:
    return JointParetoSpec("Title", "Caption.", **{"models": (MODEL,), **changed})


def test_a_panel_for_each_score_and_cost(found):
    axes = draw_joint_pareto(figure_spec(), found).axes
    labels = [(each.get_xlabel(), each.get_ylabel()) for each in axes]
    psnr = "PSNR to reference, dB"
    assert labels == [
        ("GFLOPs per image", psnr),
        ("ms per image", psnr),
        ("GFLOPs per image", "CLIP"),
        ("ms per image", "CLIP"),
    ]
    # The front, then a line of uniform and one of optimised steps for each of four.
    best, plain, optimised, *others = axes[0].lines
    assert len(others) == 6
    assert plain.get_xdata() == pytest.approx([2 * n * 0.13 for n in (3, 5, 10, 15)])
    assert list(optimised.get_xdata()) == pytest.approx([1.3, 2.6])
    assert list(best.get_ydata()) == sorted(best.get_ydata())
    assert [text.get_text() for text in axes[0].texts[:6]] == [
        *("3", "5", "10", "15"),
        *("5", "10"),
    ]


def test_without_timings_there_are_no_panels_of_latency(found):
    untimed = dataclasses.replace(found, level_latency={})
    axes = draw_joint_pareto(figure_spec(), untimed).axes
    assert {each.get_xlabel() for each in axes} == {"GFLOPs per image"}
    assert all(row["ms"] is None for row in SPEC.table(untimed).rows)


def test_wrong_specs_are_refused():
    many = tuple(Combination(f"D{n}", f"d{n}") for n in range(7))
    with pytest.raises(ValueError, match="7 combinations are more than the 6 colours"):
        figure_spec(models=(dataclasses.replace(MODEL, combinations=many),))
    with pytest.raises(ValueError, match="needs a model at least, and a score of each"):
        figure_spec(models=(dataclasses.replace(MODEL, scores=()),))
