"""How each mini model is trained: a module for each, found by its name."""
