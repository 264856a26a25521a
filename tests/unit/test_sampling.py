from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from bare import bare_pipeline, sample_latents
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
)

from clockwork_diffusion.adaptors import IdentityAdaptor, build_adaptor
from clockwork_diffusion.clock import steps_of_calls
from clockwork_diffusion.encoding import Prompts, encode_prompts
from clockwork_diffusion.passes import Passes, Past
from clockwork_diffusion.schedulers import SCHEDULERS, log_snr, new_scheduler
from clockwork_diffusion.unet import SplitUNet, Step
from clockwork_experiments.cost import formulas
from clockwork_experiments.cost.latency import unet_loop
from clockwork_experiments.generate.text import (
    SamplerSpec,
    image_seed,
    initial_noise,
)
from clockwork_experiments.models.loading import load_pipeline
from clockwork_experiments.train.trajectories import (
    TrajectorySpec,
    recorded_timesteps,
    time_embeddings,
    unroll,
)

SD_V15 = {
    # scheduler/scheduler_config.json of SD v1.5.
    "_class_name": "PNDMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}


class Counted:
    """Passes that note which kind each call was, and what it looked back on."""

    def __init__(self, split: SplitUNet, adaptor=None) -> None:
        self.passes = Passes(split, adaptor)
        self.kinds: list[str] = []
        self.pasts: list[Past] = []
        self.steps: list[Step] = []
        self.unet, self.history = self.passes.unet, self.passes.history
        self.check, self.keep = self.passes.check, self.passes.keep

    def full(self, *args, **kwargs) -> Step:
        self.kinds.append("full")
        self.steps.append(self.passes.full(*args, **kwargs))
        return self.steps[-1]

    def light(self, x, t, c, past, pooled=None, **kwargs) -> Step:
        self.kinds.append("light")
        self.pasts.append(past)
        self.steps.append(self.passes.light(x, t, c, past, pooled, **kwargs))
        return self.steps[-1]


class Recorder(torch.nn.Module):
    """An adaptor that notes what it is given."""

    def __init__(self, history: int = 1, inputs=("r_in", "r_out", "text")) -> None:
        super().__init__()
        self.config = SimpleNamespace(cut="stage1")
        self.history, self.inputs = history, inputs
        self.given: list[tuple] = []

    def forward(self, r_in, r_out, t_emb, text_emb=None, ages=None):
        self.given.append((r_out, ages))
        if r_out is None:
            return r_in.repeat(1, 2, 1, 1) * 0.1
        return (r_out[0] if ages is not None else r_out) * 0.9


@pytest.fixture(scope="module")
def mini(root: Path) -> StableDiffusionPipeline:
    return load_pipeline(root / "resources" / "mini" / "stable-diffusion")


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
        ({"scheduler": "euler"}, "'euler' is not one of dpmpp, dpm, pndm"),
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


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("kind", SCHEDULERS)
def test_clock_1_equals_diffusers_own_pipeline_bit_for_bit(mini, kind, guidance):
    prompts = encode_prompts(mini, ["a red ring on the sea", "a blue square"])
    spec = SamplerSpec(kind, 5, guidance)
    config = mini.scheduler.config
    passes = Passes(SplitUNet(mini.unet))
    ours = sample_latents(passes, config, prompts, noise_of(2), spec)
    parts = {**mini.components, "scheduler": new_scheduler(kind, config, 5)}
    pipe = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        prompt_embeds=prompts.text,
        negative_prompt_embeds=prompts.empty.expand(2, -1, -1),
        latents=noise_of(2),
        num_inference_steps=5,
        guidance_scale=guidance,
        output_type="latent",
    ).images
    assert torch.equal(ours, theirs)


def test_all_schedulers_solve_the_same_equation(mini):
    """At many steps they meet, so that none has another noise schedule or scale.

    At few they do not: DDIM and PNDM take noise for the latents of a timestep before
    the last, and in an open world that is another picture.
    """
    prompts = encode_prompts(mini, ["a blue star at night"])
    passes = Passes(SplitUNet(mini.unet))

    def draw(kind: str) -> torch.Tensor:
        spec = SamplerSpec(kind, 200, 1.0)
        return sample_latents(passes, mini.scheduler.config, prompts, noise_of(1), spec)

    reference = draw("dpmpp")
    for kind in set(SCHEDULERS) - {"dpmpp"}:
        error = (draw(kind) - reference).norm() / reference.norm()
        assert error < 0.05, (kind, error)


