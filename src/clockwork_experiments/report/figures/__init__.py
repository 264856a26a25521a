"""Figures: one module per kind, one look, vector PDF and PNG.

Importing a kind sets the look. Nothing here needs torch.
"""
