"""How many files of ours a scheduler, an adaptor and a method of one's own touch.

docs/extend.md prints the counts. The files lie outside the checkout, and go through
the door.
"""

import importlib.util
import re
from pathlib import Path

import pytest
import torch
from bare import bare_pipeline

from clockwork_diffusion.clock import Clock
from clockwork_diffusion.hook import sampling_with
from clockwork_diffusion.pipeline import clockwork
from clockwork_diffusion.schedulers import new_scheduler
from clockwork_experiments.generate.text import SamplerSpec

ROOT = Path(__file__).parents[2]

ADAPTOR = """
import torch

class Halved(torch.nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.mix = torch.nn.Conv2d(channels, channels, 1)

    def forward(self, r_in, r_out, t_emb, text_emb):
        return r_out + 0.5 * self.mix(r_out)
"""

METHOD = """
from types import SimpleNamespace

class LastOutput:
    '''Repeat the UNet's last output on the light steps.'''

    history = 1

    def __init__(self, unet):
        self.unet, self.whole = unet, type(unet).forward

    def check(self, clock):
        pass

    def full(self, x, t, c, **kwargs):
        output = self.whole(self.unet, x, t, c, return_dict=False, **kwargs)
        return SimpleNamespace(eps=output[0])

    def light(self, x, t, c, past, pooled=None, **kwargs):
        return SimpleNamespace(eps=past.previous)

    def keep(self, step):
        return step.eps
"""

FILES = {"scheduler": {}, "adaptor": {"own.py": ADAPTOR}, "method": {"own.py": METHOD}}


@pytest.fixture
def pipe(unet, scheduler_config):
    return bare_pipeline(unet, scheduler_config)


@pytest.fixture
def own(request, tmp_path):
    """Return the module that somebody has written."""
    for name, text in FILES[request.param].items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("own", tmp_path / "own.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def latents(pipe, steps: int = 4) -> torch.Tensor:
    text = torch.randn(1, 5, 24, generator=torch.Generator().manual_seed(3))
    return pipe(
        prompt_embeds=text,
        negative_prompt_embeds=torch.zeros_like(text),
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    ).images


@pytest.mark.parametrize("kind", FILES)
def test_the_page_says_how_many_files_each_touches(kind):
    page = (ROOT / "docs" / "extend.md").read_text("utf-8")
    (count,) = re.findall(rf"^\| an? {kind} .*\| (\d) \|", page, re.MULTILINE)
    assert int(count) == len(FILES[kind])


@pytest.mark.parametrize("name", ["UniPCMultistepScheduler", "DEISMultistepScheduler"])
def test_a_scheduler_of_diffusers_is_named_by_its_class(pipe, name):
    """In the experiments' configuration, and in a pipeline of one's own."""
    sampler = SamplerSpec(name, 4, 2.0, clock=2)
    pipe.scheduler = new_scheduler(sampler.scheduler, pipe.scheduler.config, 4)
    assert type(pipe.scheduler).__name__ == name
    plain = latents(pipe)
    with clockwork(pipe, 1):
        assert torch.equal(latents(pipe), plain)
    with clockwork(pipe, sampler.phases) as summary:
        assert not torch.equal(latents(pipe), plain)
    assert summary.light_steps == (2, 4)


@pytest.mark.parametrize("own", ["adaptor"], indirect=True)
def test_an_adaptor_is_a_module_of_ones_own(pipe, own):
    channels = pipe.unet.config.block_out_channels[1]
    adaptor = own.Halved(channels).requires_grad_(False)
    plain = latents(pipe)
    with clockwork(pipe, 2):
        identity = latents(pipe)
    with clockwork(pipe, 2, adaptor=adaptor) as summary:
        learned = latents(pipe)
    assert summary.light_steps == (2, 4)
    assert not torch.equal(learned, plain) and not torch.equal(learned, identity)
    for parameter in adaptor.parameters():
        parameter.zero_()
    # Now it is the identity, which keeps r_out behind the upsampler instead.
    with clockwork(pipe, 2, adaptor=adaptor):
        torch.testing.assert_close(latents(pipe), identity)


@pytest.mark.parametrize("own", ["method"], indirect=True)
def test_a_method_is_a_pair_of_passes(pipe, own):
    plain, seen = latents(pipe), []
    passes = own.LastOutput(pipe.unet)

    def observe(index, timestep, step):
        seen.append(step.eps)

    with sampling_with(pipe, passes, Clock(2), observe=observe) as summary:
        skipped = latents(pipe)
    assert summary.light_steps == (2, 4)
    assert torch.equal(seen[0], seen[1]) and torch.equal(seen[2], seen[3])
    assert not torch.equal(skipped, plain)
    assert torch.equal(latents(pipe), plain)
