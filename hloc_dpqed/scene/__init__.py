"""What was mapped: cameras, points, tracks and their descriptors, before compression."""
