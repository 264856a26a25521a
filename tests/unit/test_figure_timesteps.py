"""Figures of time steps: what they show of made-up searches, and what they refuse."""

import dataclasses
import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import set_step
import yaml
from matplotlib.image import imread
from step_answers import search

from clockwork_diffusion.timesteps import gamma_timesteps
from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.report.figures.timesteps import (
    COLUMN,
    DETAIL,
    LOOKS,
    NOISE,
    ProgressPanel,
    SearchProgressSpec,
    StepCurvesSpec,
    StepGroup,
    StepPanel,
    StepPlaneSpec,
    StepTicksSpec,
    draw_curves,
    draw_plane,
    draw_progress,
    draw_ticks,
)
from clockwork_experiments.report.tables.timesteps import METHODS
from clockwork_experiments.search.answers import answer_of

REGISTRY = Path(__file__).parents[2] / "workflow" / "papers" / "compression.yaml"
FIGURES = yaml.safe_load(REGISTRY.read_text("utf-8"))["figures"]

FOUND = {
    "ip2p": search({5: 0.33, 10: 0.56, 20: 0.9}, evolved=(5,)),
    "stablesr": search({5: 1.9, 10: 1.6}, task="restoration"),
}
PLANE = StepPlaneSpec("Plane", "", "ip2p", ("uniform", "greedy"))
TICKS = StepTicksSpec(
    "Ticks",
    "",
    (
        StepGroup("edits", (5, 10), (1 / 3.11, 1 / 1.80)),
        StepGroup("restoration", (5,), (), "stablesr", "bracketed"),
    ),
)
CURVES = StepCurvesSpec(
    "Curves",
    "",
    (StepPanel("ip2p", "edits"), StepPanel("stablesr", "restoration")),
    ("uniform", "evolution_psnr", "greedy"),
    2,
)
PROGRESS = SearchProgressSpec(
    "Progress",
    "",
    (ProgressPanel("ip2p", 5, "edits"),),
    ("greedy", "evolution_psnr", "evolution_frechet"),
    1,
)


def heldout(method: str, steps: int, score: str) -> float:
    answer = answer_of(FOUND, "ip2p", steps, method)
    return answer["heldout"]["scores"][score]["value"]


def lines(axes, colour: str, marker: str) -> list:
    return [
        line
        for line in axes.lines
        if line.get_color() == colour and line.get_marker() == marker
    ]


def test_every_method_has_a_look():
    assert set(LOOKS) == set(METHODS)
    assert len({look.colour for look in LOOKS.values()}) == len(METHODS)
    assert len({look.marker for look in LOOKS.values()}) == len(METHODS)


def test_plane_joins_the_numbers_of_steps_and_bars_are_of_paired_differences():
    (axes,) = draw_plane(PLANE, FOUND).axes
    for method in PLANE.methods:
        look = LOOKS[method]
        (line,) = lines(axes, look.colour, look.marker)
        for data, score in (
            (line.get_xdata(), "clip_image"),
            (line.get_ydata(), "clip_direction"),
        ):
            assert list(data) == [heldout(method, n, score) for n in (5, 10, 20)]
    bars = lines(axes, LOOKS["greedy"].colour, "None")
    difference = answer_of(FOUND, "ip2p", 5, "greedy")["heldout"]["minus_uniform"]
    widths = [np.ptp(bar.get_xdata()) for bar in bars[:2]]
    gap = difference["clip_image"]["high"] - difference["clip_image"]["low"]
    assert widths == [pytest.approx(gap), 0]
    # Nothing is known of even steps but themselves.
    bars = lines(axes, LOOKS["uniform"].colour, "None")
    assert all(np.ptp(bar.get_xdata()) == np.ptp(bar.get_ydata()) == 0 for bar in bars)
    assert sorted(text.get_text() for text in axes.texts) == sorted(
        ["5", "10", "20"] * 2
    )


def test_plane_has_a_star_where_the_reference_is():
    (axes,) = draw_plane(PLANE, FOUND).axes
    (star,) = [line for line in axes.lines if line.get_marker() == "*"]
    reference = FOUND["ip2p"]["references"]["heldout"]["scores"]
    for data, score in (
        (star.get_xdata(), "clip_image"),
        (star.get_ydata(), "clip_direction"),
    ):
        assert list(data) == [reference[score]["value"]]


def test_ticks_stand_where_the_time_steps_are():
    (axes,) = draw_ticks(TICKS, FOUND).axes
    start = 0.24
    for colour, left, steps in (
        (NOISE, start, [916, 814, 674, 403]),
        (
            DETAIL,
            start + COLUMN + 0.24,
            answer_of(FOUND, "stablesr", 5, "bracketed")["timesteps"],
        ),
    ):
        ticks = [
            line.get_xdata()[0]
            for line in axes.lines
            if line.get_color() == colour and line.get_linewidth() == 1.8
        ]
        for timestep in steps:
            place = left + COLUMN * (1 - timestep / 999)
            assert min(abs(tick - place) for tick in ticks) < 1e-9, timestep
    written = {text.get_text() for text in axes.texts}
    assert {"edits", "γ = 1/3.11", "γ = 1/1.80", "5 steps", "10 steps"} <= written


