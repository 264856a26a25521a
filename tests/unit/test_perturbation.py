import json
import math

import pytest
import torch
from bare import bare_pipeline

from clockwork_diffusion.encoding import Prompts, decode_latents, encode_prompts
from clockwork_diffusion.schedulers import new_scheduler
from clockwork_experiments.base import storage
from clockwork_experiments.generate.text import (
    SamplerSpec,
    image_seed,
    initial_noise,
    sample,
)
from clockwork_experiments.models import loading
from clockwork_experiments.score.perturbation import (
    MEASURES,
    PerturbationSpec,
    decode_pixels,
    feature_noise,
    find_layer,
    high_frequency_share,
    layer_names,
    measure,
    perturb,
    perturbed,
    sample_grid,
    summarise,
)
from clockwork_experiments.steps import perturb_features

SAMPLER = SamplerSpec("dpmpp", 6, 3.0)
SEEDS = [image_seed(5, index) for index in range(3)]
GRID = {
    "sampler": SamplerSpec("dpmpp", 3, 3.0),
    "layers": ("bottleneck", "up_blocks.2"),
    "alphas": (0.3, 1.0),
    "starts": (2, 0),
    "seed": 5,
    "batch_size": 2,
    "kept": 2,
}


@pytest.fixture
def prompts() -> Prompts:
    generator = torch.Generator().manual_seed(3)
    return Prompts(
        torch.randn(3, 5, 24, generator=generator),
        torch.randn(1, 5, 24, generator=generator),
    )


@pytest.fixture(scope="module")
def pipe(root):
    return loading.load_pipeline(root / "resources/mini/stable-diffusion")


def run(pipe, prompts, layer=None, alpha=1.0, start=0, rows=slice(None)):
    """Sample, with a layer perturbed from a step on."""
    seeds = SEEDS[rows]
    noise = initial_noise(seeds, (4, 16, 16))
    if layer is None:
        return sample(pipe, prompts[rows], noise, SAMPLER)
    with perturbed(pipe.unet, layer, alpha, seeds, start) as on_step_end:
        return sample(pipe, prompts[rows], noise, SAMPLER, on_step_end)


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


# --- Eq. 1 ---------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.7])
def test_mean_and_variance_are_kept_in_expectation(alpha):
    generator = torch.Generator().manual_seed(0)
    f = torch.randn(1, 3, 6, 6, generator=generator)
    # Channels of other means and spreads, so that mixing them up would show.
    f = f * torch.tensor([0.5, 2.0, 7.0]).view(3, 1, 1)
    f = f + torch.tensor([-4.0, 0.0, 9.0]).view(3, 1, 1)
    draws = 6000
    z = torch.randn(draws, 3, 6, 6, generator=generator)
    new = perturb(f.expand(draws, -1, -1, -1), alpha, z).double()
    mean = f.mean(dim=(2, 3), keepdim=True)
    variance = (f - mean).square().mean(dim=(2, 3), keepdim=True)
    expected = mean + math.sqrt(alpha) * (f - mean)
    spread = variance.sqrt()
    assert ((new.mean(dim=0) - expected[0]).abs() < 0.07 * spread[0]).all()
    ratio = new.var(dim=0) / variance[0]
    assert ((ratio - (1 - alpha)).abs() < 0.12).all()
    # Over space the two parts add up to σ² again.
    total = (new - mean).square().mean(dim=(0, 2, 3)) / variance.flatten()
    torch.testing.assert_close(total, torch.ones(3).double(), rtol=0, atol=0.02)


def test_perturb_by_hand():
    f = torch.tensor([[[[0.0, 2.0]]]])
    z = torch.tensor([[[[3.0, -1.0]]]])
    # μ = 1, σ = 1, √0.36 = 0.6, √0.64 = 0.8.
    expected = torch.tensor([[[[1 - 0.6 + 2.4, 1 + 0.6 - 0.8]]]])
    torch.testing.assert_close(perturb(f, 0.36, z), expected)