@pytest.mark.parametrize("own", ["dpmpp", "sd"])
@pytest.mark.parametrize("kind", SCHEDULERS)
def test_the_noise_schedule_of_the_model_is_kept(kind, own, scheduler_config):
    config = dict(scheduler_config if own == "dpmpp" else SD_V15)
    config |= {"beta_end": 0.013, "steps_offset": 1, "prediction_type": "v_prediction"}
    made = new_scheduler(kind, config, 8)
    expected = torch.linspace(0.00085**0.5, 0.013**0.5, 1000) ** 2
    torch.testing.assert_close(made.betas, expected)
    assert made.config.prediction_type == "v_prediction"
    assert made.config.steps_offset == 1
    leading = kind in ("pndm", "ddim")
    assert made.config.timestep_spacing == ("leading" if leading else "linspace")
    assert made.timesteps[0] == (876 if leading else 999)
    if kind == "pndm":
        assert made.config.skip_prk_steps and not made.config.set_alpha_to_one
    if kind == "ddim":
        assert not made.config.clip_sample and not made.config.set_alpha_to_one
    if kind in ("dpm", "dpmpp"):
        expected = {"dpm": "dpmsolver", "dpmpp": "dpmsolver++"}[kind]
        assert made.config.algorithm_type == expected


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_a_models_defaults_are_kept(kind):
    """Schedulers have different defaults for the betas."""
    own = DDIMScheduler()
    made = new_scheduler(kind, own.config, 8)
    torch.testing.assert_close(made.betas, own.betas)


def test_a_models_own_choices_are_kept():
    own = DDIMScheduler(timestep_spacing="linspace", clip_sample=True).config
    assert new_scheduler("ddim", own, 8).config.timestep_spacing == "linspace"
    assert new_scheduler("ddim", own, 8).config.clip_sample
    trailing = DDIMScheduler(timestep_spacing="trailing").config
    assert new_scheduler("pndm", trailing, 8).timesteps[0] == 999
    runge_kutta = PNDMScheduler(skip_prk_steps=False).config
    assert len(new_scheduler("pndm", runge_kutta, 8).timesteps) == 9
    stochastic = DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++").config
    made = new_scheduler("dpmpp", stochastic, 8)
    assert made.config.algorithm_type == "dpmsolver++"


@pytest.mark.parametrize("kind", ["pndm", "heun"])
def test_a_noise_schedule_that_a_scheduler_lacks_is_refused(kind):
    config = DDIMScheduler(rescale_betas_zero_snr=True).config
    with pytest.raises(ValueError, match=f"{kind!r} has no zero terminal SNR"):
        new_scheduler(kind, config, 8)


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_v_prediction_is_honoured(mini, kind):
    """The mini model predicts v; one of ε with the same noise draws the same images."""
    prompts = encode_prompts(mini, ["a red ring on the sea"])
    config, spec = mini.scheduler.config, SamplerSpec(kind, 8, 1.0)
    passes = Passes(SplitUNet(mini.unet))
    alphas = DDIMScheduler.from_config(config).alphas_cumprod.double().numpy()
    levels = np.sqrt((1 - alphas) / alphas)

    class OfNoise(Counted):
        def full(self, x, t, c, **kwargs):
            step = super().full(x, t, c, **kwargs)
            sigma = float(np.interp(float(t), np.arange(1000), levels))
            alpha = (1 + sigma**2) ** -0.5
            return step._replace(eps=alpha * step.eps + alpha * sigma * x)

    assert config.prediction_type == "v_prediction"
    noise_config = {**config, "prediction_type": "epsilon"}
    noise = noise_of(1)
    plain = sample_latents(passes, config, prompts, noise, spec)
    of_noise = OfNoise(SplitUNet(mini.unet))
    same = sample_latents(of_noise, noise_config, prompts, noise, spec)
    other = sample_latents(of_noise, config, prompts, noise, spec)
    error = (same - plain).norm() / plain.norm()
    # PNDM mixes v of several timesteps as if it were of one (as in diffusers).
    assert error < (0.2 if kind == "pndm" else 1e-5)
    assert (other - plain).norm() / plain.norm() > 0.2


PHASES = {
    # F full, l light; a step's calls together.
    "dpmpp": "F l F l F",
    "dpm": "F l F l F",
    "ddim": "F l F l F",
    "pndm": "FF l F l F",
    "heun": "FF ll FF ll F",
}


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_all_calls_of_a_step_share_its_phase(unet, prompts, scheduler_config, kind):
    counted = Counted(SplitUNet(unet), IdentityAdaptor())
    spec = SamplerSpec(kind, 5, 3.0, clock=2)
    sample_latents(counted, scheduler_config, prompts, noise_of(3), spec)
    phases = "".join(
        kind[0].upper() if kind == "full" else "l" for kind in counted.kinds
    )
    assert phases == PHASES[kind].replace(" ", "")


