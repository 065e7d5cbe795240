"""Arrays as few bytes: an entropy coder."""
