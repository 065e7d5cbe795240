"""Queries as the localizer takes them, and the outcome of each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pycolmap

from ..io.features import ImageFeatures
from ..matching.nearest_neighbor import Matches
from .confidence import Evidence


@dataclass(frozen=True)
class Correspondences:
    """Distinct 2D-3D matches of a query, ordered by keypoint, then point.

    Attributes:
        keypoint_index: (n,) int64 rows of the query's keypoints.
        point_index: (n,) int64 rows of the map's points.
        votes: (n,) int64, how many database images gave the match.
        similarity: (n,) float32, the highest similarity among them.
        num_matches: matches over all images, before they were collapsed.
    """

    keypoint_index: np.ndarray
    point_index: np.ndarray
    votes: np.ndarray
    similarity: np.ndarray
    num_matches: int

    def __len__(self) -> int:
        return len(self.keypoint_index)

    @staticmethod
    def collect(matches: Sequence[Matches], num_points: int) -> "Correspondences":
        """Collapse equal (keypoint, point) pairs."""
        pairs = np.concatenate([np.zeros((0, 2), np.int64), *(m.pairs for m in matches)])
        similarity = np.concatenate([np.zeros(0, np.float32), *(m.similarity for m in matches)])
        keys = pairs[:, 0] * num_points + pairs[:, 1]
        order = np.lexsort((-similarity, keys))
        keys = keys[order]
        first = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]][: len(keys)])
        votes = np.diff(np.r_[first, len(keys)])
        chosen = order[first]
        return Correspondences(
            pairs[chosen, 0], pairs[chosen, 1], votes, similarity[chosen], len(pairs)
        )

    def best_of_keypoints(self) -> np.ndarray:
        """Rows of one match for each keypoint: (k,) int64, increasing.

        The match with most votes, then of highest similarity, then of the lowest point.
        """
        order = np.lexsort((self.point_index, -self.similarity, -self.votes, self.keypoint_index))
        keypoints = self.keypoint_index[order]
        first = np.r_[True, keypoints[1:] != keypoints[:-1]][: len(keypoints)]
        return np.sort(order[first])


@dataclass(frozen=True)
class Localization:
    """The outcome for one query.

    Attributes:
        name: of the query.
        cam_from_world: (3, 4) float64 [R | t] in the frame and unit of the model that the map was
            made from, or None where the query was not localized.
        num_inliers: of RANSAC, of a rejected pose too.
        inliers: (n,) bool over the correspondences.
        correspondences: what PnP was given.
        images: rows of the retrieved database images whose matches were used.
        rejected: RANSAC found a pose, of too few inliers to be believed.
        doubtful: there is a believed pose, and it is less probable than was asked for.
        covariance: (6, 6) float64 of the rotation (radians, in the camera's frame) and the centre
            (map units, along the map's axes), see ``confidence.covariance_in_map``; None without a
            pose.
        evidence: what tells how sure the pose is; None without a pose.
        camera: with the focal length that was estimated with the pose; None where it was known.
        tracked: found by what the last frame saw, or by a prior, see ``following``.
    """

    name: str
    cam_from_world: np.ndarray | None
    num_inliers: int
    inliers: np.ndarray
    correspondences: Correspondences
    images: list[int]
    rejected: bool = False
    doubtful: bool = False
    covariance: np.ndarray | None = None
    evidence: Evidence | None = None
    camera: pycolmap.Camera | None = None
    tracked: bool = False


@dataclass(frozen=True)
class Query:
    """A query as the localizer takes it; ``retrieved`` None matches against the whole map."""

    name: str
    camera: pycolmap.Camera
    features: ImageFeatures
    retrieved: Sequence[int] | None


@dataclass(frozen=True)
class RigQuery:
    """Images of several cameras that were taken at once, on a rig.

    Attributes:
        name: of the frame (the rig at one moment).
        queries: its images, at least one.
        cams_from_rig: (n, 3, 4) float64 [R | t], each camera from the rig's frame, in map units.
    """

    name: str
    queries: Sequence[Query]
    cams_from_rig: np.ndarray


@dataclass(frozen=True)
class RigLocalization:
    """The outcome for one frame of a rig.

    Attributes:
        name: of the frame.
        rig_from_world: (3, 4) float64 [R | t], None where the rig was not localized.
        num_inliers: over all cameras, of a rejected pose too.
        cameras: the outcome of each image. Its pose is the rig's where the rig has one, else that
            of the image alone.
        rejected: RANSAC found a pose of too few inliers to be believed.
        disagrees: at least half of the images that are localized alone are somewhere else than
            the rig has them: its calibration or unit is not that of these images, or they were not
            taken at once. Their own poses were taken.
        baseline_ratio: the distances of the cameras localized alone over those of the rig, the
            median; None where fewer than two were, or they stand in one place.
    """

    name: str
    rig_from_world: np.ndarray | None
    num_inliers: int
    cameras: list[Localization]
    rejected: bool = False
    disagrees: bool = False
    baseline_ratio: float | None = None
