"""Costs of runs by hand, and of edited runs against the published figures."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from clockwork_diffusion.adaptors import build_adaptor
from clockwork_experiments.cost import formulas
from clockwork_experiments.cost.architectures import (
    SD_V15_TEXT,
    VIT_G14_WIDTH,
    build_unet,
)
from clockwork_experiments.cost.flops import count_full, count_light

COUNTS = {
    "full": {"flops": 100.0, "flops_with_attention": 120.0},
    "adaptors": {"resnet": {"step": {"flops": 40.0, "flops_with_attention": 60.0}}},
}
# The published cost of the two calls, and TFLOPs of editing by steps of inversion and
# generation: without a clock, with clock 2 and with clock 4, identity adaptor. The
# facts of the paper mark the whole list (R): recounted by Eqs. 2 to 4 from these two
# costs, and in agreement with what is printed.
PUBLISHED = {
    "full": {"flops": 677.8e9},
    "adaptors": {"identity": {"step": {"flops": 228.4e9}}},
}
TFLOPS = {
    (10, 10): (27.1, 18.1, 12.7),
    (20, 20): (54.2, 36.2, 27.3),
    (25, 25): (67.8, 44.4, 33.6),
    (50, 50): (135.6, 90.6, 67.3),
    (100, 50): (169.4, 113.3, 84.5),
    (200, 50): (237.2, 158.6, 118.6),
    (500, 50): (440.6, 294.5, 220.8),
    (1000, 50): (779.5, 521.1, 391.2),
}
CASES = [
    (*steps, clock, printed)
    for steps, row in TFLOPS.items()
    for clock, printed in zip((1, 2, 4), row, strict=True)
]


def edited(steps: int = 10, inverted: int = 0, clock: int = 1, **generation) -> dict:
    """Return settings of an edited run with one clock and adaptor both ways."""
    adaptor = generation.pop("adaptor", "resnet" if clock > 1 else "")
    shared = {"clock": clock, "adaptor": adaptor}
    return {
        "model": "sd",
        "inversion": {"steps": inverted or steps, **shared},
        "generation": {
            "steps": steps,
            **shared,
            "guidance": 7.5,
            "tau_f": 0.8,
            "tau_a": 0.5,
            **generation,
        },
    }


def flops(**settings) -> float:
    return formulas.run_flops(edited(**settings), COUNTS, "flops")


# --- text to image -------------------------------------------------------------------


def test_flops_of_a_run_by_hand():
    run = {"model": "sd", "adaptor": "", "sampler": {"steps": 8, "guidance": 4.0}}
    assert formulas.run_flops(run, COUNTS, "flops") == 2 * 8 * 100
    assert formulas.run_flops(run, COUNTS, "flops_with_attention") == 2 * 8 * 120
    unguided = {**run, "sampler": {"steps": 8, "guidance": 1.0}}
    assert formulas.run_flops(unguided, COUNTS, "flops") == 8 * 100
    sampler = {"steps": 8, "guidance": 4.0, "clock": 2}
    clocked = {"model": "sd", "adaptor": "resnet", "sampler": sampler}
    assert formulas.run_flops(clocked, COUNTS, "flops") == 2 * (4 * 100 + 4 * 40)
    sampler = {"steps": 7, "guidance": 1.0, "clock": 2}
    seven = {**clocked, "sampler": sampler}
    assert formulas.run_flops(seven, COUNTS, "flops") == 4 * 100 + 3 * 40


def test_flops_of_a_call_are_those_of_the_adaptor_if_there_is_one():
    run = {"adaptor": "", "sampler": {"steps": 8, "guidance": 4.0}}
    assert formulas.call_flops(run, COUNTS, "flops") == 2 * 100
    run = {"adaptor": "resnet", "sampler": {"steps": 8, "guidance": 1.0}}
    assert formulas.call_flops(run, COUNTS, "flops") == 40


def test_the_identitys_upsampler_need_not_run():
    """Both ways are counted: with it as the paper has it, and as it is run."""
    step = {"step": {"flops": 40.0}, "step_after_upsampler": {"flops": 30.0}}
    counts = {**COUNTS, "adaptors": {**COUNTS["adaptors"], "identity": step}}
    run = {"model": "sd", "adaptor": "identity"}
    run["sampler"] = {"steps": 8, "guidance": 4.0, "clock": 2}
    kept = {"step": "step_after_upsampler"}
    assert formulas.run_flops(run, counts, "flops") == 2 * (4 * 100 + 4 * 40)
    assert formulas.run_flops(run, counts, "flops", **kept) == 2 * (4 * 100 + 4 * 30)
    assert formulas.call_flops(run, counts, "flops", **kept) == 2 * 30
    learned = {**run, "adaptor": "resnet"}
    plain = formulas.run_flops(learned, counts, "flops")
    assert formulas.run_flops(learned, counts, "flops", **kept) == plain
    assert formulas.reuses_upsampled(run, counts)
    assert not formulas.reuses_upsampled(learned, counts)
    edit = edited(50, clock=2, adaptor="identity")
    saved = formulas.run_flops(edit, counts, "flops") - formulas.run_flops(
        edit, counts, "flops", **kept
    )
    # One row of inversion and three of generation, half of 50 steps light.
    assert saved == 4 * 25 * 10


def test_adding_up_needs_no_torch():
    """Tables and figures are set by jobs that should not wait for it to load."""
    module = "clockwork_experiments.cost.formulas"
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    source = str(Path(formulas.__file__).parents[2])
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": source})


# --- editing, as the paper counts ----------------------------------------------------


@pytest.mark.parametrize(("inverted", "steps", "clock", "printed"), CASES)
def test_published_tflops_from_the_published_costs(inverted, steps, clock, printed):
    run = edited(steps, inverted, clock, adaptor="identity")
    counted = formulas.edit_flops(run, PUBLISHED, "flops", printed=True)
    assert counted == pytest.approx(printed * 1e12, rel=0.005)


@pytest.fixture(scope="module")
def sd() -> dict:
    """Return counts of SD v1.5's architecture."""
    unet, tokens = build_unet("sd"), SD_V15_TEXT[0]
    with torch.device("meta"):
        identity = build_adaptor("identity", unet, "stage1", VIT_G14_WIDTH)
    light = count_light(unet, tokens, identity, VIT_G14_WIDTH)
    return {
        "full": count_full(unet, tokens).to_json(),
        "adaptors": {"identity": {"step": light["step"].to_json()}},
    }


