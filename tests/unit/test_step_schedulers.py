"""Schedulers at chosen time steps: their updates, and pipelines that use them."""

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
)

from clockwork_diffusion.depth_skip import depth_skipped
from clockwork_diffusion.pipeline import clockwork
from clockwork_diffusion.schedulers import (
    apply_timesteps,
    at_timesteps,
    remove_timesteps,
    visiting,
)
from clockwork_diffusion.timesteps import gamma_timesteps
from clockwork_experiments.models import loading

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
CHOSEN = gamma_timesteps(6, 1 / 1.8)
KINDS = {
    "ddim": DDIMScheduler(**BETAS, clip_sample=False),
    "dpmpp": DPMSolverMultistepScheduler(**BETAS),
    "euler": EulerDiscreteScheduler(**BETAS),
    "pndm": PNDMScheduler(**BETAS, skip_prk_steps=True),
}


def eps(x: torch.Tensor, t: float) -> torch.Tensor:
    """Stand in for a UNet: smooth, nonlinear, and different at each timestep."""
    return torch.tanh(x * (1 + t / 2000)) * 0.8 + 0.1 * torch.cos(x + t / 300)


def run(scheduler, noise: torch.Tensor) -> torch.Tensor:
    x = noise * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        output = eps(scheduler.scale_model_input(x, t), float(t))
        x = scheduler.step(output, t, x, return_dict=False)[0]
    return x


@pytest.fixture
def noise() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 4, 8, 8, generator=generator, dtype=torch.float64)


@pytest.fixture
def alphas() -> torch.Tensor:
    return KINDS["ddim"].alphas_cumprod.double()


def test_ddim_goes_from_one_chosen_step_to_the_next(noise, alphas):
    x = noise
    for index, t in enumerate(CHOSEN):
        output, alpha = eps(x, t), alphas[t]
        clean = (x - (1 - alpha).sqrt() * output) / alpha.sqrt()
        if index + 1 == len(CHOSEN):
            x = clean
            break
        following = alphas[CHOSEN[index + 1]]
        x = following.sqrt() * clean + (1 - following).sqrt() * output
    scheduler = visiting(KINDS["ddim"], CHOSEN)
    assert torch.allclose(run(scheduler, noise), x, atol=1e-4)
    assert tuple(scheduler.timesteps.tolist()) == CHOSEN


def test_euler_goes_down_the_chosen_noise_levels(noise, alphas):
    sigmas = [((1 - alphas[t]) / alphas[t]).sqrt() for t in CHOSEN] + [0.0]
    scheduler = visiting(KINDS["euler"], CHOSEN)
    x = noise * scheduler.init_noise_sigma
    for t, now, then in zip(CHOSEN, sigmas, sigmas[1:], strict=False):
        x = x + (then - now) * eps(x / (now**2 + 1).sqrt(), t)
    assert torch.allclose(run(scheduler, noise), x, atol=1e-4)


def test_dpm_solver_is_the_one_of_diffusers(noise):
    known = DPMSolverMultistepScheduler(**BETAS)
    known.set_timesteps(timesteps=list(CHOSEN))
    found = run(visiting(KINDS["dpmpp"], CHOSEN), noise)
    assert torch.allclose(found, run(known, noise), atol=1e-6)
    # Its own choice of noise levels gives way.
    karras = DPMSolverMultistepScheduler(**BETAS, use_karras_sigmas=True)
    assert torch.equal(run(visiting(karras, CHOSEN), noise), found)


@pytest.mark.parametrize("steps", [2, 3, 4, 10])
def test_plms_is_the_one_of_diffusers_where_steps_are_even(noise, steps):
    known = PNDMScheduler(**BETAS, skip_prk_steps=True, set_alpha_to_one=True)
    known.set_timesteps(steps)
    even = sorted(set(known.timesteps.tolist()), reverse=True)
    scheduler = visiting(KINDS["pndm"], even)
    assert scheduler.timesteps.tolist() == known.timesteps.tolist()
    assert torch.allclose(run(scheduler, noise), run(known, noise), atol=1e-6)
    # At others it differs from what diffusers would make of as many.
    scheduler = visiting(KINDS["pndm"], gamma_timesteps(steps, 1 / 1.8))
    assert not torch.allclose(run(scheduler, noise), run(known, noise), atol=1e-2)


