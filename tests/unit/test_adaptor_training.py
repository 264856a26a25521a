"""A user's own adaptor, from the user's own pipeline in a few lines."""

import sys
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler

from clockwork_diffusion import adaptor_training
from clockwork_diffusion.adaptor_error import adaptor_steps
from clockwork_diffusion.adaptor_training import train_adaptor
from clockwork_diffusion.adaptors import load_adaptor
from clockwork_diffusion.clock import Clock
from clockwork_diffusion.pipeline import clockwork
from clockwork_diffusion.schedulers import log_snr
from clockwork_diffusion.trajectories import Recorder

sys.path.insert(0, str(Path(__file__).parents[1]))
from pipelines import NOISE, PROMPT, sd, sdxl  # noqa: E402

CAPTIONS = [f"{word} {PROMPT}" for word in ("a", "red", "ring", "on", "the", "sea")]
SHORT = {"steps": 4, "guidance_scale": 3.0, "held_out": 2, "captions_per_epoch": 2}
SHORT |= {"updates": 6, "batch_size": 2, "captions_at_once": 1}


@pytest.fixture(scope="module")
def pipe():
    return sd(scheduler=DDIMScheduler(**NOISE))


def test_it_trains_saves_and_runs(pipe, tmp_path):
    folder = tmp_path / "mine"
    adaptor = train_adaptor(pipe, CAPTIONS, folder, **SHORT)
    assert adaptor.inputs == ("r_in", "r_out")
    assert adaptor.up.weight.any(), "nothing was learned"
    assert adaptor.config.made_for["steps"] == 4
    assert adaptor.config.made_for["clock"] == 2
    card = (folder / "README.md").read_text("utf-8")
    assert "| scheduler | ddim |" in card and "On 2 captions held out" in card
    assert {path.name for path in folder.iterdir()} == {
        *("README.md", "config.json", "diffusion_pytorch_model.safetensors")
    }
    with clockwork(pipe, 2, adaptor=load_adaptor(str(folder))):
        pipe(PROMPT, num_inference_steps=4, output_type="latent")
    with pytest.raises(ValueError, match="holds an adaptor already"):
        train_adaptor(pipe, CAPTIONS, folder, **SHORT)


def test_killed_and_called_again_it_ends_as_one_left_alone(pipe, tmp_path, monkeypatch):
    whole = train_adaptor(pipe, CAPTIONS, tmp_path / "whole", **SHORT)
    monkeypatch.setattr(adaptor_training, "SAVE_SECONDS", 0.0)
    error_of, calls = adaptor_training.error_of, []

    def killed(*given):
        calls.append(given)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return error_of(*given)

    monkeypatch.setattr(adaptor_training, "error_of", killed)
    with pytest.raises(KeyboardInterrupt):
        train_adaptor(pipe, CAPTIONS, tmp_path / "killed", **SHORT)
    with pytest.raises(ValueError, match="training with other arguments"):
        train_adaptor(pipe, CAPTIONS, tmp_path / "killed", **{**SHORT, "lr": 0.1})
    again = train_adaptor(pipe, CAPTIONS, tmp_path / "killed", **SHORT)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


@pytest.mark.parametrize("of", ["loss", "gradient"])
def test_a_loss_that_is_not_finite_ends_it_and_what_was_saved_is_kept(
    pipe, tmp_path, monkeypatch, of
):
    monkeypatch.setattr(adaptor_training, "SAVE_SECONDS", 0.0)
    error_of, calls = adaptor_training.error_of, []

    def broken(*given):
        calls.append(given)
        error = error_of(*given)
        if len(calls) != 4:
            return error
        if of == "gradient":
            error.register_hook(lambda gradient: gradient * torch.nan)
            return error
        return error * torch.inf

    monkeypatch.setattr(adaptor_training, "error_of", broken)
    folder = tmp_path / "mine"
    with pytest.raises(ValueError, match="not finite at update 3; a lower lr") as error:
        train_adaptor(pipe, CAPTIONS, folder, **SHORT)
    (kept,) = folder.iterdir()
    assert str(error.value).endswith(f"; what was saved last is {kept}")
    state = torch.load(kept, weights_only=True)
    assert state["update"] == 3
    assert all(value.isfinite().all() for value in state["adaptor"].values())
    # It is not in the way of other arguments, and does not outlast their training.
    train_adaptor(pipe, CAPTIONS, folder, **{**SHORT, "lr": 1e-4, "updates": 2})
    assert kept not in folder.iterdir() and (folder / "config.json").is_file()


@pytest.mark.parametrize("kind", ["resnet", "resnet_extrapolation"])
def test_sdxls_pipeline_and_text_train_too(tmp_path, kind):
    pipe = sdxl()
    given = {**SHORT, "updates": 2, "kind": kind, "pooling": "last"}
    adaptor = train_adaptor(pipe, CAPTIONS, tmp_path / "xl", **given)
    assert adaptor.config.pooling == "last"
    with clockwork(pipe, 2, adaptor=adaptor):
        pipe(PROMPT, num_inference_steps=4, output_type="latent")


def test_what_is_recorded_is_what_an_adaptor_sees(pipe):
    """The features of each step, against hooks on the modules."""
    recorder, seen = Recorder(pipe, "stage1"), []
    unet = pipe.unet
    upsampler = unet.up_blocks[-2].upsamplers[0]
    handles = [
        unet.down_blocks[0].register_forward_hook(
            lambda m, g, out: seen.append(out[0])
        ),
        upsampler.register_forward_pre_hook(lambda m, given: seen.append(given[0])),
    ]
    with recorder.recording():
        pipe(PROMPT, num_inference_steps=3, guidance_scale=3.0, output_type="latent")
        recorder.end_batch()
    for handle in handles:
        handle.remove()
    data = recorder.take()
    assert (len(data), data.steps) == (2, 3)
    for step in range(3):
        assert torch.equal(data.r_in[:, step], seen[2 * step])
        assert torch.equal(data.r_out[:, step], seen[2 * step + 1])
    expected = log_snr(pipe.scheduler, pipe.scheduler.timesteps)
    torch.testing.assert_close(data.log_snr, expected)
    assert data.t_emb.shape[:2] == (2, 3) and data.pooled is None
    assert not unet._forward_pre_hooks


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"captions": "one text"}, "captions are one text"),
        ({"kind": "identity"}, "kind 'identity' has nothing to train"),
        ({"pooling": "first"}, "pooling 'first' is not one of last, mean"),
        ({"updates": 0}, "updates 0 is less than 1"),
        ({"lr": float("nan")}, "lr nan is not a positive number"),
        ({"held_out": 6}, "held_out 6 of 6 captions leaves none"),
        ({"clock": 1}, "clock 1 over 4 steps has no adaptor step"),
        ({"sample": lambda *_: None}, "the pipeline has not called its UNet"),
    ],
)
def test_what_makes_no_training_is_refused(pipe, tmp_path, change, message):
    given = {"captions": CAPTIONS, "folder": tmp_path / "none", **SHORT, **change}
    with pytest.raises(ValueError, match=message):
        train_adaptor(pipe, **given)


def test_a_pipeline_of_other_steps_is_refused(pipe, tmp_path):
    def sample(captions, generators):
        pipe(list(captions), num_inference_steps=3, output_type="latent")

    with pytest.raises(ValueError, match="made 3 steps, and not 4"):
        train_adaptor(pipe, CAPTIONS, tmp_path / "none", **SHORT, sample=sample)
    assert adaptor_steps(Clock(2), 4).tolist() == [1, 3]
