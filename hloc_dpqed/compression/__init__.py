"""From a scene to a compressed map: the engine that stages and planning share."""