def test_plms_starts_by_the_mean_of_two_slopes(noise, alphas):
    chosen = (900, 300)
    first = eps(noise, 900)

    def step(x, slope, t, following):
        alpha = alphas[t]
        clean = (x - (1 - alpha).sqrt() * slope) / alpha.sqrt()
        ahead = alphas[following] if following is not None else torch.tensor(1.0)
        return ahead.sqrt() * clean + (1 - ahead).sqrt() * slope

    slope = (eps(step(noise, first, 900, 300), 300) + first) / 2
    x = step(noise, slope, 900, 300)
    # As diffusers has it, the first slope of the two is the older one next.
    last = eps(x, 300)
    x = step(x, (3 * last - first) / 2, 300, None)
    assert torch.allclose(run(visiting(KINDS["pndm"], chosen), noise), x, atol=1e-4)


@pytest.mark.parametrize("name", KINDS)
def test_pipelines_visit_the_chosen_steps(root, name):
    pipe = loading.load_pipeline(root / "resources" / "mini" / "stable-diffusion")
    if name == "pndm":
        # It cannot start from zero signal, as ours does.
        pipe.scheduler = KINDS[name]
    else:
        own = {"clip_sample": False} if name == "ddim" else {}
        pipe.scheduler = type(KINDS[name]).from_config(pipe.scheduler.config, **own)
    trained = {key: pipe.scheduler.config[key] for key in (*BETAS, "prediction_type")}
    chosen = gamma_timesteps(4, 1.5)
    pipe.scheduler = visiting(pipe.scheduler, chosen)
    visited = []
    pipe.unet.register_forward_pre_hook(lambda _, args: visited.append(float(args[1])))
    options = {"num_inference_steps": 4, "output_type": "latent", "height": 64}
    for _ in range(2):
        visited.clear()
        images = pipe("a red ring", width=64, **options).images
        assert images.isfinite().all()
        repeated = chosen[:1] + chosen[1:2] * 2 + chosen[2:]
        assert tuple(visited) == (repeated if name == "pndm" else chosen)
    with depth_skipped(pipe, 9), clockwork(pipe, 2):
        composed = pipe("a red ring", width=64, **options).images
    assert composed.isfinite().all()
    with pytest.raises(ValueError, match="is 5, and 4 time steps are chosen"):
        pipe("a red ring", width=64, **{**options, "num_inference_steps": 5})
    assert trained.items() <= dict(pipe.scheduler.config).items()


def test_what_takes_no_time_steps_is_refused():
    with pytest.raises(ValueError, match="DDPMScheduler takes no time steps of one's"):
        visiting(DDPMScheduler(), CHOSEN)
    with pytest.raises(ValueError, match="there are no timesteps"):
        visiting(KINDS["ddim"], ())
    with pytest.raises(ValueError, match="timestep 1000 is not one of 0 to 999"):
        visiting(KINDS["ddim"], (1000, 500))
    with pytest.raises(ValueError, match="do not descend: 500 comes after 500"):
        visiting(KINDS["ddim"], (500, 500))


def test_a_pipeline_visits_them_and_gets_its_scheduler_back(root, tmp_path):
    pipe = loading.load_pipeline(root / "resources" / "mini" / "stable-diffusion")
    before = pipe.scheduler
    apply_timesteps(pipe, (901, 400, 20))
    with pytest.raises(ValueError, match="chosen time steps already: remove those"):
        apply_timesteps(pipe, (901, 20))
    pipe.save_pretrained(tmp_path)
    remove_timesteps(pipe)
    assert pipe.scheduler is before
    with pytest.raises(RuntimeError), at_timesteps(pipe, (901, 400, 20)):
        raise RuntimeError
    assert pipe.scheduler is before
    remove_timesteps(pipe)
    with at_timesteps(pipe, (901, 400, 20)):
        pipe.scheduler = KINDS["euler"]
    assert pipe.scheduler is KINDS["euler"]
    loaded = StableDiffusionPipeline.from_pretrained(tmp_path, local_files_only=True)
    loaded.scheduler.set_timesteps(3)
    assert loaded.scheduler.timesteps.tolist() == [901, 400, 20]


def test_clipped_samples_are_refused():
    with pytest.raises(ValueError, match="clip_sample=True"):
        visiting(DDIMScheduler(**BETAS), CHOSEN)