def test_alpha_1_is_the_limit_and_exact():
    f, z = torch.randn(2, 3, 4, 4) + 5, torch.randn(2, 3, 4, 4)
    assert perturb(f, 1.0, z) is f
    torch.testing.assert_close(perturb(f, 1 - 1e-9, z), f, rtol=0, atol=1e-3)


def test_half_precision_stays(unet):
    f = torch.randn(1, 2, 4, 4).half()
    assert perturb(f, 0.5, torch.randn(1, 2, 4, 4)).dtype == torch.float16


def test_noise_is_of_seed_layer_and_step_alone():
    shape = (2, 4, 4)
    z = feature_noise([7, 8], "mid_block", 3, shape)
    assert torch.equal(z[1:], feature_noise([8], "mid_block", 3, shape))
    others = [
        feature_noise([9], "mid_block", 3, shape),
        feature_noise([8], "up_blocks.0", 3, shape),
        feature_noise([8], "mid_block", 4, shape),
    ]
    assert not any(torch.equal(z[1:], other) for other in others)
    many = feature_noise(range(500), "conv_in", 0, shape)
    assert abs(float(many.mean())) < 0.03 and abs(float(many.std()) - 1) < 0.03


# --- the hook ------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("layer", ["conv_in", "down_blocks.1", "bottleneck"])
def test_removing_restores_the_unet_bit_for_bit(unet, inputs, layer):
    before = unet(*inputs).sample
    with perturbed(unet, layer, 0.3, SEEDS[:2], 0):
        inside = unet(*inputs).sample
    with (
        pytest.raises(RuntimeError, match="aborted"),
        perturbed(unet, layer, 0.3, SEEDS[:2], 0),
    ):
        raise RuntimeError("aborted")
    assert relative(inside, before) > 1e-3
    assert torch.equal(unet(*inputs).sample, before)
    assert not any(module._forward_hooks for module in unet.modules())


@torch.no_grad()
def test_every_named_layer_matters_and_alpha_1_does_not(unet, inputs):
    before = unet(*inputs).sample
    for layer in (*layer_names(unet), "up_blocks.1.attentions.2", "mid_block"):
        with perturbed(unet, layer, 0.3, SEEDS[:2], 0):
            assert relative(unet(*inputs).sample, before) > 1e-3, layer
        with perturbed(unet, layer, 1.0, SEEDS[:2], 0):
            assert torch.equal(unet(*inputs).sample, before), layer


@torch.no_grad()
def test_a_block_is_perturbed_after_its_upsampler(unet, inputs):
    kept = {}

    def keep(name):
        return lambda _module, _inputs, output: kept.update({name: output})

    handles = [
        unet.up_blocks[1].upsamplers[0].register_forward_hook(keep("clean")),
        unet.up_blocks[2].register_forward_pre_hook(
            lambda _module, _args, kwargs: kept.update(kwargs), with_kwargs=True
        ),
    ]
    with perturbed(unet, "up_blocks.1", 0.3, SEEDS[:2]) as on_step_end:
        on_step_end(None, 3, None, {})
        unet(*inputs)
    for handle in handles:
        handle.remove()
    clean = kept["clean"]
    z = feature_noise(SEEDS[:2], "up_blocks.1", 4, clean.shape[1:])
    assert torch.equal(kept["hidden_states"], perturb(clean, 0.3, z))


@torch.no_grad()
def test_a_down_blocks_own_skip_is_perturbed_and_its_inner_skips_are_not(unet, inputs):
    seen = []
    block = unet.down_blocks[1]
    with perturbed(unet, "down_blocks.1", 0.3, SEEDS[:2], 0):
        # Registered after the perturbation, it sees what the UNet gets.
        handle = block.register_forward_hook(lambda _m, _i, output: seen.append(output))
        unet(*inputs)
    unet(*inputs)
    handle.remove()
    (hidden, skips), (clean, clean_skips) = seen
    assert skips[-1] is hidden and clean_skips[-1] is clean
    assert relative(hidden, clean) > 0.1
    assert len(skips) == len(clean_skips) == 3
    assert all(map(torch.equal, skips[:-1], clean_skips[:-1]))


