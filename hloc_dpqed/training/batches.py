"""Batches of points and their observations, drawn from the tracks."""

from dataclasses import dataclass

import numpy as np

from ..reference import Observations


@dataclass(frozen=True)
class Tracks:
    """Observations grouped by point and by image.

    Attributes:
        points: (T,) int64, rows of the points that have an observation, increasing.
        starts, counts: (T,) int64, each such point's slice of ``order``.
        order: (N,) int64, observations sorted by point.
        image_starts: (I + 1,) int64 slices of ``image_order``.
        image_order: (N,) int64, observations sorted by image.
    """

    points: np.ndarray
    starts: np.ndarray
    counts: np.ndarray
    order: np.ndarray
    image_starts: np.ndarray
    image_order: np.ndarray

    @staticmethod
    def from_observations(observations: Observations) -> "Tracks":
        point_counts = np.bincount(observations.point_index, minlength=observations.num_points)
        points = np.flatnonzero(point_counts)
        counts = point_counts[points]
        image_counts = np.bincount(observations.image_index)
        return Tracks(
            points,
            np.cumsum(counts) - counts,
            counts,
            np.argsort(observations.point_index, kind="stable"),
            np.concatenate([[0], np.cumsum(image_counts)]),
            np.argsort(observations.image_index, kind="stable"),
        )

    def draw_points(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """Rows of ``points`` for a batch: all of them, or ``size`` distinct ones at random."""
        if size >= len(self.points):
            return np.arange(len(self.points))
        if size * 8 >= len(self.points):
            return rng.permutation(len(self.points))[:size]
        # The cost of a batch must not grow with the map: draw with repetition, drop the repeats.
        return np.unique(rng.integers(len(self.points), size=size))

    def draw_observation(self, rng: np.random.Generator, tracks: np.ndarray) -> np.ndarray:
        """One random observation of each track (rows of ``points``): (B,) int64."""
        offset = (rng.random(len(tracks)) * self.counts[tracks]).astype(np.int64)
        return self.order[self.starts[tracks] + offset]
