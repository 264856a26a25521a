"""Predictors of r_out that are not trained: ours, one a file; `contract` says what."""
