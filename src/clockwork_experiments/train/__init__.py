"""Adaptors, backbones, and what they are trained on."""
