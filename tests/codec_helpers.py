"""Random observations that look like a map's: clustered around each point's descriptor."""

import numpy as np

from hloc_dpqed.scene.reference import Observations, normalise_rows


def make_observations(
    num_points: int, per_point: int, dim: int = 32, noise: float = 0.3, seed: int = 0
) -> Observations:
    """``num_points * per_point`` observations; image i sees observation i of every point."""
    rng = np.random.default_rng(seed)
    centres = normalise_rows(rng.normal(size=(num_points, dim)))
    points = np.tile(np.arange(num_points, dtype=np.int32), per_point)
    images = np.repeat(np.arange(per_point, dtype=np.int32), num_points)
    noisy = centres[points] + noise * rng.normal(size=(len(points), dim)) / np.sqrt(dim)
    return Observations(
        normalise_rows(noisy).astype(np.float16).reshape(len(points), dim),
        np.ones(len(points), np.float32),
        rng.random((len(points), 2)).astype(np.float32),
        points,
        images,
        num_points,
    )


def top1(codec, observations: Observations) -> float:
    """Share of observations whose nearest decoded point is their own."""
    decoded = codec.decode(codec.encode_points(observations))
    nearest = (observations.descriptors.astype(np.float32) @ decoded.T).argmax(1)
    return float((nearest == observations.point_index).mean())
