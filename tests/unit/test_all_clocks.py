"""Every mask measured, and what sums of costs are worth."""

import random
import sys
from pathlib import Path

import pytest
import torch

from clockwork_diffusion.clock import Clock, mask_of
from clockwork_diffusion.encoding import encode_prompts
from clockwork_diffusion.masks import additive, all_masks, all_spans
from clockwork_diffusion.pipeline import clockwork
from clockwork_experiments.generate.text import SamplerSpec, sample
from clockwork_experiments.search import masks

sys.path.insert(0, str(Path(__file__).parents[1]))
from pipelines import PROMPT, sd  # noqa: E402

STEPS = 4


@pytest.fixture
def asked():
    pipe = sd()
    prompts = encode_prompts(pipe, [PROMPT, "a blue square"])
    noise = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    return pipe, prompts, noise, SamplerSpec("dpmpp", STEPS, 3.0)


def test_every_mask_is_measured_and_a_clock_is_what_the_door_draws(asked, tmp_path):
    pipe, prompts, noise, spec = asked
    errors = masks.measure(*asked, tmp_path / "state", "a")
    assert list(errors) == list(all_masks(STEPS))
    assert errors["1111"].tolist() == [0, 0]
    assert all((each > 0).all() for mask, each in errors.items() if "0" in mask)
    whole = sample(pipe, prompts, noise, spec)
    for every in (2, 3):
        with clockwork(pipe, clock=every):
            drawn = sample(pipe, prompts, noise, spec)
        apart = (drawn.double() - whole.double()).square().mean(dim=(1, 2, 3))
        assert torch.equal(errors[mask_of(Clock(every), STEPS)], apart)


def test_a_killed_measurement_goes_on_and_another_begins_anew(
    asked, tmp_path, monkeypatch
):
    monkeypatch.setattr(masks, "MASKS", 3)
    whole = masks.measure(*asked, tmp_path / "whole", "a")
    drawn, plain = [], masks.text.sample

    def killed(*args):
        drawn.append(args[-1].mask)
        if len(drawn) == 6:
            raise KeyboardInterrupt
        return plain(*args)

    monkeypatch.setattr(masks.text, "sample", killed)
    with pytest.raises(KeyboardInterrupt):
        masks.measure(*asked, tmp_path / "state", "a")
    again = masks.measure(*asked, tmp_path / "state", "a")
    # The teacher, and what the first chunk of three had not.
    assert drawn[6:] == ["1111", *all_masks(STEPS)[3:]]
    assert all(torch.equal(again[mask], whole[mask]) for mask in whole)
    before = len(drawn)
    masks.measure(*asked, tmp_path / "state", "b")
    assert len(drawn) - before == 1 + len(whole)


def test_a_clock_beside_the_masks_is_refused(asked, tmp_path):
    pipe, prompts, noise, _ = asked
    spec = SamplerSpec("dpmpp", STEPS, 3.0, clock=2)
    with pytest.raises(ValueError, match="and clock 2 is set"):
        masks.measure(pipe, prompts, noise, spec, tmp_path, "a")


def costs(steps: int) -> dict:
    draw = random.Random(0)
    return {span: draw.expovariate(1) for span in all_spans(steps)}


def test_costs_that_add_up_are_predicted_and_nothing_is_lost():
    known = costs(8)
    errors = {mask: additive(mask, known) for mask in all_masks(8)}
    found = masks.report(errors, 8)["spans"]
    # 128 less the full one and the 28 summands.
    assert found["prediction"]["n"] == 128 - 1 - 28
    assert found["prediction"]["r2"] == pytest.approx(1)
    assert found["prediction"]["slope"] == pytest.approx(1)
    for best in found["best"]:
        assert (best["gap"], best["rank"]) == (0, 1)
        assert best["chosen"] == best["best"]
    assert [best["masks"] for best in found["best"]] == [1, 7, 21, 35, 35, 21, 7]


def test_half_the_cost_halves_the_slope_and_a_wrong_sum_has_a_gap():
    known = costs(8)
    errors = {mask: additive(mask, known) for mask in all_masks(8)}
    single = {masks.mask_of_span(8, span) for span in all_spans(8)}
    halved = {m: e if m in single else e / 2 for m, e in errors.items()}
    assert masks.report(halved, 8)["spans"]["prediction"]["slope"] == pytest.approx(0.5)
    # Single steps know nothing of how old features are: here the longer costs less.
    aged = {mask: e + 10 * mask.count("00") for mask, e in errors.items()}
    found = masks.report(aged, 8)["steps"]
    assert found["prediction"]["r2"] < 0.99
    assert max(best["gap"] for best in found["best"]) > 0
    assert all(best["error"] == aged[best["chosen"]] for best in found["best"])