@pytest.mark.parametrize(("inverted", "steps", "clock", "printed"), CASES)
def test_published_tflops_from_our_counts(sd, inverted, steps, clock, printed):
    run = edited(steps, inverted, clock, adaptor="identity")
    counted = formulas.edit_flops(run, sd, "flops", printed=True)
    assert counted == pytest.approx(printed * 1e12, rel=0.005)


def test_identity_clock_2_saves_a_third(sd):
    base, clocked = (
        formulas.run_flops(edited(50, clock=clock, adaptor="identity"), sd, "flops")
        for clock in (1, 2)
    )
    assert 1 - clocked / base == pytest.approx(0.33, abs=0.005)


def test_the_paper_rounds_full_passes_down_and_a_clock_rounds_them_up():
    """25 steps at clock 2 are 12 full passes in the paper's count, and 13 in a loop."""
    for steps, clock, full in ((25, 2, 12), (25, 4, 6), (10, 4, 2), (50, 4, 12)):
        run = edited(steps, clock=clock)
        printed = formulas.edit_flops(run, COUNTS, "flops", printed=True)
        assert printed == 4 * (full * 100 + (steps - full) * 40)
        assert formulas.edit_flops(run, COUNTS, "flops") - printed == 4 * (100 - 40)
    run = edited(20, clock=4)
    assert formulas.edit_flops(run, COUNTS, "flops") == formulas.edit_flops(
        run, COUNTS, "flops", printed=True
    )