@pytest.mark.parametrize("kind", ["heun", "pndm"])
def test_all_calls_of_a_step_look_back_on_the_step_before(
    unet, prompts, scheduler_config, kind
):
    adaptor = build_adaptor("resnet", unet, "stage1", 1, inputs=("r_in", "r_out"))
    counted = Counted(SplitUNet(unet), adaptor)
    spec = SamplerSpec(kind, 4, 3.0, adaptor_steps=(2, 3))
    sample_latents(counted, scheduler_config, prompts, noise_of(3), spec)
    looked = [
        next(i for i, step in enumerate(counted.steps) if step.r_out is past.previous)
        for past in counted.pasts
    ]
    # Calls from 0: Heun's 0 1 | 2 3 | 4 5 | 6, PNDM's 0 1 | 2 | 3 | 4.
    assert looked == {"heun": [1, 1, 3, 3], "pndm": [1, 2]}[kind]


@pytest.mark.parametrize("steps", [(2, 4), (3, 4), (5,), (2, 3, 4, 5)])
def test_explicit_adaptor_steps(unet, prompts, scheduler_config, steps):
    counted = Counted(SplitUNet(unet), IdentityAdaptor())
    spec = SamplerSpec("dpmpp", 5, 3.0, adaptor_steps=steps)
    sample_latents(counted, scheduler_config, prompts, noise_of(3), spec)
    light = [i + 1 for i, kind in enumerate(counted.kinds) if kind == "light"]
    assert light == list(steps)


def test_consecutive_adaptor_steps_take_the_estimate(unet, prompts, scheduler_config):
    """As the paper says: r_out of the previous step, be it full or an estimate."""
    adaptor = Recorder()
    counted = Counted(SplitUNet(unet), adaptor)
    spec = SamplerSpec("dpmpp", 5, 3.0, adaptor_steps=(3, 4, 5))
    sample_latents(counted, scheduler_config, prompts, noise_of(3), spec)
    given = [r_out for r_out, _ in adaptor.given]
    assert torch.equal(given[0], counted.steps[1].r_out)
    assert torch.equal(given[1], 0.9 * given[0])
    assert torch.equal(given[2], 0.9 * (0.9 * given[0]))


def test_adaptor_steps_2_4_are_clock_2(unet, prompts, scheduler_config):
    passes = Passes(SplitUNet(unet), IdentityAdaptor())
    config, noise = scheduler_config, noise_of(3)
    listed = SamplerSpec("dpmpp", 4, 3.0, adaptor_steps=(2, 4))
    clocked = SamplerSpec("dpmpp", 4, 3.0, clock=2)
    assert torch.equal(
        sample_latents(passes, config, prompts, noise, listed),
        sample_latents(passes, config, prompts, noise, clocked),
    )


def test_every_step_runs_the_adaptor_from_the_first(unet, prompts, scheduler_config):
    adaptor = Recorder(inputs=("r_in", "text"))
    counted = Counted(SplitUNet(unet), adaptor)
    spec = SamplerSpec("dpmpp", 4, 3.0, every_step=True)
    sample_latents(counted, scheduler_config, prompts, noise_of(3), spec)
    assert counted.kinds == ["light"] * 4
    assert adaptor.given[0][0] is None


def test_every_step_is_refused_to_an_adaptor_that_reuses(
    unet, prompts, scheduler_config
):
    spec = SamplerSpec("dpmpp", 4, 3.0, every_step=True)
    args = (scheduler_config, prompts, noise_of(3), spec)
    with pytest.raises(ValueError, match="Recorder takes r_in, r_out, text"):
        sample_latents(Passes(SplitUNet(unet), Recorder()), *args)
    with pytest.raises(ValueError, match="every step needs an adaptor"):
        sample_latents(Passes(SplitUNet(unet)), *args)


def test_explicit_steps_without_an_adaptor_are_refused(unet, prompts, scheduler_config):
    spec = SamplerSpec("dpmpp", 4, 3.0, adaptor_steps=(3, 4))
    with pytest.raises(ValueError, match="adaptor steps 3, 4 needs? an adaptor"):
        sample_latents(
            Passes(SplitUNet(unet)), scheduler_config, prompts, noise_of(3), spec
        )


