"""The mini world: generated scenes, and the small models trained on them."""
