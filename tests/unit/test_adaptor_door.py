"""Adaptors on pipelines: what they are told, in which precision, and for which use."""

import sys
import warnings
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler
from torch import nn

from clockwork_diffusion.adaptors import ExtrapolationAdaptor, build_adaptor
from clockwork_diffusion.clock import Clock
from clockwork_diffusion.made_for import facts_of_use
from clockwork_diffusion.pipeline import clockwork
from clockwork_diffusion.pooling import PooledTable
from clockwork_diffusion.schedulers import log_snr, visiting

sys.path.insert(0, str(Path(__file__).parents[1]))
from pipelines import NOISE, PROMPT, sd  # noqa: E402

PROMPTS = [PROMPT, "a blue square"]


@pytest.fixture(scope="module")
def pipe():
    return sd(scheduler=DDIMScheduler(**NOISE))


def draw(pipe, prompts=PROMPT, **given) -> torch.Tensor:
    count = 1 if isinstance(prompts, str) else len(prompts)
    given = {"num_inference_steps": 4, "guidance_scale": 3.0, **given}
    generators = [torch.Generator().manual_seed(seed) for seed in range(count)]
    return pipe(prompts, generator=generators, output_type="latent", **given).images


class Told(nn.Module):
    """An adaptor of a user: notes what it is told, and hands on r_out."""

    inputs = ("r_in", "r_out", "text")

    def __init__(self) -> None:
        super().__init__()
        self.told = []

    def forward(self, r_in, r_out, t_emb, text_emb):
        self.told.append(text_emb)
        return r_out


@torch.inference_mode()
def test_each_call_is_told_its_own_prompts(pipe):
    """The case pooled-of-another-prompt, and its kind: nothing goes stale."""
    adaptor = Told()
    prompts, _ = pipe.encode_prompt(PROMPTS, "cpu", 1, False)
    empty, _ = pipe.encode_prompt("", "cpu", 1, False)
    last = torch.cat([empty, prompts])[:, -1]
    with clockwork(pipe, 2, adaptor=adaptor, pool=lambda text: text[:, -1]):
        for given, rows in (
            ({}, [0, 1]),
            ({"prompts": PROMPTS}, [0, 0, 1, 2]),
            ({"prompts": PROMPTS[1]}, [0, 2]),
            ({"guidance_scale": 1.0}, [1]),
            ({"num_images_per_prompt": 2, "guidance_scale": 1.0}, [1, 1]),
        ):
            adaptor.told.clear()
            more = {} if "num_images_per_prompt" in given else None
            if more is None:
                draw(pipe, **given)
            else:
                pipe(PROMPT, num_inference_steps=4, output_type="latent", **given)
            assert len(adaptor.told) == 2
            for told in adaptor.told:
                torch.testing.assert_close(told, last[rows])


def test_a_prompt_that_was_not_pooled_is_refused(pipe):
    table = PooledTable()
    with torch.inference_mode():
        text, empty = pipe.encode_prompt(PROMPTS[0], "cpu", 1, True)
    table.add(torch.cat([empty, text]), torch.zeros(2, 8))
    with clockwork(pipe, 2, adaptor=Told(), pool=table):
        draw(pipe, PROMPTS[0])
        with pytest.raises(ValueError, match="row 1 of the UNet's text features"):
            draw(pipe, PROMPTS[1])


@pytest.mark.parametrize("inside", [False, True])
def test_the_adaptor_follows_the_pipelines_precision(inside):
    """The case adaptor-of-another-precision: at apply, and moved in the block."""
    half = sd(scheduler=DDIMScheduler(**NOISE))
    if not inside:
        half.to(torch.bfloat16)
    torch.manual_seed(0)
    adaptor = build_adaptor("resnet", half.unet, "stage1", 16, pooling="last")
    nn.init.normal_(adaptor.up.weight, std=0.05)
    kept = adaptor.up.weight.clone()
    with clockwork(half, 2, adaptor=adaptor.eval()) as summary:
        if inside:
            draw(half)
            half.to(torch.bfloat16)
        made = draw(half)
        assert "light" in str(summary)
    assert made.dtype == torch.bfloat16 and made.isfinite().all()
    assert torch.equal(adaptor.up.weight, kept)


def test_another_use_is_warned_of_once_a_run(pipe):
    pipe.scheduler.set_timesteps(4)
    facts = facts_of_use(pipe.unet, pipe.scheduler, Clock(2), "stage1")
    adaptor = build_adaptor(
        "resnet", pipe.unet, "stage1", 8, made_for=facts, inputs=("r_in", "r_out")
    ).eval()
    with clockwork(pipe, 2, adaptor=adaptor), warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(pipe)
    with (
        clockwork(pipe, 3, adaptor=adaptor),
        pytest.warns(UserWarning, match="trained for .*") as caught,
    ):
        draw(pipe, num_inference_steps=6)
    message = "trained for steps 4, clock 2, and asked for steps 6, clock 3"
    assert [str(each.message).endswith(message) for each in caught] == [True]


@torch.inference_mode()
def test_extrapolation_goes_by_log_snr_where_steps_are_uneven():
    """A hook of our own on the upsampler extrapolates by hand, at γ's time steps."""
    pipe = sd(scheduler=DDIMScheduler(**NOISE))
    chosen = [990, 900, 500, 120, 10]
    pipe.scheduler = visiting(pipe.scheduler, chosen)
    with clockwork(pipe, 2, adaptor=ExtrapolationAdaptor()):
        made = draw(pipe, num_inference_steps=5)
    at = log_snr(pipe.scheduler, torch.tensor(chosen)).tolist()
    fulls, calls = [], []

    def extrapolate(_module, given):
        index = len(calls)
        calls.append(index)
        if index % 2 == 0:
            fulls.append((at[index], given[0]))
            return given
        (newest, new), (older, old) = fulls[-1], fulls[-2:][0]
        factor = 0.0 if newest == older else (at[index] - newest) / (newest - older)
        return new + (new - old) * factor, *given[1:]

    upsampler = pipe.unet.up_blocks[-2].upsamplers[0]
    handle = upsampler.register_forward_pre_hook(extrapolate)
    expected = draw(pipe, num_inference_steps=5)
    handle.remove()
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-4)
    # By the step's index, step 3 would go half as far again; here it is another way.
    assert (at[3] - at[2]) / (at[2] - at[0]) != pytest.approx(0.5, abs=0.05)
