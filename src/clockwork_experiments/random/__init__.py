"""Real sizes with random weights."""
