"""The user's door, on real diffusers pipelines with small random weights."""

import copy
import threading

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
)
from transformers import CLIPTextConfig, CLIPTextModel

from clockwork_diffusion.adaptors import IdentityAdaptor, build_adaptor
from clockwork_diffusion.mini.language import build_tokenizer
from clockwork_diffusion.pipeline import (
    apply_clockwork,
    clockwork,
    remove_clockwork,
)

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


@pytest.mark.parametrize("scheduler", [PNDMScheduler, HeunDiscreteScheduler])
def test_samplers_with_several_calls_per_step_begin_full_each_run(pipe, scheduler):
    extra = {"skip_prk_steps": True} if scheduler is PNDMScheduler else {}
    pipe.scheduler = scheduler(**NOISE, **extra)
    with clockwork(pipe, clock=2):
        first, second = passes_of(pipe), passes_of(pipe)
    assert first == second
    assert first[:4] == ["full", "light", "full", "light"]


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
    with torch.no_grad():
        for t in (900, 700, 500, 300):
            both = together(x, t, c).sample
            one = apart(x[:1], t, c[:1]).sample
            other = apart(x[1:], t, c[1:]).sample
            torch.testing.assert_close(both, torch.cat([one, other]))


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
    adaptor = build_adaptor("resnet", pipe.unet, "stage1", 8)
    with clockwork(pipe, adaptor=IdentityAdaptor()):
        identity = draw(pipe)
    pooled = torch.randn(2, 8)
    with clockwork(pipe, adaptor=adaptor, pooled=pooled):
        torch.testing.assert_close(draw(pipe), identity, rtol=1e-4, atol=1e-4)
    torch.nn.init.normal_(adaptor.up.weight, std=0.2)
    with clockwork(pipe, adaptor=adaptor, pooled=pooled):
        assert not torch.allclose(draw(pipe), identity, atol=1e-2)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"clock": 0}, "clock 0 is less than 1"),
        ({"cut": "stage7"}, "cut 'stage7' is not one of"),
    ],
)
def test_bad_arguments_leave_the_pipeline_alone(pipe, kwargs, message):
    with pytest.raises(ValueError, match=message):
        apply_clockwork(pipe, **kwargs)
    assert "forward" not in vars(pipe.unet)


def test_applying_twice_is_refused(pipe):
    apply_clockwork(pipe)
    with pytest.raises(ValueError, match="replaced already"):
        apply_clockwork(pipe)


def test_a_learned_adaptor_without_text_is_refused(pipe):
    adaptor = build_adaptor("resnet", pipe.unet, "stage1", 8)
    with pytest.raises(ValueError, match="needs pooled text embeddings"):
        apply_clockwork(pipe, adaptor=adaptor)
