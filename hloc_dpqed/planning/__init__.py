"""What to keep for a size or a recall, tried on held-out images."""
