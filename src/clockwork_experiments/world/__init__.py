"""The open world: scenes whose captions leave much to the whole picture to decide."""