def test_the_registry_draws_the_published_sequences():
    figure = dict(FIGURES["figure_s3"]["paper"])
    del figure["kind"]
    spec = parse(StepTicksSpec, figure)
    exact = {
        "InstructPix2Pix": (1 / 3.11, 1 / 1.80, 1 / 1.41, 1 / 1.30),
        "StableSR": (1.90, 1.60, 1.61, 1.42),
        "ControlNet": (1 / 2.21, 1 / 1.62, 1 / 1.41),
    }
    assert [group.label for group in spec.groups] == list(exact)
    for group in spec.groups:
        for steps, gamma, printed in zip(
            group.steps, group.gammas, exact[group.label], strict=True
        ):
            expected = gamma_timesteps(steps, printed)
            assert gamma_timesteps(steps, gamma) == expected
    assert draw_ticks(spec, {}).axes


def test_curves_show_values_and_below_them_gains():
    above, below, other, gains = draw_curves(CURVES, FOUND).axes
    for method in ("uniform", "greedy"):
        look = LOOKS[method]
        (line,) = lines(above, look.colour, look.marker)
        expected = [heldout(method, n, "psnr_to_teacher") for n in (5, 10, 20)]
        assert list(line.get_ydata()) == expected
        assert list(line.get_xdata()) == [5, 10, 20]
    look = LOOKS["greedy"]
    (line,) = lines(below, look.colour, look.marker)
    expected = [
        heldout("greedy", n, "psnr_to_teacher")
        - heldout("uniform", n, "psnr_to_teacher")
        for n in (5, 10, 20)
    ]
    assert [float(y) for y in line.get_ydata()] == pytest.approx(expected)
    # Where it was not run, there is nothing of it.
    look = LOOKS["evolution_psnr"]
    assert list(lines(above, look.colour, look.marker)[0].get_xdata()) == [5]
    assert not lines(other, look.colour, look.marker)
    assert not lines(gains, look.colour, look.marker)
    assert above.get_ylabel() == "PSNR to 50 steps, dB"


def test_progress_is_the_best_so_far_and_ends_at_all_that_it_took():
    (axes,) = draw_progress(PROGRESS, FOUND).axes
    answer = answer_of(FOUND, "ip2p", 5, "greedy")
    (curve,) = lines(axes, LOOKS["greedy"].colour, "None")
    assert list(curve.get_ydata()) == sorted(curve.get_ydata())
    assert curve.get_ydata()[-1] == answer["quality"]
    assert curve.get_xdata()[-1] == answer["unet_calls"]
    assert len(curve.get_xdata()) == answer["evaluations"]
    # Its fitness is no PSNR: the result alone.
    look = LOOKS["evolution_frechet"]
    assert not lines(axes, look.colour, "None")
    (point,) = lines(axes, look.colour, look.marker)
    answer = answer_of(FOUND, "ip2p", 5, "evolution_frechet")
    assert list(point.get_xdata()) == [answer["unet_calls"]]
    assert axes.get_xscale() == "log"
    counts = {
        str(answer_of(FOUND, "ip2p", 5, m)["evaluations"]) for m in PROGRESS.methods
    }
    assert {text.get_text() for text in axes.texts} <= counts


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: dataclasses.replace(PLANE, methods=("annealing",)),
            "method 'annealing' is not one of uniform, evolution_frechet, ",
        ),
        (
            lambda: dataclasses.replace(CURVES, columns=3),
            "columns 3 is not one of 1 to 2",
        ),
        (
            lambda: dataclasses.replace(PROGRESS, methods=("uniform",)),
            "method 'uniform' does not search",
        ),
        (lambda: StepGroup("x", (5,)), "'x' needs either gammas or a search"),
        (
            lambda: StepGroup("x", (5, 10), (0.5,)),
            "'x': 1 gammas for 2 numbers of steps",
        ),
        (
            lambda: StepGroup("x", (5,), (), "ip2p"),
            "a search and a method need each other",
        ),
        (
            lambda: draw_plane(dataclasses.replace(PLANE, search="typo"), FOUND),
            "search 'typo' is not one of those: ip2p, stablesr",
        ),
        (
            lambda: draw_plane(PLANE, {"ip2p": scoreless("clip_image")}),
            "score 'clip_image' is not one of psnr_to_teacher, clip_direction",
        ),
        (
            lambda: draw_ticks(
                StepTicksSpec(
                    "", "", (StepGroup("x", (5,), (), "ip2p", "evolution_psnr"),)
                ),
                FOUND,
            ),
            "method 'evolution_psnr' finds time steps without a γ",
        ),
        (
            lambda: draw_progress(
                dataclasses.replace(PROGRESS, panels=(ProgressPanel("ip2p", 7, ""),)),
                FOUND,
            ),
            "search 'ip2p' has none of greedy, evolution_psnr, evolution_frechet at 7",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def scoreless(score: str) -> dict:
    found = json.loads(json.dumps(FOUND["ip2p"]))
    for answer in found["searches"]:
        del answer["heldout"]["scores"][score]
    return found


def test_step_draws_all_kinds(tmp_path):
    paths = []
    for name, found in FOUND.items():
        paths.append(tmp_path / f"{name}.json")
        storage.write_json(paths[-1], found)
    for kind, spec in (
        ("step_plane", PLANE),
        ("step_ticks", TICKS),
        ("step_curves", CURVES),
        ("search_progress", PROGRESS),
    ):
        output = tmp_path / f"{kind}.png"
        set_step.figure(
            Namespace(
                kind=kind,
                spec=json.dumps(dataclasses.asdict(spec)),
                searches=paths,
                output=output,
            )
        )
        assert imread(output).shape[1] > 400, kind
        assert output.with_suffix(".pdf").is_file()
