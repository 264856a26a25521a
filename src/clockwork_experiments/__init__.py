"""The reproduction of two papers with `clockwork_diffusion`: what the workflow runs."""

from clockwork_experiments.base import _torchvision

_torchvision.install()
