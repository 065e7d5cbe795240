"""Batches of points and their observations, drawn from the tracks."""

from dataclasses import dataclass

import numpy as np

from ..scene.reference import Observations


def same_places(observations: Observations, rows: np.ndarray) -> np.ndarray | None:
    """Which of the rows are other appearances of one 3D point: (B, B) bool, None where none can.

    Matches of a point are right with each of its codes, so that these are no negatives.
    """
    if observations.places is None:
        return None
    places = observations.places[rows]
    same = places[:, None] == places[None]
    np.fill_diagonal(same, False)
    return same


@dataclass(frozen=True)
class Tracks:
    """Observations grouped by point and by image. A track is a point with observations.

    Attributes:
        points: (T,) int64, the point row of each track, increasing.
        starts, counts: (T,) int64, each track's slice of ``order``.
        order: (N,) int64, observations sorted by point.
        track_of: (N,) int64, the track of each observation.
        image_of: (N,) int64, the image of each observation.
        image_starts: (I + 1,) int64 slices of ``image_order``.
        image_order: (N,) int64, observations sorted by image.
    """

    points: np.ndarray
    starts: np.ndarray
    counts: np.ndarray
    order: np.ndarray
    track_of: np.ndarray
    image_of: np.ndarray
    image_starts: np.ndarray
    image_order: np.ndarray

    @staticmethod
    def from_observations(observations: Observations) -> "Tracks":
        points, track_of = np.unique(observations.point_index, return_inverse=True)
        counts = np.bincount(track_of, minlength=len(points))
        image_of = observations.image_index.astype(np.int64)
        return Tracks(
            points.astype(np.int64),
            np.cumsum(counts) - counts,
            counts,
            np.argsort(track_of, kind="stable"),
            track_of.astype(np.int64),
            image_of,
            np.concatenate([[0], np.cumsum(np.bincount(image_of))]),
            np.argsort(image_of, kind="stable"),
        )

    def draw_points(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """All tracks, or about ``size`` distinct ones at random: (B,) int64."""
        if size >= len(self.points):
            return np.arange(len(self.points))
        if size * 8 >= len(self.points):
            return rng.permutation(len(self.points))[:size]
        # The cost of a batch must not grow with the map: draw with repetition, drop the repeats.
        return np.unique(rng.integers(len(self.points), size=size))

    def draw_observation(self, rng: np.random.Generator, tracks: np.ndarray) -> np.ndarray:
        """One random observation of each track: (B,) int64."""
        offset = (rng.random(len(tracks)) * self.counts[tracks]).astype(np.int64)
        return self.order[self.starts[tracks] + offset]

    def draw_neighbours(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """Tracks that are seen together: of an image and of images that share points with it.

        Matching confuses the points of one image and of its neighbours, so these are the hard
        negatives. The first image is that of a random observation; the others are met by other
        observations of its points, so the more points they share the sooner they come.

        Returns:
            (B,) int64, distinct, at most ``size``.
        """
        image = self.image_of[rng.integers(len(self.image_of))]
        first = self._tracks_of_image(image)
        met = self.draw_observation(rng, first[rng.integers(len(first), size=16)])
        images = [image, *self.image_of[met]]
        parts, count = [], 0
        for image in dict.fromkeys(images):
            parts.append(self._tracks_of_image(image))
            count += len(parts[-1])
            if count >= 2 * size:
                break
        found = np.unique(np.concatenate(parts))
        return found if len(found) <= size else rng.permutation(found)[:size]

    def _tracks_of_image(self, image: int) -> np.ndarray:
        rows = self.image_order[self.image_starts[image] : self.image_starts[image + 1]]
        return self.track_of[rows]
