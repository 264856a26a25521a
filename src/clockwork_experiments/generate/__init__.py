"""Images from seeds, with and without the methods."""
