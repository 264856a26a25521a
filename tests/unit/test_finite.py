"""What is not finite is named where it is made, and makes no picture."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from clockwork_diffusion.encoding import (
    decode_latents,
    decode_pixels,
    encode_images,
    encode_prompts,
)
from clockwork_diffusion.finite import NotFiniteError, check_finite
from clockwork_diffusion.passes import Passes
from clockwork_diffusion.plug_and_play import loops
from clockwork_diffusion.unet import SplitUNet
from clockwork_experiments.base import chunks
from clockwork_experiments.config.parse import parse
from clockwork_experiments.generate import text, translators
from clockwork_experiments.generate.translate import TranslationSpec
from clockwork_experiments.models import loading

MINI = Path(__file__).parents[2] / "resources" / "mini"
PROMPTS = ["a red star", "a blue ring"]


@pytest.fixture(scope="module")
def pipe():
    return loading.load_pipeline(MINI / "stable-diffusion")


@contextmanager
def broken(module: torch.nn.Module, call: int, value: float) -> Iterator[None]:
    """Let one value of the last row of a module's output be no number, at a call."""
    calls = 0

    def spoil(_module, _args, output):
        nonlocal calls
        calls += 1
        if calls == call:
            output[-1, 0, 3, 3] = value

    handle = module.register_forward_hook(spoil)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_rows_are_named(value):
    rows = torch.zeros(12, 3)
    check_finite(rows, "latents")
    check_finite(torch.full((4, 1000), 3e38), "latents")  # their sum is infinite
    rows[[2, 7], 1] = value
    with pytest.raises(NotFiniteError, match="latents are not finite: rows 2, 7 of 12"):
        check_finite(rows, "latents")
    with pytest.raises(NotFiniteError) as found:
        check_finite(rows.half(), "latents")
    assert found.value.rows == (2, 7)


def test_sampling_stops_at_the_step_and_names_the_row(pipe):
    spec = text.SamplerSpec("dpmpp", 4, 2.0)
    drawn = text.generators([1, 2])
    encoded = encode_prompts(pipe, PROMPTS)
    message = r"latents after step 3 \(t = 500\) are not finite: row 1 of 2"
    with (
        broken(pipe.unet.conv_out, 3, float("nan")),
        pytest.raises(ValueError, match=message),
    ):
        text.sample(pipe, encoded, drawn, spec)


@pytest.mark.parametrize(
    ("task", "folder", "model"),
    [
        ("text", "stable-diffusion", None),
        ("edit", "instruct-pix2pix", None),
        ("control", "controlnet", MINI / "stable-diffusion"),
        ("restoration", "stablesr", None),
    ],
)
def test_translations_stop_at_the_step_and_name_the_row(task, folder, model):
    translator = translators.load_translator(task, MINI / folder, model)
    images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    spec = TranslationSpec(task, 3, timesteps=(900, 500, 100))
    message = r"latents after step 2 \(t = 500\) are not finite: row 1 of 2"
    with (
        broken(translator.pipe.unet.conv_out, 2, float("inf")),
        pytest.raises(ValueError, match=message),
    ):
        translator.translate(images, PROMPTS, [1, 2], spec)
    latents = torch.zeros(2, *translator.latent_shape(images))
    latents[1, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="are not finite: row 1 of 2"):
        translator.decode(latents, images)


def test_inversion_and_generation_stop_at_the_step(pipe):
    passes = Passes(SplitUNet(pipe.unet, "stage1"))
    config, encoded = pipe.scheduler.config, encode_prompts(pipe, PROMPTS)
    latents = torch.randn(2, 4, 16, 16)
    spec = loops.InversionSpec(3)
    with (
        broken(pipe.unet.conv_out, 2, float("nan")),
        pytest.raises(ValueError, match=r"inverted latents after step 2 \(t = 334\)"),
    ):
        loops.invert(passes, config, latents, encoded, spec)
    inverted = loops.invert(passes, config, latents, encoded, spec)
    prompts = loops.encode_edits(pipe, PROMPTS, "")
    generation = loops.GenerationSpec(3, 2.0, 0.5, 0.5)
    with (
        broken(pipe.unet.conv_out, 3, float("nan")),
        pytest.raises(ValueError, match=r"^latents after step 3 .* row 1 of 2"),
    ):
        loops.edit(passes, config, inverted, prompts, generation, [0, 1])


def test_neither_encoder_nor_decoder_hides_it(pipe):
    images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    with (
        broken(pipe.vae.quant_conv, 1, float("nan")),
        pytest.raises(ValueError, match="latents of images are not finite: row 1 of 2"),
    ):
        encode_images(pipe.vae, images)
    latents = torch.zeros(2, 4, 16, 16)
    for decode in (decode_latents, decode_pixels):
        with (
            broken(pipe.vae.decoder.conv_out, 1, float("nan")),
            pytest.raises(ValueError, match="decoded pixels are not finite: row 1"),
        ):
            decode(pipe, latents)


def test_a_chunk_says_which_prompt_and_seed_and_keeps_nothing_of_it(tmp_path):
    def work(rows: slice) -> dict[str, torch.Tensor]:
        values = torch.arange(rows.start, rows.stop).float()
        values[values == 5] = float("nan")
        check_finite(values[:, None], "latents")
        return {"values": values}

    message = (
        "images: latents are not finite in 1 of 2 rows; the first is image 5, "
        "prompt 'a red star', seed 3000005"
    )
    with pytest.raises(ValueError) as found:
        chunks.in_chunks(
            8,
            2,
            work,
            tmp_path,
            "work",
            "images",
            lambda row: text.described("a red star", 3, row),
        )
    assert str(found.value) == message
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_settings_are_finite(value):
    given = {"scheduler": "dpmpp", "steps": 4, "guidance": value}
    with pytest.raises(ValueError, match="spec.guidance must be a finite number, not "):
        parse(text.SamplerSpec, given)
