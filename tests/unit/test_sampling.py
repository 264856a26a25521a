import pytest
import torch

from clockwork_diffusion.adaptors import IdentityAdaptor, build_adaptor
from clockwork_diffusion.clock import Clock
from clockwork_diffusion.sampling import (
    Passes,
    Prompts,
    SamplerSpec,
    image_seed,
    initial_noise,
    new_scheduler,
    sample_latents,
)
from clockwork_diffusion.split import SplitUNet


@pytest.fixture
def prompts() -> Prompts:
    generator = torch.Generator().manual_seed(3)
    return Prompts(
        torch.randn(3, 5, 24, generator=generator),
        torch.randn(1, 5, 24, generator=generator),
        torch.randn(3, 8, generator=generator),
        torch.randn(1, 8, generator=generator),
    )


def noise_of(count: int) -> torch.Tensor:
    return initial_noise([image_seed(0, i) for i in range(count)], (4, 16, 16))


@torch.no_grad()
def plain_loop(unet, config, prompts, noise, spec) -> torch.Tensor:
    """Sample the way every tutorial does."""
    scheduler = new_scheduler(spec.scheduler, config, spec.steps)
    latents = noise * scheduler.init_noise_sigma
    text = torch.cat([prompts.empty.expand(len(prompts), -1, -1), prompts.text])
    for t in scheduler.timesteps:
        empty, prompted = unet(torch.cat([latents] * 2), t, text).sample.chunk(2)
        eps = empty + spec.guidance * (prompted - empty)
        latents = scheduler.step(eps, t, latents).prev_sample
    return latents


def test_clock_1_equals_the_plain_unet_bit_for_bit(unet, prompts, scheduler_config):
    spec = SamplerSpec("dpmpp", 5, 3.0, clock=1)
    passes = Passes(SplitUNet(unet), IdentityAdaptor())
    ours = sample_latents(passes, scheduler_config, prompts, noise_of(3), spec)
    plain = plain_loop(unet, scheduler_config, prompts, noise_of(3), spec)
    assert torch.equal(ours, plain)


@pytest.mark.parametrize("clock", [2, 4])
@torch.no_grad()
def test_identity_equals_caching_the_upsampled_features(
    unet, prompts, scheduler_config, clock
):
    """The independent reference: a hook replaces the output of the whole UP-2."""
    spec = SamplerSpec("dpmpp", 8, 3.0, clock=clock)
    passes = Passes(SplitUNet(unet), IdentityAdaptor())
    ours = sample_latents(passes, scheduler_config, prompts, noise_of(3), spec)

    calls, cache = 0, None

    def cached(_module, _inputs, output):
        nonlocal calls, cache
        if calls % clock == 0:
            cache = output
        calls += 1
        return cache

    handle = unet.up_blocks[2].register_forward_hook(cached)
    reference = plain_loop(unet, scheduler_config, prompts, noise_of(3), spec)
    handle.remove()
    assert not torch.allclose(
        reference, plain_loop(unet, scheduler_config, prompts, noise_of(3), spec)
    )
    torch.testing.assert_close(ours, reference, rtol=0, atol=1e-5)


@torch.no_grad()
def test_an_image_depends_on_its_own_seed_alone(unet, prompts, scheduler_config):
    spec = SamplerSpec("dpmpp", 4, 3.0, clock=2)
    torch.manual_seed(6)
    adaptor = build_adaptor("resnet", unet, "stage1", 8)
    torch.nn.init.normal_(adaptor.up.weight, std=0.02)
    passes = Passes(SplitUNet(unet), adaptor.eval())
    together = sample_latents(passes, scheduler_config, prompts, noise_of(3), spec)
    alone = sample_latents(
        passes, scheduler_config, prompts[1:2], noise_of(3)[1:2], spec
    )
    # Latents of an untrained UNet reach tens; this is fp32's own rounding.
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-4)


def test_seeds_of_runs_do_not_overlap():
    assert len({image_seed(s, i) for s in range(3) for i in range(5000)}) == 15000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "step count 0 is less than 1"),
        ({"clock": 0}, "clock 0 is less than 1"),
        ({"scheduler": "euler"}, "'euler' is not one of dpmpp, ddim"),
        ({"guidance": 0.5}, "guidance 0.5 is less than 1"),
    ],
)
def test_bad_samplers_are_refused(change, message):
    good = {"scheduler": "dpmpp", "steps": 8, "guidance": 3.0, "clock": 2}
    with pytest.raises(ValueError, match=message):
        SamplerSpec(**{**good, **change})


def test_a_clock_without_an_adaptor_is_refused(unet, prompts, scheduler_config):
    with pytest.raises(ValueError, match="clock 2 needs an adaptor"):
        sample_latents(
            Passes(SplitUNet(unet)),
            scheduler_config,
            prompts,
            noise_of(3),
            SamplerSpec("dpmpp", 4, 3.0, clock=2),
        )


def test_an_adaptor_of_another_cut_is_refused(unet):
    with pytest.raises(ValueError, match="for cut 'stage2'.* split at 'stage1'"):
        Passes(SplitUNet(unet, "stage1"), IdentityAdaptor(cut="stage2"))


def test_the_clock_of_the_paper():
    """8 steps at clock 2: full passes at 1, 3, 5, 7, the adaptor at 2, 4, 6, 8."""
    assert [i + 1 for i in range(8) if Clock(2).is_full(i)] == [1, 3, 5, 7]
    assert Clock(adaptor_steps=(2, 4, 6, 8)).full_steps(8) == Clock(2).full_steps(8)
    with pytest.raises(ValueError, match="adaptor step 9 is beyond"):
        Clock(adaptor_steps=(9,)).full_steps(8)
    with pytest.raises(ValueError, match="adaptor step 1 is less than 2"):
        Clock(adaptor_steps=(1, 3))