@torch.no_grad()
def test_both_branches_get_the_same_noise(unet, inputs):
    x, t, c = inputs
    seen = []
    doubled = torch.cat([x, x]), t, torch.cat([c, c])
    with perturbed(unet, "conv_in", 0.3, SEEDS[:2], 0):
        handle = unet.conv_in.register_forward_hook(lambda _m, _i, o: seen.append(o))
        unet(*doubled)
    handle.remove()
    empty, prompted = seen[0].chunk(2)
    torch.testing.assert_close(empty, prompted)
    assert relative(empty[:1], empty[1:]) > 0.1


@torch.no_grad()
def test_the_paper_and_the_unet_name_the_same_middle(unet, inputs):
    results = []
    for name in ("bottleneck", "mid_block"):
        with perturbed(unet, name, 0.3, SEEDS[:2], 0):
            results.append(unet(*inputs).sample)
    assert torch.equal(*results)


@pytest.mark.parametrize("layer", ["up_blocks.4", "up_block", "up_blocks", "", "a.b"])
def test_unknown_layers_are_refused_in_one_line(unet, layer):
    with pytest.raises(ValueError) as caught:
        find_layer(unet, layer)
    message = str(caught.value)
    assert message.startswith(f"layer {layer!r} is not one of conv_in, down_blocks.0,")
    assert "bottleneck, up_blocks.0, up_blocks.1, up_blocks.2, up_blocks.3" in message
    assert "\n" not in message


@torch.no_grad()
def test_layers_without_space_and_idle_layers_are_refused(unet, inputs):
    with (
        pytest.raises(ValueError, match=r"yields \(2, 64\), not \(N, C, H, W\)"),
        perturbed(unet, "time_embedding", 0.3, SEEDS[:2], 0),
    ):
        unet(*inputs)
    with (
        pytest.raises(ValueError, match="'bottleneck' took no part"),
        perturbed(unet, "bottleneck", 0.3, SEEDS[:2], 0),
    ):
        pass
    with (
        pytest.raises(ValueError, match="3 seeds do not fit a batch of 2"),
        perturbed(unet, "bottleneck", 0.3, SEEDS, 0),
    ):
        unet(*inputs)
    assert not any(module._forward_hooks for module in unet.modules())


# --- runs of sampling ----------------------------------------------------------------


@torch.inference_mode()
def from_the_start(unet, config, prompts, layer, alpha, start) -> torch.Tensor:
    """Sample from the noise on, with a hook that waits for its step."""
    scheduler = new_scheduler("dpmpp", config, SAMPLER.steps)
    latents = initial_noise(SEEDS, (4, 16, 16)) * scheduler.init_noise_sigma
    text = torch.cat([prompts.empty.expand(3, -1, -1), prompts.text])
    path, module = find_layer(unet, layer)
    now = 0

    def wait(_module, _inputs, output):
        if now < start:
            return None
        z = feature_noise(SEEDS, path, now, output.shape[1:])
        return perturb(output, alpha, torch.cat([z, z]))

    handle = module.register_forward_hook(wait)
    for index, t in enumerate(scheduler.timesteps):
        now = index
        empty, prompted = unet(torch.cat([latents] * 2), t, text).sample.chunk(2)
        eps = empty + SAMPLER.guidance * (prompted - empty)
        latents = scheduler.step(eps, t, latents).prev_sample
    handle.remove()
    return latents


@pytest.mark.parametrize("first", [0, 1, 3, 5])
def test_a_run_is_perturbed_from_its_start_on(unet, prompts, scheduler_config, first):
    pipe = bare_pipeline(unet, scheduler_config)
    once = run(pipe, prompts, "up_blocks.1", 0.3, first)
    chosen = ("up_blocks.1", 0.3, first)
    assert torch.equal(once, from_the_start(unet, scheduler_config, prompts, *chosen))
    assert not torch.equal(once, run(pipe, prompts))


def test_alpha_1_gives_bit_identical_latents(unet, prompts, scheduler_config):
    pipe = bare_pipeline(unet, scheduler_config)
    same = run(pipe, prompts, "down_blocks.0", 1.0)
    assert torch.equal(same, run(pipe, prompts))


