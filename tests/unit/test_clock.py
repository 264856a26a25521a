import itertools

import pytest

from clockwork_diffusion.clock import (
    Calls,
    Clock,
    clock_of,
    mask_of,
    steps_of_calls,
)
from clockwork_diffusion.made_for import facts_of_clock
from clockwork_diffusion.schedulers import SCHEDULERS, new_scheduler
from clockwork_experiments.cost import formulas
from clockwork_experiments.generate.text import SamplerSpec

COUNTS = {
    "full": {"flops": 100.0},
    "adaptors": {"resnet": {"step": {"flops": 40.0}}},
}


def full_steps(clock: Clock, steps: int = 8) -> list[int]:
    """Return the full steps, counted from 1 as the paper does."""
    return [i + 1 for i in range(steps) if clock.is_full(i)]


def flops(by_steps: bool = False, **sampler) -> float:
    run = {"adaptor": "resnet", "sampler": {"guidance": 1.0, "steps": 8, **sampler}}
    return formulas.run_flops(run, COUNTS, "flops", by_steps=by_steps)


def test_the_clock_of_the_paper():
    """8 steps at clock 2: full passes at 1, 3, 5, 7, the adaptor at 2, 4, 6, 8."""
    assert full_steps(Clock(2)) == [1, 3, 5, 7]
    assert full_steps(Clock(4)) == [1, 5]
    assert full_steps(Clock()) == list(range(1, 9))


@pytest.mark.parametrize(
    ("steps", "full"),
    [
        ((2, 4, 6, 8), [1, 3, 5, 7]),
        ((5, 6, 7, 8), [1, 2, 3, 4]),
        ((3, 4, 5, 6), [1, 2, 7, 8]),
    ],
)
def test_the_adaptor_steps_of_table_3(steps, full):
    clock = Clock(adaptor_steps=steps)
    assert full_steps(clock) == full
    assert clock.full_steps(8) == 4


def test_model_distillation_has_no_full_step():
    assert Clock(every_step=True).full_steps(8) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every": 0}, "clock 0 is less than 1"),
        ({"adaptor_steps": (1, 3)}, "adaptor step 1 is less than 2"),
        ({"every": 2, "adaptor_steps": (3,)}, "either a clock or adaptor steps"),
        ({"every": 2, "every_step": True}, "either a clock or adaptor steps"),
        ({"adaptor_steps": (3,), "every_step": True}, "either a clock or adaptor"),
        ({"every": 2, "mask": "10"}, "either a clock or adaptor steps or .* a mask"),
        ({"mask": "0101"}, "'0101' begins with a light step"),
        ({"mask": "1021"}, "'1021' is not a text of 1 .full. and 0 .light."),
        ({"mask": 1010}, "mask 1010 is not a text"),
    ],
)
def test_clocks_that_cannot_run_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Clock(**settings)


def test_adaptor_steps_beyond_the_run_are_refused():
    with pytest.raises(ValueError, match="adaptor step 9 is beyond the 8 steps"):
        Clock(adaptor_steps=(9,)).full_steps(8)
    with pytest.raises(ValueError, match="adaptor step 9 is beyond the 8 steps"):
        SamplerSpec("dpmpp", 8, 3.0, adaptor_steps=(9,))


@pytest.mark.parametrize(
    ("clock", "mask"),
    [
        (Clock(), "11111111"),
        (Clock(2), "10101010"),
        (Clock(3), "10010010"),
        (Clock(8), "10000000"),
        (Clock(adaptor_steps=(3, 4, 5, 6)), "11000011"),
    ],
)
def test_a_clock_is_a_mask(clock, mask):
    assert mask_of(clock, 8) == mask
    same = Clock(mask=mask)
    assert full_steps(same) == full_steps(clock)
    assert same.needs_adaptor == clock.needs_adaptor
    assert facts_of_clock(same) == facts_of_clock(clock)
    for scheduler in ("dpmpp", "pndm", "heun"):
        assert same.calls(scheduler, 8) == clock.calls(scheduler, 8)


def test_a_mask_is_of_its_own_number_of_steps():
    with pytest.raises(ValueError, match="mask 1010 has 4 steps, and the run 8"):
        Clock(mask="1010").full_steps(8)
    with pytest.raises(ValueError, match="mask 1010 has 4 steps, and the run 8"):
        SamplerSpec("dpmpp", 8, 3.0, mask="1010")
    with pytest.raises(ValueError, match="a mask begins with a full"):
        mask_of(Clock(every_step=True), 8)


def test_the_owners_of_calls():
    assert steps_of_calls("dpmpp", 4) == (0, 1, 2, 3)
    assert steps_of_calls("pndm", 4) == (0, 0, 1, 2, 3)
    assert steps_of_calls("heun", 4) == (0, 0, 1, 1, 2, 2, 3)


def test_every_scheduler_is_known_and_makes_as_many_calls(scheduler_config):
    others = ("EulerDiscreteScheduler", "UniPCMultistepScheduler")
    others += ("KDPM2DiscreteScheduler", "PNDMScheduler", "LCMScheduler")
    kinds = (*SCHEDULERS, *others)
    for kind, steps in itertools.product(kinds, (1, 2, 3, 4, 8, 25)):
        made = new_scheduler(kind, scheduler_config, steps).timesteps
        owners = steps_of_calls(kind, steps)
        assert len(made) == len(owners), (kind, steps)
        # A step's further calls look at where it ends, its first at where it begins.
        firsts = [made[owners.index(step)].item() for step in range(steps)]
        assert firsts == sorted(firsts, reverse=True), (kind, steps)
        assert len(set(firsts)) == steps, (kind, steps)


@pytest.mark.parametrize(
    ("scheduler", "calls"),
    [
        ("dpmpp", (4, 4)),
        ("dpm", (4, 4)),
        ("ddim", (4, 4)),
        # The first step has two calls, and is full.
        ("pndm", (5, 4)),
        # The last step has one call, and is light.
        ("heun", (8, 7)),
    ],
)
def test_calls_of_8_steps_at_clock_2(scheduler, calls):
    assert SamplerSpec(scheduler, 8, 3.0, clock=2).calls == Calls(*calls)
    assert flops(scheduler=scheduler, clock=2) == calls[0] * 100 + calls[1] * 40
    # As the paper counts, all schedulers cost the same.
    assert flops(True, scheduler=scheduler, clock=2) == 4 * 100 + 4 * 40


def test_flops_of_explicit_steps_and_of_every_step():
    assert flops(adaptor_steps=[3, 4, 5]) == 5 * 100 + 3 * 40
    assert flops(every_step=True) == 8 * 40
    assert flops(scheduler="pndm", every_step=True) == 9 * 40
    assert flops(mask="10010100") == 3 * 100 + 5 * 40
    assert flops(scheduler="pndm", mask="10010100") == 4 * 100 + 5 * 40
    assert flops(scheduler="pndm", adaptor_steps=[2]) == 8 * 100 + 40


def test_settings_become_a_clock():
    assert clock_of({"steps": 8}) == Clock()
    assert clock_of({"adaptor_steps": [2, 4]}) == Clock(adaptor_steps=(2, 4))
    assert clock_of({"every_step": True}).needs_adaptor
    assert clock_of({"mask": "1001"}) == Clock(mask="1001")