def test_the_printed_count_knows_neither_option_nor_fewer_rows():
    run = edited(guidance=1.0, drop_source=True, features="activations")
    assert formulas.edit_flops(run, COUNTS, "flops", printed=True) == 4 * 10 * 100


# --- editing, as it runs -------------------------------------------------------------


def test_rows_of_an_edited_run_by_hand():
    assert flops() == (1 + 3) * 10 * 100
    assert flops(guidance=1.0) == (1 + 2) * 10 * 100
    assert flops(inverted=100) == 100 * 100 + 3 * 10 * 100
    # Full passes at steps 1, 4, 7 and 10 of 10.
    assert flops(clock=3) == 4 * (4 * 100 + 6 * 40)
    with_attention = formulas.run_flops(edited(clock=3), COUNTS, "flops_with_attention")
    assert with_attention == 4 * (4 * 120 + 6 * 60)


def test_inversion_and_generation_have_clocks_of_their_own():
    run = edited(10, clock=2)
    run["inversion"] |= {"clock": 1, "adaptor": ""}
    assert formulas.run_flops(run, COUNTS, "flops") == 10 * 100 + 3 * (5 * 100 + 5 * 40)


def test_a_source_row_that_is_dropped_saves_one_row_of_the_last_steps():
    # The later of the two schedules ends at 0.8 of the steps, whichever it is.
    assert flops() - flops(drop_source=True) == 0.2 * 10 * 100
    assert flops() - flops(drop_source=True, tau_f=0.3, tau_a=0.8) == 0.2 * 10 * 100
    assert flops(steps=7) - flops(steps=7, drop_source=True) == 2 * 100
    # Of steps 9 and 10, the first is full at clock 2, and neither at clock 5.
    for clock, saved in ((2, 100 + 40), (5, 40 + 40)):
        dropped = flops(clock=clock, drop_source=True)
        assert flops(clock=clock) - dropped == saved
    assert flops(drop_source=True, tau_f=1.0) == flops()


def test_without_injection_a_dropped_source_row_never_runs():
    """Plain guided generation: inversion and two rows."""
    plain = {"tau_f": 0.0, "tau_a": 0.0, "drop_source": True}
    assert flops(**plain) == (1 + 2) * 10 * 100
    assert flops(**plain, guidance=1.0) == (1 + 1) * 10 * 100


def test_kept_activations_take_one_pass_per_injecting_step_for_all_prompts():
    kept = {"features": "activations"}
    assert flops(**kept) == (1 + 2) * 10 * 100 + 8 * 100
    assert flops(**kept, prompts=5) == (1 + 2) * 10 * 100 + 8 * 100 / 5
    assert flops(**kept, guidance=1.0) == (1 + 1) * 10 * 100 + 8 * 100
    # No source row is left to be dropped.
    assert flops(**kept, drop_source=True) == flops(**kept)
    # As full or light as generation's clock has it: steps 1, 4 and 7 of the first 8.
    loop = 4 * 100 + 6 * 40
    assert flops(clock=3, **kept) == (1 + 2) * loop + 3 * 100 + 5 * 40
    # For one prompt it is what dropping the source row comes to.
    assert flops(clock=3, **kept) == flops(clock=3, drop_source=True)
    # Latents cost the same for any number of prompts.
    assert flops(prompts=5) == flops()


def test_the_adaptor_of_each_loop_is_its_own():
    counts = {
        "full": {"flops": 100.0},
        "adaptors": {"a": {"step": {"flops": 40.0}}, "b": {"step": {"flops": 10.0}}},
    }
    run = edited(10, clock=2, adaptor="a")
    run["inversion"]["adaptor"] = "b"
    found = formulas.run_flops(run, counts, "flops")
    assert found == 5 * 100 + 5 * 10 + 3 * (5 * 100 + 5 * 40)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": "keys"}, "'keys' are not one of latents, activations"),
        ({"tau_f": 1.2}, "12 injecting steps are not within 0 to 10 steps"),
        ({"tau_f": -0.5, "tau_a": -0.4}, "-4 injecting steps are not within"),
    ],
)
def test_settings_that_cannot_run_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        flops(**change)
