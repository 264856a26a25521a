"""Clockwork Diffusion and its kin, for pipelines of diffusers."""

__version__ = "0.1.0"
