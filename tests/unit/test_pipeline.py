"""The user's door, on real diffusers pipelines with small random weights."""

import copy
import threading

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    HeunDiscreteScheduler,
    KDPM2DiscreteScheduler,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    UniPCMultistepScheduler,
)
from transformers import CLIPTextConfig, CLIPTextModel

from clockwork_diffusion.adaptors import IdentityAdaptor, build_adaptor
from clockwork_diffusion.branches import deepcache
from clockwork_diffusion.clock import Clock
from clockwork_diffusion.encoding import encode_prompts
from clockwork_diffusion.hook import sampling_with
from clockwork_diffusion.passes import Passes
from clockwork_diffusion.pipeline import (
    apply_clockwork,
    clockwork,
    remove_clockwork,
)
from clockwork_diffusion.schedulers import SCHEDULERS, new_scheduler
from clockwork_diffusion.unet import SplitUNet
from clockwork_experiments.generate.text import SamplerSpec, sample
from clockwork_experiments.mini.language import build_tokenizer

NOISE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}


@pytest.fixture
def pipe(unet) -> StableDiffusionPipeline:
    torch.manual_seed(4)
    tokenizer = build_tokenizer(["a red ring on the sea", "a blue square"])
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        eos_token_id=tokenizer.eos_token_id,
    )
    made = StableDiffusionPipeline(
        vae=AutoencoderKL(block_out_channels=(8,), norm_num_groups=4),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=copy.deepcopy(unet),
        scheduler=DPMSolverMultistepScheduler(**NOISE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made


def draw(pipe, seed: int = 0, steps: int = 6, **kwargs) -> torch.Tensor:
    return pipe(
        "a red ring on the sea",
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(seed),
        output_type="latent",
        **kwargs,
    ).images


def passes_of(pipe, **kwargs) -> list[str]:
    """Return what kind of pass each UNet call of a run was."""
    kinds = []
    block = pipe.unet.mid_block
    handles = [
        pipe.unet.conv_in.register_forward_hook(lambda *_: kinds.append("light")),
        block.register_forward_hook(lambda *_: kinds.__setitem__(-1, "full")),
    ]
    draw(pipe, **kwargs)
    for handle in handles:
        handle.remove()
    return kinds


def test_removing_restores_the_pipeline_bit_for_bit(pipe):
    before, keys = draw(pipe), set(vars(pipe.unet))
    with clockwork(pipe, clock=2):
        inside = draw(pipe)
    assert not torch.equal(inside, before)
    assert torch.equal(draw(pipe), before)
    assert set(vars(pipe.unet)) == keys
    assert not any(m._forward_hooks for m in pipe.unet.modules())


def test_removed_after_an_error_too(pipe):
    with pytest.raises(RuntimeError, match="aborted"), clockwork(pipe):
        raise RuntimeError("aborted")
    assert "forward" not in vars(pipe.unet)


def test_clock_1_changes_nothing(pipe):
    before = draw(pipe)
    with clockwork(pipe, clock=1):
        assert torch.equal(draw(pipe), before)


def test_phases(pipe):
    with clockwork(pipe, clock=2):
        assert passes_of(pipe) == ["full", "light"] * 3
        # A second run starts with a full pass, after an even or odd number of steps.
        assert passes_of(pipe, steps=5) == ["full", "light", "full", "light", "full"]
        assert passes_of(pipe, steps=5) == ["full", "light", "full", "light", "full"]


SAMPLERS = {
    # Full and light calls at clock 2 and 5 steps; a step's calls together.
    "pndm": (PNDMScheduler, {"skip_prk_steps": True}, "FF l F l F"),
    "pndm_prk": (PNDMScheduler, {}, "FFFF llll FFFF l F"),
    "heun": (HeunDiscreteScheduler, {}, "FF ll FF ll F"),
    "kdpm2": (KDPM2DiscreteScheduler, {}, "FF ll FF ll F"),
    "dpm_single": (DPMSolverSinglestepScheduler, {}, "F l F l F"),
    "ddim": (DDIMScheduler, {}, "F l F l F"),
    "unipc": (UniPCMultistepScheduler, {}, "F l F l F"),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_all_calls_of_a_step_share_its_phase(pipe, name):
    kind, extra, phases = SAMPLERS[name]
    pipe.scheduler = kind(**NOISE, **extra)
    with clockwork(pipe, clock=2):
        first, second = passes_of(pipe, steps=5), passes_of(pipe, steps=5)
    shown = "".join("F" if kind == "full" else "l" for kind in first)
    assert shown == phases.replace(" ", "")
    assert second == first


@pytest.mark.parametrize("kind", SCHEDULERS)
@pytest.mark.parametrize(
    "steps", [{"clock": 1}, {"clock": 2}, {"adaptor_steps": (2, 3)}]
)
def test_the_door_and_the_core_draw_the_same(pipe, kind, steps):
    """Bit for bit, for every scheduler of the core, with the identity adaptor."""
    spec = SamplerSpec(kind, 4, 7.5, **steps)
    prompts = encode_prompts(pipe, ["a red ring on the sea"])
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    passes = Passes(SplitUNet(pipe.unet), IdentityAdaptor())
    config = pipe.scheduler.config
    with sampling_with(pipe, passes, spec.phases):
        core = sample(pipe, prompts, noise, spec)
    pipe.scheduler = new_scheduler(kind, config, 4)
    with clockwork(pipe, **steps):
        door = draw(pipe, steps=4, latents=noise, guidance_scale=7.5)
    assert torch.equal(door, core)


def test_heun_keeps_its_phase_from_image_to_image(pipe):
    parts = {**pipe.components, "scheduler": HeunDiscreteScheduler(**NOISE)}
    other = StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False)
    other.set_progress_bar_config(disable=True)
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with clockwork(other, clock=2):
        for strength, phases in ((1.0, "FFllFFllFFl"), (0.5, "FFllF")):
            kinds = passes_of(other, image=image, strength=strength)
            assert "".join("F" if k == "full" else "l" for k in kinds) == phases


def test_adaptor_steps(pipe):
    with clockwork(pipe, adaptor_steps=(3, 4)):
        kinds = passes_of(pipe, steps=5)
    assert kinds == ["full", "full", "light", "light", "full"]
    with clockwork(pipe, Clock(adaptor_steps=(5,))):
        assert passes_of(pipe, steps=5) == ["full"] * 4 + ["light"]


@pytest.mark.parametrize(
    ("mask", "clock"),
    [
        ("101010", {"clock": 2}),
        ("100100", {"clock": 3}),
        ("110011", {"adaptor_steps": (3, 4)}),
        ("111111", {"clock": 1}),
    ],
)
def test_a_mask_draws_what_the_clock_that_it_equals_draws(pipe, mask, clock):
    with clockwork(pipe, **clock) as summary:
        ticking, saved = draw(pipe), summary.flops_saved
    with clockwork(pipe, mask=mask) as summary:
        assert torch.equal(draw(pipe), ticking)
    assert summary.flops_saved == saved


def test_deepcache_takes_a_mask(pipe):
    with deepcache(pipe, 3):
        ticking = draw(pipe)
    with deepcache(pipe, Clock(mask="100100")):
        assert torch.equal(draw(pipe), ticking)


def test_a_mask_that_no_clock_is(pipe):
    with clockwork(pipe, mask="10010100") as summary:
        draw(pipe, steps=8)
        assert summary.full_steps == (1, 4, 6)
        with pytest.raises(ValueError, match="mask 10010100 has 8 steps, and the run"):
            draw(pipe, steps=5)


def test_every_step(pipe):
    class FromInput(torch.nn.Module):
        config, inputs = IdentityAdaptor().config, ("r_in",)

        def forward(self, r_in, r_out, t_emb, text_emb=None):
            return r_in.repeat(1, 2, 1, 1)

    with clockwork(pipe, adaptor=FromInput(), every_step=True):
        assert passes_of(pipe, steps=3) == ["light"] * 3


def test_a_scheduler_that_does_not_tell_its_calls_apart_is_refused(pipe):
    class Odd(DDIMScheduler):
        order = 3

    pipe.scheduler = Odd(**NOISE)
    with pytest.raises(ValueError, match="Odd makes 3 calls per step"):
        apply_clockwork(pipe)
    assert "forward" not in vars(pipe.unet)


@pytest.mark.parametrize("aborted", [0, 1, 2])
def test_an_aborted_run_leaves_no_trace(pipe, aborted):
    def stop(_pipe, index, _timestep, kwargs):
        if index == aborted:
            raise KeyboardInterrupt
        return kwargs

    with clockwork(pipe, clock=3):
        clean = draw(pipe)
        with pytest.raises(KeyboardInterrupt):
            draw(pipe, seed=9, callback_on_step_end=stop)
        assert torch.equal(draw(pipe), clean)


def test_another_shape_begins_anew(pipe):
    with clockwork(pipe, clock=2):
        small = draw(pipe)
        draw(pipe, height=32, width=16)
        assert torch.equal(draw(pipe), small)


def test_image_to_image_starts_full_at_any_strength(pipe):
    other = StableDiffusionImg2ImgPipeline(
        **{**pipe.components, "scheduler": DDIMScheduler(**NOISE)},
        requires_safety_checker=False,
    )
    other.set_progress_bar_config(disable=True)
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with clockwork(other, clock=2):
        for strength in (1.0, 0.7, 0.5):
            kinds = passes_of(other, image=image, strength=strength)
            assert kinds == (["full", "light"] * 3)[: len(kinds)]


def test_sequential_guidance_keeps_its_two_branches_apart(unet, inputs):
    """Two calls per step with different texts equal one call with both."""
    x, _, c = inputs
    together, apart = copy.deepcopy(unet), copy.deepcopy(unet)
    apply_clockwork(together, 2)
    apply_clockwork(apart, 2)
    full = []
    together.mid_block.register_forward_hook(lambda *_: full.append(1))
    with torch.no_grad():
        for t in torch.tensor([900, 700, 500, 300]):
            both = together(x, t, c).sample
            one = apart(x[:1], t, c[:1]).sample
            other = apart(x[1:], t, c[1:]).sample
            torch.testing.assert_close(both, torch.cat([one, other]))
    assert len(full) == 2


def test_threads_do_not_share_runs(pipe):
    apply_clockwork(pipe, 2)
    pipes = [
        StableDiffusionPipeline(
            **{**pipe.components, "scheduler": copy.deepcopy(pipe.scheduler)},
            requires_safety_checker=False,
        )
        for _ in range(2)
    ]
    # Both share one patched UNet, whose scheduler is neither's: timesteps decide.
    expected = [draw(each, seed=index) for index, each in enumerate(pipes)]
    results: dict[int, torch.Tensor] = {}

    def work(index: int) -> None:
        pipes[index].set_progress_bar_config(disable=True)
        results[index] = draw(pipes[index], seed=index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in range(2):
        torch.testing.assert_close(results[index], expected[index])


def test_a_copy_is_independent(pipe):
    apply_clockwork(pipe, 2)
    twin = copy.deepcopy(pipe)
    inside = draw(pipe)
    assert torch.equal(draw(twin), inside)
    remove_clockwork(pipe)
    assert torch.equal(draw(twin), inside)
    assert not torch.equal(draw(pipe), inside)


def test_saving_saves_the_plain_unet(pipe, tmp_path):
    plain = draw(pipe)
    with clockwork(pipe):
        pipe.save_pretrained(tmp_path)
    loaded = StableDiffusionPipeline.from_pretrained(tmp_path, local_files_only=True)
    loaded.set_progress_bar_config(disable=True)
    assert torch.equal(draw(loaded), plain)


def test_a_learned_adaptor_runs_and_matters(pipe, tmp_path):
    adaptor = build_adaptor("resnet", pipe.unet, "stage1", 24, pooling="last")
    with clockwork(pipe, adaptor=IdentityAdaptor()):
        identity = draw(pipe)
    with clockwork(pipe, adaptor=adaptor):
        torch.testing.assert_close(draw(pipe), identity, rtol=1e-4, atol=1e-4)
    torch.nn.init.normal_(adaptor.up.weight, std=0.2)
    with clockwork(pipe, adaptor=adaptor):
        assert not torch.allclose(draw(pipe), identity, atol=1e-2)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"clock": 0}, "clock 0 is less than 1"),
        ({"cut": "stage7"}, "cut 'stage7' is not one of"),
        ({"clock": 2, "adaptor_steps": (3,)}, "either a clock or adaptor steps"),
        ({"clock": Clock(2), "every_step": True}, "either a Clock or its parts"),
        ({"every_step": True}, "IdentityAdaptor takes"),
        ({"mask": "0101"}, "begins with a light step"),
        ({"clock": 2, "mask": "1010"}, "either a clock or adaptor steps"),
        ({"clock": Clock(2), "mask": "1010"}, "either a Clock or its parts"),
    ],
)
def test_bad_arguments_leave_the_pipeline_alone(pipe, kwargs, message):
    with pytest.raises(ValueError, match=message):
        apply_clockwork(pipe, **kwargs)
    assert "forward" not in vars(pipe.unet)


def test_applying_twice_is_refused(pipe):
    apply_clockwork(pipe)
    with pytest.raises(ValueError, match="Clockwork is applied to this UNet already"):
        apply_clockwork(pipe)


def test_a_learned_adaptor_without_text_is_refused(pipe):
    adaptor = build_adaptor("resnet", pipe.unet, "stage1", 8)
    with pytest.raises(ValueError, match="looks at text, and its pooling"):
        apply_clockwork(pipe, adaptor=adaptor)
