"""Photos to a map: features, matches, poses, points."""
