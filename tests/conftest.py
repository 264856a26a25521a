"""Shared fixtures: small random models for exactness, shipped ones for the rest."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

# First of all: it makes torchvision importable, which diffusers needs.
# isort: off
import clockwork_experiments  # noqa: F401

# isort: on
import pytest
import torch
from diffusers import (
    ControlNetModel,
    DPMSolverMultistepScheduler,
    StableDiffusionInstructPix2PixPipeline,
    UNet2DConditionModel,
)

from clockwork_experiments.base import forkserver
from clockwork_experiments.mini.translators import widen_input
from clockwork_experiments.models import loading

ROOT = Path(__file__).parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    """Say how much of tests/chaos is run; `make test-chaos` runs 60 of each."""
    parser.addoption("--blows", type=int, default=3, help="kills at random moments")
    parser.addoption("--pairs", type=int, default=2, help="pairs of live jobs")
    parser.addoption("--chaos-seed", default="0", help="decides the moments")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Let the many steps of a long session be forks, as those of a run are."""
    if len(session.items) > 300 and forkserver.usable():
        forkserver.start()


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def unet() -> UNet2DConditionModel:
    """Return a random UNet of SD's topology."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32, 64, 64),
        cross_attention_dim=24,
        attention_head_dim=2,
        norm_num_groups=8,
    ).eval()


@pytest.fixture(scope="session")
def random_translators(tmp_path_factory) -> Path:
    """Return a folder with models for tasks, made from ours, the new weights at random.

    ``joined`` edits, inpaints and synthesises; ``controlnet`` steers our model.
    """
    folder = tmp_path_factory.mktemp("translators")
    pipe = loading.load_pipeline(ROOT / "resources" / "mini" / "stable-diffusion")
    torch.manual_seed(1)
    unet = widen_input(pipe.unet, 4).requires_grad_(False)
    unet.conv_in.weight[:, 4:].normal_(std=0.1)
    StableDiffusionInstructPix2PixPipeline(
        vae=pipe.vae,
        text_encoder=pipe.text_encoder,
        tokenizer=pipe.tokenizer,
        unet=unet,
        scheduler=pipe.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder / "joined")
    ControlNetModel.from_unet(
        pipe.unet, conditioning_embedding_out_channels=(8, 16, 16)
    ).save_pretrained(folder / "controlnet")
    return folder


@pytest.fixture
def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 4, 16, 16, generator=generator)
    c = torch.randn(2, 5, 24, generator=generator)
    return x, torch.tensor(500), c


@pytest.fixture
def scheduler_config() -> object:
    return DPMSolverMultistepScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
    ).config


@pytest.fixture
def small_disk(tmp_path, request) -> Iterator[Path]:
    """Mount a file system of as many KiB as the module's ``SMALL_DISK`` says."""
    disk = tmp_path / "disk"
    disk.mkdir()
    size = f"size={request.module.SMALL_DISK}k"
    command = ["mount", "-t", "tmpfs", "-o", size, "none", str(disk)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"cannot mount a file system: {error}")
    if mounted.returncode:
        pytest.skip(f"cannot mount a file system: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)