def test_an_image_does_not_depend_on_the_batch(unet, prompts, scheduler_config):
    pipe = bare_pipeline(unet, scheduler_config)
    together = run(pipe, prompts, "up_blocks.1", 0.3)
    alone = run(pipe, prompts, "up_blocks.1", 0.3, rows=slice(1, 2))
    # Latents of an untrained UNet reach tens; this is fp32's own rounding.
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=2e-4)


# --- measures ------------------------------------------------------------------------


def wave(cycles: float, size: int = 40) -> torch.Tensor:
    x = torch.arange(size, dtype=torch.float64)
    return torch.cos(2 * math.pi * cycles * x).expand(1, 3, size, size)


def test_share_of_known_spectra():
    torch.manual_seed(0)
    assert float(high_frequency_share(wave(0.2))) == pytest.approx(0, abs=1e-12)
    assert float(high_frequency_share(wave(0.3))) == pytest.approx(1)
    assert float(high_frequency_share(wave(0.3).mT)) == pytest.approx(1)
    assert float(high_frequency_share(wave(0.2) + wave(0.3))) == pytest.approx(0.5)
    # 0.2 along both axes is 0.28 along the diagonal.
    assert float(high_frequency_share(wave(0.2) * wave(0.2).mT)) == pytest.approx(1)
    assert float(high_frequency_share(torch.ones(1, 3, 8, 8))) == 0
    white = high_frequency_share(torch.randn(8, 3, 64, 64)).mean()
    assert float(white) == pytest.approx(1 - math.pi / 16, abs=0.01)
    assert high_frequency_share(torch.zeros(1, 3, 8, 8)).isnan().all()


def test_distances_by_hand():
    black = torch.zeros(2, 3, 2, 2)
    other = black.clone()
    other[1, 0] = 1.0
    latents = torch.zeros(2, 4, 2, 2)
    moved = latents.clone()
    moved[0, 0, 0, 0] = -3.0
    values = measure(other, black, moved, latents)
    assert values["image_distance"].tolist() == [0.0, 2.0]
    assert values["latent_distance"].tolist() == [3.0, 0.0]


# --- the grid ------------------------------------------------------------------------


def test_the_grid_holds_what_single_runs_give(pipe):
    texts = ["a red ring on the sea", "a blue square on sand", "a green cross at night"]
    prompts = encode_prompts(pipe, texts)
    spec = PerturbationSpec(**GRID)
    grid = sample_grid(pipe, prompts, spec, 0)
    seeds = [image_seed(5, index) for index in range(3)]
    sampler = spec.sampler
    noise = initial_noise(seeds, (4, 16, 16))
    plain = sample(pipe, prompts, noise, sampler)
    with perturbed(pipe.unet, "up_blocks.2", 0.3, seeds, 2) as on_step_end:
        late = sample(pipe, prompts, noise, sampler, on_step_end)
    images, unperturbed = decode_latents(pipe, late), decode_latents(pipe, plain)
    assert grid["images"].shape == (2, 2, 2, 2, 3, 64, 64)
    assert torch.equal(grid["images"][:, 1, 0, 0], images[:2])
    assert torch.equal(grid["unperturbed"], unperturbed[:2])
    pixels = decode_pixels(pipe, late), decode_pixels(pipe, plain)
    expected = measure(*pixels, late, plain)
    for name in MEASURES:
        assert torch.equal(grid[name][:, 1, 0, 0], expected[name])
    assert not torch.equal(grid["images"][:, 1, 0, 0], grid["images"][:, 1, 0, 1])
    # α = 1 is no perturbation, whatever the layer and the start.
    assert (grid["latent_distance"][:, :, 1] == 0).all()
    expanded = grid["unperturbed"][:, None, None].expand_as(grid["images"][:, :, 1])
    assert torch.equal(grid["images"][:, :, 1], expanded)

    # The last prompt in a batch of its own: its seed, its values, and nothing kept.
    alone = sample_grid(pipe, prompts[2:3], spec, 2)
    assert len(alone["images"]) == len(alone["unperturbed"]) == 0
    torch.testing.assert_close(
        alone["latent_distance"][0], grid["latent_distance"][2], rtol=1e-3, atol=1e-4
    )


