"""Metrics and what they are taken of."""
