"""Plug-and-Play: inversion, and generation with injected features."""
