"""Figures: one module per kind, one look, vector PDF and PNG.

Nothing here needs torch, and Matplotlib is imported where something is drawn: each
start of the workflow asks the kinds what they need.
"""
