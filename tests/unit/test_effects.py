"""Printed effects and ours: their signs, their panels, and the figure of all."""

import json

import pytest
import yaml
from checkout import ROOT

from clockwork_experiments.base import storage
from clockwork_experiments.claims.printed import printed_effect
from clockwork_experiments.claims.registry import METRICS
from clockwork_experiments.config.parse import parse
from clockwork_experiments.report.figures import effects
from clockwork_experiments.steps import draw_figure


def part(metric, printed, value, low=None, high=None, verdict="holds"):
    return {
        **{"label": "with against without", "metric": metric, "verdict": verdict},
        **{"effect": {"value": value, "low": low, "high": high}, "printed": printed},
    }


JUDGED = {
    "claims": {
        "C1": {
            "parts": [
                part("flops", [7.3, 10.8], 0.33),
                part("frechet", [24.11, 24.64], -0.04, -0.22, 0.14, "undecided"),
                part("clip", [0.295, 0.3], -0.001, -0.002, 0.001),
                part("psnr", None, 1.0, 0.5, 1.5),
            ]
        },
        # The same comparison again.
        "C2": {"parts": [part("clip", [0.295, 0.3], -0.001, -0.002, 0.001)]},
    }
}
SPEC = {"title": "T", "caption": "C.", "papers": {"a": "Paper A", "b": "Paper B"}}


def test_printed_effects_have_the_sign_and_unit_of_ours():
    assert printed_effect("frechet", 24.11, 24.64) == pytest.approx(0.53)
    assert printed_effect("clip", 0.295, 0.3) == pytest.approx(-0.005)
    assert printed_effect("latency", 341, 454) == pytest.approx(0.249, abs=1e-3)
    assert printed_effect("gamma_below", 0.5, 1) == pytest.approx(0.693, abs=1e-3)
    assert printed_effect("search_cost", 10, 500) == 50
    with pytest.raises(ValueError, match="'image_distance': no effect is known"):
        printed_effect("image_distance", 1, 2)


def test_every_comparison_is_there_once_with_its_interval():
    found = effects.printed_effects(JUDGED)
    assert [(each.claim, each.metric) for each in found] == [
        *(("C1", "flops"), ("C1", "frechet"), ("C1", "clip"))
    ]
    assert (found[0].low, found[0].high) == (0.33, 0.33)
    assert (found[1].low, found[1].high) == (-0.22, 0.14)


def test_whatever_the_registries_print_has_an_effect_and_a_panel():
    shown = {name for panel in effects.PANELS for name in panel.metrics}
    assert shown <= {*METRICS}
    count = 0
    for paper in ("clockwork", "compression"):
        path = ROOT / "workflow" / "papers" / f"{paper}.yaml"
        for scale in yaml.safe_load(path.read_text("utf-8"))["claims"].values():
            for claim in scale["claims"].values():
                for each in claim["parts"]:
                    for metric, pair in each.get("printed", {}).items():
                        assert metric in shown
                        assert abs(printed_effect(metric, *pair)) < 1e4
                        count += 1
    assert count > 90


def test_points_lie_where_the_numbers_are():
    spec = parse(effects.EffectsSpec, SPEC)
    found = effects.printed_effects(JUDGED)
    figure = effects.draw_effects(spec, {"Paper A": found})
    saved, frechet, clip = figure.axes
    assert saved.get_title(loc="left") == "Cost saved, % (C1)"
    (dot,) = (line for line in saved.lines if line.get_marker() == "o")
    assert dot.get_xdata()[0] == pytest.approx(100 * (1 - 7.3 / 10.8))
    assert dot.get_ydata()[0] == pytest.approx(33)
    (square,) = (line for line in frechet.lines if line.get_marker() == "s")
    assert square.get_ydata()[0] == pytest.approx(-0.04)
    bars = [line for line in clip.lines if list(line.get_ydata()) == [-0.002, 0.001]]
    assert len(bars) == 1
    texts = [text.get_text() for text in figure.texts]
    # Fréchet is better in print, and worse here.
    assert "2 of 3 effects have the printed direction" in texts
    with pytest.raises(ValueError, match="no printed effect is judged"):
        effects.draw_effects(spec, {"Paper A": []})


def test_the_step_draws_both_papers(tmp_path):
    files = [tmp_path / f"{name}.json" for name in SPEC["papers"]]
    for path in files:
        storage.write_json(path, JUDGED)
    draw_figure.draw_figure(
        "effects", json.dumps(SPEC), tmp_path / "f.png", inputs={"claims": files}
    )
    assert (tmp_path / "f.png").stat().st_size > 20_000
    assert (tmp_path / "f.pdf").is_file()
