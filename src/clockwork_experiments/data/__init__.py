"""Prompts, images and pairs: where they come from, and how they are kept."""