def test_an_unknown_layer_is_refused_before_any_work(pipe):
    spec = PerturbationSpec(**{**GRID, "layers": ("bottleneck", "up_blocks.9")})
    prompts = Prompts(torch.empty(0), torch.empty(0))
    with pytest.raises(ValueError, match=r"layer 'up_blocks\.9' is not one of conv_in"):
        sample_grid(pipe, prompts, spec, 0)


def test_summaries_leave_out_what_is_undefined():
    shape = (3, 2, 2, 2)
    tensors = {name: torch.ones(shape).double() for name in MEASURES}
    tensors["image_distance"][:, 1, 0, 1] = torch.tensor([1.0, 2.0, 6.0])
    tensors["image_high_frequency"][1:, 1, 0, 1] = math.nan
    summary = summarise(tensors, PerturbationSpec(**GRID))
    (cell,) = (
        cell
        for cell in summary["cells"]
        if (cell["layer"], cell["alpha"], cell["start"]) == ("up_blocks.2", 0.3, 0)
    )
    distance = cell["scores"]["image_distance"]
    assert distance["value"] == 3.0 and distance["n"] == 3
    # Student's t with two degrees of freedom, of 1, 2 and 6.
    half = 4.302653 * (7 / 3) ** 0.5
    assert distance["low"] == pytest.approx(3 - half)
    assert distance["high"] == pytest.approx(3 + half)
    assert cell["values"]["image_high_frequency"] == [1.0, None, None]
    share = cell["scores"]["image_high_frequency"]
    assert (share["value"], share["n"], share["low"]) == (1.0, 1, None)
    json.dumps(summary, allow_nan=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"starts": (0, 3)}, "start 3 is not one of the 3 steps, 0 to 2"),
        ({"starts": (-1,)}, "start -1 is not one of"),
        ({"starts": (1, 1)}, "not all different"),
        ({"layers": ()}, r"layers \(\) are none"),
        ({"alphas": (1.1,)}, "alpha 1.1 is not from 0 to 1"),
        ({"sampler": SamplerSpec("dpmpp", 3, 3.0, clock=2)}, "clock 2: the UNet"),
        ({"batch_size": 0}, "batch size 0 is less than 1"),
        ({"kept": -1}, "kept -1 is less than 0"),
    ],
)
def test_bad_specs_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        PerturbationSpec(**{**GRID, **change})


# --- the step ------------------------------------------------------------------------


def test_the_step_writes_images_and_numbers(root, tmp_path):
    storage.write_json(tmp_path / "prompts.json", ["a red ring", "a blue cross", "sea"])
    spec = {
        "sampler": {"scheduler": "dpmpp", "steps": 2, "guidance": 3.0},
        "layers": ["bottleneck"],
        "alphas": [0.3],
        "starts": [0, 1],
        "seed": 5,
        "batch_size": 2,
        "kept": 1,
    }
    output, distances = tmp_path / "images.safetensors", tmp_path / "distances.json"
    perturb_features.perturb_features(
        spec=json.dumps(spec),
        model=root / "resources/mini/stable-diffusion",
        prompts=tmp_path / "prompts.json",
        state=tmp_path / "state",
        output=output,
        distances=distances,
    )
    tensors, _ = storage.read_tensors(output)
    assert tensors["images"].shape == (1, 1, 1, 2, 3, 64, 64)
    written = storage.read_json(distances)
    assert written["n"] == 3 and written["prompts"] == ["a red ring"]
    early, late = (cell["scores"]["latent_distance"] for cell in written["cells"])
    assert early["value"] > late["value"] > 0 and early["n"] == 3
    values = written["cells"][0]["values"]["image_distance"]
    error = tensors["images"][0, 0, 0, 0] / 255 - tensors["unperturbed"][0] / 255
    assert values[0] == pytest.approx(float(error.norm()), abs=0.2)
    assert not (tmp_path / "state").exists()
