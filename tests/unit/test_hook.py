"""Methods come and go under whatever else hangs on a UNet, bit for bit."""

import copy
import functools

import pytest
import torch
from accelerate.hooks import (
    AlignDevicesHook,
    add_hook_to_module,
    remove_hook_from_module,
)
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMInverseScheduler,
    DDIMScheduler,
    HeunDiscreteScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.hooks import HookRegistry, ModelHook
from torch._dynamo.utils import counters

from clockwork_diffusion.adaptors import build_adaptor
from clockwork_diffusion.branches import apply_deepcache, deepcache, remove_deepcache
from clockwork_diffusion.depth_skip import apply_depth_skip, depth_skipped
from clockwork_diffusion.hook import hook_of
from clockwork_diffusion.pipeline import apply_clockwork, clockwork, remove_clockwork

NOISE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    # As a pipeline sets them for its scheduler by itself.
    "steps_offset": 1,
    "clip_sample": False,
}


def tiny_unet(channels: int = 4, **changes) -> UNet2DConditionModel:
    torch.manual_seed(0)
    sizes = {
        "sample_size": 8,
        "in_channels": channels,
        "layers_per_block": 1,
        "block_out_channels": (8, 8, 16, 16),
        "cross_attention_dim": 8,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    return UNet2DConditionModel(**sizes | changes).eval().requires_grad_(False)


def made(kind: type, dtype: torch.dtype = torch.float32):
    """Return a pipeline of random weights, which is given prompts as embeddings."""
    unet = tiny_unet(8 if kind is StableDiffusionInstructPix2PixPipeline else 4)
    further = {}
    if kind is StableDiffusionControlNetPipeline:
        controlnet = ControlNetModel.from_unet(
            unet, conditioning_embedding_out_channels=(4,)
        )
        for each in controlnet.parameters():
            torch.nn.init.normal_(each, std=0.05)
        further["controlnet"] = controlnet
    pipe = kind(
        vae=AutoencoderKL(block_out_channels=(8,), norm_num_groups=4),
        text_encoder=None,
        tokenizer=None,
        unet=unet,
        scheduler=DDIMScheduler(**NOISE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        **further,
    ).to(dtype)
    pipe.set_progress_bar_config(disable=True)
    return pipe


INPUTS = {
    StableDiffusionPipeline: {},
    StableDiffusionImg2ImgPipeline: {"image": 4, "strength": 0.75},
    StableDiffusionInstructPix2PixPipeline: {"image": 4},
    StableDiffusionControlNetPipeline: {"image": 3},
}


def draw(pipe, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    further = dict(INPUTS[type(pipe)])
    if "image" in further:
        shape = (1, further["image"], 8, 8)
        further["image"] = torch.rand(shape, generator=generator).to(pipe.dtype)
    text = torch.randn(2, 1, 5, 8, generator=generator).to(pipe.dtype)
    return pipe(
        prompt_embeds=text[0],
        negative_prompt_embeds=text[1],
        num_inference_steps=4,
        generator=generator,
        output_type="latent",
        **further,
    ).images


def by_hand(pipe, phases: str) -> torch.Tensor:
    """Draw with what rises into the last block kept by a plain forward hook."""
    left, kept = list(phases.replace(" ", "")), []

    def keep(_module, _inputs, output):
        if left.pop(0) == "F":
            kept[:] = [output]
        return kept[0]

    handle = pipe.unet.up_blocks[2].register_forward_hook(keep)
    latents = draw(pipe)
    handle.remove()
    assert not left
    return latents


SAMPLES = {
    # What samples, and its phases at clock 2, of four steps and of three.
    "given": (DDIMScheduler, "FlFl", "FlF"),
    "swapped": (HeunDiscreteScheduler, "FF ll FF l", "FF ll F"),
    "shared": (HeunDiscreteScheduler, "FF ll FF l", "FF ll F"),
    "inverse": (DDIMInverseScheduler, "FlFl", ""),
}


shared = functools.cache(made)


@functools.cache
def expected(kind: type, dtype: torch.dtype, scheduler: str):
    pipe = shared(kind, dtype)
    sampler, *phases = SAMPLES[scheduler]
    pipe.scheduler = sampler(**NOISE)
    return draw(pipe), by_hand(pipe, phases["strength" in INPUTS[kind]])


class Offload:
    """Something like CPU offloading on a UNet: before a block, inside it, or gone."""

    def __init__(self, when: str, unet) -> None:
        self.when, self.unet = when, unet
        if when in ("before", "gone"):
            self.put()

    def put(self) -> None:
        add_hook_to_module(self.unet, AlignDevicesHook(torch.device("cpu")))

    def inside(self) -> None:
        if self.when == "inside":
            self.put()
        if self.when == "gone":
            remove_hook_from_module(self.unet)

    def after(self) -> None:
        assert hasattr(self.unet, "_hf_hook") == (self.when in ("before", "inside"))
        remove_hook_from_module(self.unet)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("offload", ["never", "before", "inside", "gone"])
@pytest.mark.parametrize("scheduler", SAMPLES)
@pytest.mark.parametrize("kind", INPUTS)
def test_bit_for_bit(kind, scheduler, offload, dtype):
    """Clock 1 is the pipeline, clock 2 a hook by hand, and after both all is as was."""
    if scheduler == "inverse" and kind is StableDiffusionImg2ImgPipeline:
        pytest.skip("image to image adds noise, which inverse schedulers do not")
    plain, clocked = expected(kind, dtype, scheduler)
    assert not torch.equal(plain, clocked) and plain.isfinite().all()
    pipe = shared(kind, dtype)
    sampler = SAMPLES[scheduler][0](**NOISE)
    pipe.scheduler = DDIMScheduler(**NOISE)
    samples = pipe
    if scheduler == "shared":
        parts = {**pipe.components, "scheduler": sampler}
        samples = kind(**parts, requires_safety_checker=False)
        samples.set_progress_bar_config(disable=True)
    elif scheduler != "swapped":
        pipe.scheduler = sampler
    for clock, image in ((1, plain), (2, clocked)):
        hung = Offload(offload, pipe.unet)
        with clockwork(pipe, clock):
            hung.inside()
            if scheduler == "swapped":
                pipe.scheduler = sampler
            assert torch.equal(draw(samples), image)
        assert hook_of(pipe) is None
        if clock > 1:
            assert torch.equal(draw(samples), plain)
        hung.after()


# --- other hooks ----------------------------------------------------------------------


@pytest.fixture
def pipe():
    return made(StableDiffusionPipeline)


class Counting(ModelHook):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def pre_forward(self, module, *args, **kwargs):
        self.calls += 1
        return args, kwargs


def registered(unet) -> Counting:
    counting = Counting()
    HookRegistry.check_if_exists_or_initialize(unet).register_hook(counting, "count")
    return counting


@pytest.mark.parametrize("taken", ["inside", "after"])
@pytest.mark.parametrize("put", ["before", "inside"])
def test_hooks_of_diffusers_run_at_each_call(pipe, put, taken):
    plain, clocked = expected(StableDiffusionPipeline, torch.float32, "given")
    counting = registered(pipe.unet) if put == "before" else None
    with clockwork(pipe, 2):
        counting = counting or registered(pipe.unet)
        assert torch.equal(draw(pipe), clocked)
        assert counting.calls == 4
        if taken == "inside":
            pipe.unet._diffusers_hook.remove_hook("count")
            assert torch.equal(draw(pipe), clocked)
    assert torch.equal(draw(pipe), plain)
    if taken == "after":
        assert counting.calls == 8
        pipe.unet._diffusers_hook.remove_hook("count")
    assert torch.equal(draw(pipe), plain)


def test_accelerate_and_diffusers_together(pipe):
    plain, clocked = expected(StableDiffusionPipeline, torch.float32, "given")
    counting = registered(pipe.unet)
    add_hook_to_module(pipe.unet, AlignDevicesHook(torch.device("cpu")))
    with clockwork(pipe, 2):
        assert torch.equal(draw(pipe), clocked) and counting.calls == 4
    assert torch.equal(draw(pipe), plain) and counting.calls == 8


def wrap(unet) -> list[int]:
    """Wrap a forward as a stranger does, DeepCache's package for one."""
    inner, calls = unet.forward, []

    def wrapped(*args, **kwargs):
        calls.append(1)
        return inner(*args, **kwargs)

    unet.forward = wrapped
    calls.append(lambda: setattr(unet, "forward", inner))
    return calls


def test_under_an_unknown_wrapper_what_is_left_is_a_relay(pipe):
    plain, clocked = expected(StableDiffusionPipeline, torch.float32, "given")
    with clockwork(pipe, 2):
        undo, *_ = wrap(pipe.unet)
        assert torch.equal(draw(pipe), clocked)
    assert torch.equal(draw(pipe), plain)
    with clockwork(pipe, 2):  # once more, under the wrapper that is still there
        assert torch.equal(draw(pipe), clocked)
    assert torch.equal(draw(pipe), plain)
    undo()
    assert torch.equal(draw(pipe), plain)
    with clockwork(pipe, 2):
        assert torch.equal(draw(pipe), clocked)
    assert torch.equal(draw(pipe), plain) and "forward" not in vars(pipe.unet)


def test_an_unknown_wrapper_is_named_and_refused_for_as_long_as_it_is_there(pipe):
    plain, clocked = expected(StableDiffusionPipeline, torch.float32, "given")
    undo, *_ = wrap(pipe.unet)
    for apply in (apply_clockwork, apply_deepcache):
        with pytest.raises(ValueError, match=r"wrap\.<locals>\.wrapped lies on"):
            apply(pipe, 2)
    with pytest.raises(ValueError, match=r"wrap\.<locals>\.wrapped lies on"):
        apply_depth_skip(pipe, 5)
    undo()  # as DeepCache's package does, it leaves the class's forward behind
    assert "forward" in vars(pipe.unet)
    with clockwork(pipe, 2):
        assert torch.equal(draw(pipe), clocked)
    assert torch.equal(draw(pipe), plain)


@pytest.mark.parametrize("clock", [1, 2])
def test_what_hangs_on_blocks_is_called(pipe, clock):
    """As per-block compilation or a patch of a third party."""
    calls = {}
    for name in ("down_blocks", "up_blocks"):
        for index, block in enumerate(getattr(pipe.unet, name)):
            inner = block.forward

            def patched(*args, inner=inner, place=(name, index), **kwargs):
                calls[place] = calls.get(place, 0) + 1
                return inner(*args, **kwargs)

            block.forward = patched
    with clockwork(pipe, clock):
        draw(pipe)
    high = {("down_blocks", 0), ("up_blocks", 3)}
    assert calls == {
        (name, index): 4 if clock == 1 or (name, index) in high else 2
        for name in ("down_blocks", "up_blocks")
        for index in range(4)
    }


def test_a_method_that_cannot_call_a_block_whole_says_so(pipe):
    block = pipe.unet.up_blocks[2]
    block.forward = functools.partial(type(block).forward, block)
    adaptor = build_adaptor("resnet", pipe.unet, "stage1", 1, inputs=("r_in", "r_out"))
    with (
        clockwork(pipe, 2, adaptor=adaptor),
        pytest.raises(ValueError, match=r"UpBlock2D\.forward hangs on the forward"),
    ):
        draw(pipe)
    with deepcache(pipe, 2, branch=1):
        draw(pipe)
    with pytest.raises(ValueError, match="of which depth-skip keeps a part"):
        apply_depth_skip(pipe, 3)
    draw(pipe)


def test_methods_come_and_go_in_any_order_or_name_what_is_on(pipe):
    plain = draw(pipe)
    apply_clockwork(pipe, 2)
    with pytest.raises(ValueError, match="Clockwork is applied .* before .* DeepCache"):
        apply_deepcache(pipe)
    with depth_skipped(pipe, 5):
        remove_deepcache(pipe)  # not on: nothing happens
        both = draw(pipe)
        remove_clockwork(pipe)
        with pytest.raises(ValueError, match="branches are those of a whole UNet"):
            apply_deepcache(pipe)
        cut = draw(pipe)
    assert len({image.sum().item() for image in (plain, both, cut)}) == 3
    apply_deepcache(pipe, 2)
    with pytest.raises(ValueError, match="branches are those of a whole UNet"):
        apply_depth_skip(pipe, 5)
    remove_clockwork(pipe)
    assert hook_of(pipe) is not None
    remove_deepcache(pipe)
    assert torch.equal(draw(pipe), plain) and hook_of(pipe) is None


def test_what_is_loaded_inside_depth_skip_is_in_all_of_the_unet(pipe):
    """As a LoRA is: its layers take the places of others."""
    with depth_skipped(pipe, 5):
        draw(pipe)
        for block in (pipe.unet.down_blocks[0], pipe.unet.up_blocks[0]):
            block.resnets[0].conv1 = copy.deepcopy(block.resnets[0].conv1)
            block.resnets[0].conv1.weight.mul_(2)
        pipe.unet.conv_in = copy.deepcopy(pipe.unet.conv_in)
        pipe.unet.conv_in.weight.mul_(2)
        inside = draw(pipe)
    after = draw(pipe)
    with depth_skipped(pipe, 5):
        assert torch.equal(draw(pipe), inside)
    assert not torch.equal(draw(made(StableDiffusionPipeline)), after)


@pytest.mark.parametrize("accelerated", [False, True])
def test_a_copy_runs_its_own_modules(pipe, accelerated):
    _, clocked = expected(StableDiffusionPipeline, torch.float32, "given")
    if accelerated:
        add_hook_to_module(pipe.unet, AlignDevicesHook(torch.device("cpu")))
    apply_clockwork(pipe, 2)
    twin = copy.deepcopy(pipe)
    twin.unet.conv_out.weight.zero_()
    twin.unet.conv_out.bias.zero_()
    assert torch.equal(draw(pipe), clocked)
    assert not torch.equal(draw(twin), clocked)


def test_the_methods_follow_the_unet_to_another_precision(pipe):
    adaptor = build_adaptor("resnet", pipe.unet, "stage1", 1, inputs=("r_in", "r_out"))
    with clockwork(pipe, 2, adaptor=adaptor):
        draw(pipe)
        pipe.to(torch.bfloat16)
        assert draw(pipe).dtype == torch.bfloat16


@pytest.mark.parametrize("clock", [1.5, 2.0, float("nan"), True, 0])
@pytest.mark.parametrize("apply", [apply_clockwork, apply_deepcache])
def test_a_clock_that_is_none_is_refused(pipe, apply, clock):
    with pytest.raises(ValueError, match=f"{clock!r} is not|clock 0 is less than 1"):
        apply(pipe, clock)
    assert hook_of(pipe) is None and "forward" not in vars(pipe.unet)


# --- compiled -------------------------------------------------------------------------

UNETS = {
    "SD": {},
    "SDXL": {
        "block_out_channels": (8, 8, 16),
        "down_block_types": ("DownBlock2D", *["CrossAttnDownBlock2D"] * 2),
        "up_block_types": (*["CrossAttnUpBlock2D"] * 2, "UpBlock2D"),
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 8 + 6 * 4,
    },
}


def loop(unet) -> torch.Tensor:
    scheduler = DDIMScheduler(**NOISE)
    scheduler.set_timesteps(5)
    generator = torch.Generator().manual_seed(1)
    x, text = torch.randn(1, 4, 8, 8, generator=generator), torch.ones(2, 5, 8)
    added = {"text_embeds": torch.ones(2, 8), "time_ids": torch.ones(2, 6)}
    for t in scheduler.timesteps:
        with torch.no_grad():
            eps = unet(torch.cat([x, x]), t, text, added_cond_kwargs=added).sample
        x = scheduler.step(eps[1:], t, x).prev_sample
    return x


@pytest.mark.parametrize("topology", UNETS)
def test_compiled_it_is_two_graphs_without_a_break(topology, monkeypatch):
    # Dynamo alone: what it captures is asked here, and not what a backend makes of it.
    monkeypatch.setattr(
        torch, "compile", functools.partial(torch.compile, backend="eager")
    )
    torch._dynamo.reset()
    counters.clear()
    unet = tiny_unet(**UNETS[topology])
    with clockwork(unet, 2):
        expected = loop(unet)
    with clockwork(unet, 2, compile=True) as summary:
        assert torch.equal(loop(unet), expected)
        graphs = counters["stats"]["unique_graphs"]
        assert torch.equal(loop(unet), expected)
    assert graphs == counters["stats"]["unique_graphs"] == 2
    assert not counters["graph_break"]
    assert summary.full_steps == (1, 3, 5)


def test_a_compiled_unet_is_refused_and_compiling_afterwards_is_noticed(pipe):
    whole = pipe.unet
    pipe.unet = torch.compile(whole, backend="eager")
    with pytest.raises(ValueError, match="compiled already.*compile=True"):
        apply_clockwork(pipe, 2)
    pipe.unet = whole
    _, clocked = expected(StableDiffusionPipeline, torch.float32, "given")
    with clockwork(pipe, 2):
        pipe.unet = torch.compile(whole, backend="eager")
        with pytest.warns(UserWarning, match="apply with compile=True instead"):
            assert torch.equal(draw(pipe), clocked)


def test_what_hangs_inside_a_unet_that_is_to_be_compiled_is_named(pipe):
    add_hook_to_module(pipe.unet.conv_in, AlignDevicesHook(torch.device("cpu")))
    with pytest.raises(ValueError, match=r"compile=True: .* hangs on conv_in"):
        apply_clockwork(pipe, 2, compile=True)
    assert hook_of(pipe) is None


# --- what a run did -------------------------------------------------------------------


def test_the_summary_says_what_was_run_saved_and_kept(pipe):
    with clockwork(pipe, 2, timed=True) as summary:
        assert "nothing has been sampled" in str(summary)
        draw(pipe)
    assert summary.full_steps == (1, 3) and summary.light_steps == (2, 4)
    assert 0 < summary.flops[False] < summary.flops[True]
    share = 1 - (summary.flops[False] / summary.flops[True] + 1) / 2
    assert summary.flops_saved == pytest.approx(share)
    assert summary.seconds_saved is not None
    table = str(summary).splitlines()
    assert table[0] == "Clockwork, clock 2, 4 steps"
    assert table[2].split()[:3] == ["full", "2", "2"]
    assert table[-1].startswith("features kept: ") and " 0 MiB now" in table[-1]


def test_flops_of_a_summary_are_those_of_the_modules(pipe):
    """Counted by hooks: two per product in convolutions and linear layers."""
    counted = []

    def count(module, _inputs, output):
        weight = module.weight
        counted.append(2 * output.numel() * weight[0].numel())

    for module in pipe.unet.modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
            module.register_forward_hook(count)
    with clockwork(pipe, 1) as summary:
        draw(pipe)
    products = sum(counted) / 4
    assert products < summary.flops[True] < 1.3 * products, "attention is the rest"


# --- outputs that are not finite ---------------------------------------------------


@pytest.mark.parametrize("clock", [1, 2])
def test_a_run_that_is_not_finite_ends_and_names_its_first_such_step(clock, unet):
    calls, scheduler = [], DDIMScheduler()
    scheduler.set_timesteps(4)

    def break_third(module, args, output):
        calls.append(0)
        return output * torch.nan if len(calls) == 3 else output

    handle = unet.conv_out.register_forward_hook(break_third)
    x, text = torch.ones(2, 4, 16, 16), torch.zeros(2, 5, 24)
    try:
        with clockwork(unet, clock), torch.no_grad():
            *first, last = scheduler.timesteps
            for t in first:
                unet(x, t, text)
            with pytest.raises(ValueError, match="not finite from step 3 of 4 on"):
                unet(x, last, text)
            assert not hook_of(unet).requests.kept()
    finally:
        handle.remove()
