"""Searches for levels and time steps."""
