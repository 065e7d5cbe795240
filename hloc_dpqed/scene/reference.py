"""The uncompressed map in memory: a COLMAP model and its observations' descriptors, as arrays."""

from dataclasses import dataclass

import numpy as np
import pycolmap

from .visibility import Visibility


@dataclass(frozen=True)
class ReferenceMap:
    """A COLMAP model as arrays. Images are sorted by name, points by their COLMAP id.

    Attributes:
        image_names: names of the I registered images, sorted.
        image_ids: (I,) int64 COLMAP image ids.
        cameras: the distinct cameras that the images use.
        camera_index: (I,) int32 into ``cameras``.
        cam_from_world: (I, 3, 4) float64 poses [R | t].
        point_ids: (P,) COLMAP point ids, increasing; int64, or uint64 where one needs it.
        xyz: (P, 3) float64 coordinates in map units.
        reprojection_error: (P,) float32 mean reprojection error in pixels, -1 where unknown.
        visibility: I x P, one entry for each (image, point).
        keypoint_index: (N,) int32, the keypoint (``points2D`` row) of each observation.
        num_keypoints: (I,) int64 ``points2D`` of each image, observed or not; None where it is not
            read from a model.
        keypoint_positions: (N, 2) float32, where the model has the keypoint of each observation,
            COLMAP's convention (pixel centres at .5); None where it is not read from a model.
    """

    image_names: list[str]
    image_ids: np.ndarray
    cameras: list[pycolmap.Camera]
    camera_index: np.ndarray
    cam_from_world: np.ndarray
    point_ids: np.ndarray
    xyz: np.ndarray
    reprojection_error: np.ndarray
    visibility: Visibility
    keypoint_index: np.ndarray
    num_keypoints: np.ndarray | None = None
    keypoint_positions: np.ndarray | None = None

    @property
    def num_images(self) -> int:
        return len(self.image_names)

    @property
    def num_points(self) -> int:
        return len(self.point_ids)


@dataclass(frozen=True)
class Observations:
    """What the feature file says of each observation, in the order of a map's visibility.

    Attributes:
        descriptors: (N, D) float16, L2-normalised rows.
        scores: (N,) float32 detection scores, 1.0 where the feature file has none.
        keypoints: (N, 2) float32, hloc's convention (pixel centres at integers).
        point_index: (N,) int32 point row of each observation.
        image_index: (N,) int32 image row of each observation.
        num_points: P.
        targets: (P, D) float16, L2-normalised: what the code of each point should decode to
            (``training.sharpen``); None stands for the mean of its observations.
        places: (P,) int64: rows of equal numbers are one 3D point, with a code for each of its
            appearances (``scene.appearances``); None where each row is a point of its own.
    """

    descriptors: np.ndarray
    scores: np.ndarray
    keypoints: np.ndarray
    point_index: np.ndarray
    image_index: np.ndarray
    num_points: int
    targets: np.ndarray | None = None
    places: np.ndarray | None = None

    @property
    def dim(self) -> int:
        return self.descriptors.shape[1]

    def __len__(self) -> int:
        return len(self.descriptors)

    def subset(self, observations: np.ndarray, point_index: np.ndarray, num_points: int):
        """The given observations, with new point rows (``Visibility.keep_points`` gives both).

        Without targets and places, as it does not know the old rows.
        """
        return Observations(
            self.descriptors[observations],
            self.scores[observations],
            self.keypoints[observations],
            np.asarray(point_index, np.int32),
            self.image_index[observations],
            num_points,
        )


def mean_descriptors(observations: Observations) -> np.ndarray:
    """Normalised mean descriptor of each point.

    Returns:
        (P, D) float32, L2-normalised; a point without observations (or whose observations cancel
        out) has a zero row.
    """
    total = np.zeros((observations.num_points, observations.dim), np.float32)
    order = np.argsort(observations.point_index, kind="stable")
    sorted_points = observations.point_index[order]
    chunk = 1 << 17  # bounds the float32 copy of the descriptors
    for start in range(0, len(order), chunk):
        part = order[start : start + chunk]
        points = sorted_points[start : start + chunk]
        firsts = np.flatnonzero(np.r_[True, points[1:] != points[:-1]])
        sums = np.add.reduceat(observations.descriptors[part].astype(np.float32), firsts, axis=0)
        # A point may span two chunks, but within one chunk it appears once in `firsts`.
        total[points[firsts]] += sums
    return normalise_rows(total)


def target_descriptors(observations: Observations) -> np.ndarray:
    """What the code of each point should decode to: (P, D) float32, ``targets`` or the mean."""
    if observations.targets is None:
        return mean_descriptors(observations)
    return observations.targets.astype(np.float32)


def mean_scores(observations: Observations) -> np.ndarray:
    """Mean detection score of each point: (P,) float32, 1.0 for points without observations."""
    counts = np.bincount(observations.point_index, minlength=observations.num_points)
    sums = np.bincount(
        observations.point_index, observations.scores, minlength=observations.num_points
    )
    return np.where(counts > 0, sums / np.maximum(counts, 1), 1.0).astype(np.float32)


def normalise_rows(x: np.ndarray) -> np.ndarray:
    """L2-normalise the rows of (N, D) ``x`` as float32; zero rows stay zero."""
    x = np.asarray(x, np.float32)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.maximum(norms, np.finfo(np.float32).tiny)