@pytest.mark.parametrize(
    ("kind", "sampler", "steps"),
    [
        # Until the second full step, the first stands for both.
        ("dpmpp", {"clock": 3}, [(1, 0, 0), (2, 0, 0), (4, 3, 0), (5, 3, 0)]),
        ("dpmpp", {"adaptor_steps": (4, 5, 7)}, [(3, 2, 1), (4, 2, 1), (6, 5, 2)]),
        ("heun", {"clock": 2}, [(1, 0, 0)] * 2 + [(3, 2, 0)] * 2 + [(5, 4, 2)] * 2),
    ],
)
def test_an_adaptor_with_history_gets_full_passes_alone(
    unet, prompts, scheduler_config, kind, sampler, steps
):
    adaptor = Recorder(history=2)
    counted = Counted(SplitUNet(unet), adaptor)
    spec = SamplerSpec(kind, 7 if kind == "heun" else max(6, 7), 3.0, **sampler)
    sample_latents(counted, scheduler_config, prompts, noise_of(3), spec)
    given = [each.tolist() for _, each in adaptor.given]
    scheduler = new_scheduler(kind, scheduler_config, spec.steps)
    owners = steps_of_calls(kind, spec.steps)
    firsts = [owners.index(step) for step in range(spec.steps)]
    at = log_snr(scheduler, scheduler.timesteps[firsts])
    ages = [[float(at[now] - at[full]) for full in fulls] for now, *fulls in steps]
    assert given[: len(ages)] == ages
    fulls = [
        s.r_out
        for s, k in zip(counted.steps, counted.kinds, strict=True)
        if k == "full"
    ]
    for r_outs, _ in adaptor.given:
        assert r_outs.shape == (2, *fulls[0].shape)
        assert all(any(torch.equal(r, full) for full in fulls) for r in r_outs)


@pytest.mark.parametrize("kind", SCHEDULERS)
@pytest.mark.parametrize(
    "sampler", [{"clock": 1}, {"clock": 2}, {"clock": 3}, {"adaptor_steps": (3, 5)}]
)
def test_flops_of_a_run_are_those_of_its_calls(
    unet, prompts, scheduler_config, kind, sampler
):
    counted = Counted(SplitUNet(unet), IdentityAdaptor())
    spec = SamplerSpec(kind, 5, 3.0, **sampler)
    sample_latents(counted, scheduler_config, prompts, noise_of(3), spec)
    assert tuple(spec.calls) == (
        counted.kinds.count("full"),
        counted.kinds.count("light"),
    )
    settings = {"scheduler": kind, "steps": 5, "guidance": 3.0, **sampler}
    counts = {"full": {"flops": 7}, "adaptors": {"x": {"step": {"flops": 3}}}}
    total = formulas.run_flops({"adaptor": "x", "sampler": settings}, counts, "flops")
    assert total == 2 * sum({"full": 7, "light": 3}[kind] for kind in counted.kinds)


@pytest.mark.parametrize("kind", ["dpmpp", "pndm", "heun"])
def test_the_timed_loop_makes_the_same_calls(unet, kind):
    counted = Counted(SplitUNet(unet), IdentityAdaptor())
    spec = SamplerSpec(kind, 5, 3.0, clock=2)
    unet_loop(counted, spec, 5, 8)()
    assert (counted.kinds.count("full"), counted.kinds.count("light")) == spec.calls


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_an_image_does_not_depend_on_its_batch(unet, prompts, scheduler_config, kind):
    spec = SamplerSpec(kind, 4, 3.0, clock=2)
    passes = Passes(SplitUNet(unet), IdentityAdaptor())
    args = (scheduler_config, prompts, noise_of(3), spec)
    together = sample_latents(passes, *args)
    alone = sample_latents(passes, scheduler_config, prompts[2:], noise_of(3)[2:], spec)
    scale = together.abs().max().item()
    torch.testing.assert_close(together[2:], alone, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("kind", ["dpmpp", "pndm", "heun"])
def test_trajectories_hold_one_row_per_step(unet, prompts, scheduler_config, kind):
    """Of a step with several calls the last one, with its own time embedding."""
    counted = Counted(SplitUNet(unet))
    spec = TrajectorySpec(SamplerSpec(kind, 4, 1.0), "stage1", 0, 4, "float32")
    sample_latents(counted, scheduler_config, prompts, noise_of(3), spec.sampler)
    rows = unroll(bare_pipeline(unet, scheduler_config), prompts, spec, 0)
    last = {"dpmpp": [0, 1, 2, 3], "pndm": [1, 2, 3, 4], "heun": [1, 3, 5, 6]}[kind]
    assert rows["r_out"].shape[:3] == (3, 1, 4)
    for index, call in enumerate(last):
        assert torch.equal(rows["r_out"][:, 0, index], counted.steps[call].r_out)
    timesteps = recorded_timesteps(spec.sampler, scheduler_config)
    made = new_scheduler(kind, scheduler_config, 4).timesteps
    assert torch.equal(timesteps, made[last])
    assert len(time_embeddings(unet, timesteps, prompts.text)) == 4
