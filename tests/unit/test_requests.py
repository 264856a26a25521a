"""Which request and which step a call of the UNet belongs to."""

import copy
import itertools

import pytest
import torch
from diffusers import (
    DDIMInverseScheduler,
    DDIMScheduler,
    DPMSolverMultistepInverseScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2DiscreteScheduler,
    PNDMScheduler,
)

from clockwork_diffusion.branches import apply_deepcache, deepcache
from clockwork_diffusion.hook import hook_of
from clockwork_diffusion.pipeline import apply_clockwork, clockwork, remove_clockwork

NOISE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}
STEPS = 6
ORDERS = ("AB" * STEPS, "ABBA" * (STEPS // 2), "A" + "AB" * (STEPS - 1) + "B")


@pytest.fixture
def unet(unet):
    return copy.deepcopy(unet).requires_grad_(False)


@pytest.fixture
def texts():
    return torch.randn(2, 2, 5, 24, generator=torch.Generator().manual_seed(3)).unbind()


def start(seed: int) -> torch.Tensor:
    return torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(seed))


def request(unet, scheduler, seed: int, text, timesteps=None):
    """Sample as a server's generator does, a step at a time."""
    if timesteps is None:
        scheduler.set_timesteps(STEPS)
        timesteps = scheduler.timesteps
    x = start(seed) * scheduler.init_noise_sigma
    for t in timesteps:
        given = scheduler.scale_model_input(torch.cat([x] * len(text)), t)
        with torch.no_grad():
            eps = unet(given, t, encoder_hidden_states=text).sample
        x = scheduler.step(eps.mean(0, keepdim=True), t, x).prev_sample
        yield x


def final(generator) -> torch.Tensor:
    *_, x = generator
    return x


def interleaved(order: str, **requests) -> dict[str, torch.Tensor]:
    return {name: next(requests[name]) for name in order}


def kinds(unet, scheduler, **kwargs) -> str:
    """Return F for a full call and l for a light one, of one run."""
    seen: list[str] = []
    handles = [
        unet.conv_in.register_forward_hook(lambda *_: seen.append("l")),
        unet.mid_block.register_forward_hook(lambda *_: seen.__setitem__(-1, "F")),
    ]
    scheduler.set_timesteps(kwargs.pop("steps", STEPS))
    text = torch.zeros(1, 5, 24)
    for t in scheduler.timesteps:
        with torch.no_grad():
            unet(torch.ones(1, 4, 16, 16), t, text)
    for handle in handles:
        handle.remove()
    return "".join(seen)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("method", [apply_clockwork, apply_deepcache])
def test_interleaved_requests_do_not_meet(unet, texts, order, method):
    method(unet, 2)
    kind = DPMSolverMultistepScheduler
    alone = {
        name: final(request(unet, kind(**NOISE), seed, text))
        for name, seed, text in zip("AB", (1, 2), texts, strict=True)
    }
    both = interleaved(
        order,
        A=request(unet, kind(**NOISE), 1, texts[0]),
        B=request(unet, kind(**NOISE), 2, texts[1]),
    )
    assert torch.equal(both["A"], alone["A"]) and torch.equal(both["B"], alone["B"])


@pytest.mark.parametrize("order", ORDERS)
def test_requests_that_share_time_steps_and_text_do_not_meet(unet, texts, order):
    """What tells them apart is that each input is near to its own last one."""
    text, scheduler = texts[0], DDIMScheduler(**NOISE)
    apply_clockwork(unet, 2)
    alone = {
        name: final(request(unet, scheduler, seed, text))
        for name, seed in (("A", 1), ("B", 2))
    }
    scheduler.set_timesteps(STEPS)
    steps = scheduler.timesteps
    both = interleaved(
        order,
        A=request(unet, scheduler, 1, text, steps),
        B=request(unet, scheduler, 2, text, steps),
    )
    assert torch.equal(both["A"], alone["A"]) and torch.equal(both["B"], alone["B"])


def test_a_run_that_starts_anew_on_the_same_time_steps_looks_at_no_old_one(unet, texts):
    text, scheduler = texts[0], DDIMScheduler(**NOISE)
    apply_clockwork(unet, 3)
    alone = final(request(unet, scheduler, 1, text))
    for aborted in (1, 2, 4):
        scheduler.set_timesteps(STEPS)
        steps = scheduler.timesteps
        list(itertools.islice(request(unet, scheduler, 2, text, steps), aborted))
        again = final(request(unet, scheduler, 1, text, steps))
        assert torch.equal(again, alone)


def test_a_loop_may_join_its_texts_anew_at_each_step(unet, texts):
    seen = []
    unet.mid_block.register_forward_hook(lambda *_: seen.append(1))
    scheduler = DDIMScheduler(**NOISE)
    scheduler.set_timesteps(STEPS)
    with clockwork(unet, 2):
        for t in scheduler.timesteps:
            text = torch.cat([texts[0], texts[1]])
            with torch.no_grad():
                unet(torch.ones(4, 4, 16, 16), t, text)
    assert len(seen) == STEPS / 2


def test_a_text_that_changes_within_a_run_is_another_request(unet, texts):
    scheduler = DDIMScheduler(**NOISE)
    scheduler.set_timesteps(4)
    seen = []
    unet.mid_block.register_forward_hook(lambda *_: seen.append(1))
    with clockwork(unet, 4):
        for index, t in enumerate(scheduler.timesteps):
            with torch.no_grad():
                unet(torch.ones(2, 4, 16, 16), t, texts[index // 2])
    assert len(seen) == 2


def test_plain_numbers_say_nothing_and_run_in_full(unet, texts):
    text = texts[0]
    x = torch.cat([start(1), start(2)])
    with torch.no_grad():
        plain = [unet(x, t, text).sample for t in (900, 700, 500)]
        with clockwork(unet, 2), pytest.warns(UserWarning, match="not an element"):
            found = [unet(x, t, text).sample for t in (900, 700, 500)]
            copies = [unet(x, torch.tensor([t, t]), text).sample for t in (900, 700)]
    assert all(map(torch.equal, plain, found + copies))


INVERSE = (DDIMInverseScheduler, DPMSolverMultistepInverseScheduler)


def test_a_loop_that_leaves_out_time_steps_runs_in_full_and_says_so(unet, texts):
    scheduler = DDIMScheduler(**NOISE)
    scheduler.set_timesteps(STEPS)
    x, text = start(1), texts[0][:1]
    with clockwork(unet, 2) as summary, torch.no_grad():
        with pytest.warns(UserWarning, match="leaves out some of the scheduler's"):
            for t in scheduler.timesteps[::2]:
                eps = unet(x, t, text).sample
        assert not hook_of(unet).requests.kept()[1:]
    assert not summary.light_steps
    assert torch.equal(eps, unet(x, t, text).sample)


@pytest.mark.parametrize("kind", INVERSE)
def test_inversion_skips(unet, kind):
    with clockwork(unet, 2):
        assert kinds(unet, kind(**NOISE)) == "FlFlFl"
        assert kinds(unet, kind(**NOISE), steps=3) == "FlF"


SWAPPED = {
    HeunDiscreteScheduler: "FFllFFl",
    KDPM2DiscreteScheduler: "FFllFFl",
    PNDMScheduler: "FFFFllllFFFF" + "l",
    EulerDiscreteScheduler: "FlFl",
}


@pytest.mark.parametrize("kind", SWAPPED)
def test_whichever_scheduler_samples_is_asked(unet, kind):
    """Nobody has told the door about it: it is found by its time steps."""
    scheduler = kind(**NOISE)
    with clockwork(unet, 2):
        steps = 5 if kind is PNDMScheduler else 4
        expected = SWAPPED[kind]
        assert kinds(unet, scheduler, steps=steps)[: len(expected)] == expected


def test_nothing_is_kept_after_a_run_and_one_feature_within(unet, texts):
    text, seen = texts[0], []
    feature = torch.empty(2, 32, 16, 16)  # what rises into the last block
    with clockwork(unet, 2) as summary:
        requests = hook_of(unet).requests
        for _ in request(unet, DDIMScheduler(**NOISE), 1, text):
            seen.append(sum(each.numel() for each in requests.kept()))
    assert set(seen[:-1]) <= {0, feature.numel()} and max(seen) == feature.numel()
    assert seen[-1] == 0
    assert summary.kept_bytes == feature.numel() * 4 and summary.left_bytes == 0


@pytest.mark.parametrize("stop", [2, 3, 5])
def test_what_a_run_keeps_goes_with_its_text(unet, texts, stop):
    """As where SDXL hands over to its refiner, or a request is aborted."""
    with clockwork(unet, 4):
        requests = hook_of(unet).requests
        text = texts[0].clone()
        running = request(unet, DDIMScheduler(**NOISE), 1, text)
        for _ in range(stop):
            next(running)
        assert requests.kept()
        del running, text
        assert not requests.kept()


def test_adaptor_steps_beyond_the_run_are_refused_when_it_begins(unet, texts):
    scheduler = DDIMScheduler(**NOISE)
    with (
        clockwork(unet, adaptor_steps=(9,)),
        pytest.raises(ValueError, match=f"step 9 is beyond the {STEPS} steps"),
    ):
        final(request(unet, scheduler, 1, texts[0]))


def test_a_copy_of_the_unet_knows_its_own_scheduler(unet, texts):
    apply_clockwork(unet, 2)
    twin = copy.deepcopy(unet)
    expected = final(request(unet, HeunDiscreteScheduler(**NOISE), 1, texts[0]))
    remove_clockwork(unet)
    assert kinds(twin, HeunDiscreteScheduler(**NOISE), steps=4) == "FFllFFl"
    found = final(request(twin, HeunDiscreteScheduler(**NOISE), 1, texts[0]))
    assert torch.equal(found, expected)


def test_branches_skip_and_keep_as_the_clock_says(unet):
    for branch in (0, 4, 11):
        with deepcache(unet, 2, branch=branch) as summary:
            assert kinds(unet, DDIMScheduler(**NOISE)) == "FlFlFl"
        assert summary.full_steps == (1, 3, 5) and summary.light_steps == (2, 4, 6)
        assert summary.left_bytes == 0
