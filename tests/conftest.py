"""Shared fixtures: small random models for exactness, shipped ones for the rest."""

from pathlib import Path

# First of all: it makes torchvision importable, which diffusers needs.
# isort: off
import clockwork_diffusion  # noqa: F401

# isort: on
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, UNet2DConditionModel

ROOT = Path(__file__).parent.parent


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
