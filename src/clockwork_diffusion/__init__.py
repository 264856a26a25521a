"""Clockwork Diffusion, and the workflow that reproduces it."""

from clockwork_diffusion import _torchvision

__version__ = "0.1.0"

_torchvision.install()
