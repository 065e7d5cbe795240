"""How sure a pose is: its covariance, where its inliers lie, and a calibrated probability."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pycolmap

from ..errors import InputError

CELLS = 6  # of the image, across and down, that inliers may cover
# Of an error over its standard deviation: beyond, one threshold is as good as another.
LOWEST, HIGHEST = np.log(0.1), np.log(30.0)
RIDGE = 1e-3  # of each weight, relative to a sample's: nothing is certain after a few images
FEATURES = ("one", "threshold", "inliers", "share", "coverage")


@dataclass(frozen=True)
class Evidence:
    """What is known of a pose without its truth.

    Attributes:
        position_std: standard deviation of the camera's centre, the length of the vector, map
            units.
        rotation_std: of its rotation, degrees.
        num_inliers, num_matches: distinct (keypoint, point) pairs that agree, and all.
        coverage: share of the image's cells that hold an inlier.
    """

    position_std: float
    rotation_std: float
    num_inliers: int
    num_matches: int
    coverage: float


def coverage(keypoints: np.ndarray, camera: pycolmap.Camera) -> float:
    """Share of ``CELLS`` x ``CELLS`` equal parts of the image that hold one of (n, 2) pixels."""
    cells = np.floor(keypoints * CELLS / np.array([camera.width, camera.height])).astype(int)
    cells = np.clip(cells, 0, CELLS - 1)
    return len(np.unique(cells[:, 0] * CELLS + cells[:, 1])) / CELLS**2


def evidence_of(
    covariance: np.ndarray | None, num_inliers: int, num_matches: int, covered: float
) -> Evidence | None:
    """Evidence with the (6, 6) covariance of a pose; None without one."""
    if covariance is None or not np.isfinite(covariance).all():
        return None
    spread = np.clip(np.diag(covariance), 0, None)
    return Evidence(
        float(np.sqrt(spread[3:].sum())),
        float(np.degrees(np.sqrt(spread[:3].sum()))),
        num_inliers,
        num_matches,
        covered,
    )


def cross_matrix(vector: np.ndarray) -> np.ndarray:
    """(3, 3), whose product with x is the cross product of (3,) ``vector`` and x."""
    x, y, z = vector
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])


def covariance_in_map(tangent: np.ndarray, local: np.ndarray, unit: float) -> np.ndarray:
    """Covariance of a camera's rotation and centre.

    pycolmap's is of the pose's tangent, half the rotation vector on the camera's side and then the
    translation, in the frame of the solver. A rotation and a centre do not depend on how far away
    the origin is.

    Args:
        tangent: (6, 6) as pycolmap gives it.
        local: (3, 4) pose in the solver's frame, parallel to the map.
        unit: of the solver's frame in map units.

    Returns:
        (6, 6) float64 of (w, c): the rotation exp(w) R and the centre C + c of a pose (R, C); w in
        radians in the camera's frame, c in map units along the map's axes.
    """
    back = local[:, :3].T
    change = np.zeros((6, 6))
    change[:3, :3] = 2 * np.eye(3)
    change[3:, :3] = -2 * unit * back @ cross_matrix(local[:, 3])
    change[3:, 3:] = -unit * back
    return change @ tangent @ change.T


def covariance_on_rig(
    of_rig: np.ndarray, rig_from_world: np.ndarray, cam_from_rig: np.ndarray
) -> np.ndarray:
    """Covariance, as ``covariance_in_map`` gives it, of a camera that stands on a rig.

    Args:
        of_rig: (6, 6) of the rig's rotation and origin.
        rig_from_world: (3, 4).
        cam_from_rig: (3, 4).
    """
    rotation = cam_from_rig[:, :3]
    place = -rotation.T @ cam_from_rig[:, 3]  # on the rig
    change = np.eye(6)
    change[:3, :3] = rotation
    change[3:, :3] = rig_from_world[:, :3].T @ cross_matrix(place)
    return change @ of_rig @ change.T


def features_of(evidence: Evidence, translation: float, rotation: float) -> np.ndarray:
    """(5,) ``FEATURES`` of a pose and thresholds in map units and degrees.

    The threshold that is smaller beside its standard deviation is the one that binds.
    """
    tiny = np.finfo(float).tiny
    binding = min(
        np.log(max(translation, tiny) / max(evidence.position_std, tiny)),
        np.log(max(rotation, tiny) / max(evidence.rotation_std, tiny)),
    )
    return np.array(
        [
            1.0,
            np.clip(binding, LOWEST, HIGHEST),
            np.log1p(evidence.num_inliers),
            evidence.num_inliers / max(evidence.num_matches, 1),
            evidence.coverage,
        ]
    )


@dataclass(frozen=True)
class Calibration:
    """A logistic model of the probability that both errors of a pose are under thresholds.

    Ours, after Platt, "Probabilistic Outputs for Support Vector Machines", 1999: a pose's own
    covariance says how large its error is expected to be, and images whose poses are known say how
    often that is so.

    Attributes:
        weights: (5,) of ``FEATURES``.
        num_poses: that it was fitted on.
    """

    weights: tuple[float, ...]
    num_poses: int

    def probability(self, evidence: Evidence | None, translation: float, rotation: float) -> float:
        """Of both errors being under thresholds in map units and degrees; 0 without evidence."""
        if evidence is None:
            return 0.0
        value = features_of(evidence, translation, rotation) @ np.array(self.weights)
        return float(1 / (1 + np.exp(-np.clip(value, -500, 500))))

    def to_json(self) -> dict[str, Any]:
        return {
            "features": list(FEATURES),
            "weights": [float(f"{w:.5g}") for w in self.weights],
            "num_poses": self.num_poses,
        }

    @staticmethod
    def from_json(told: Any) -> "Calibration | None":
        """What a map holds; None where it holds none, or one of other features.

        Raises:
            InputError: it is damaged.
        """
        if told is None:
            return None
        try:
            if list(told["features"]) != list(FEATURES):
                return None  # of a newer version of this package
            weights = tuple(float(w) for w in told["weights"])
            if len(weights) != len(FEATURES) or not np.isfinite(weights).all():
                raise ValueError
            return Calibration(weights, int(told["num_poses"]))
        except (TypeError, ValueError, KeyError) as error:
            raise InputError("the map's calibration of confidence is damaged") from error


def fit_calibration(poses: Sequence[tuple[Evidence, float, float]]) -> Calibration:
    """Fit a calibration on poses with known errors.

    Each pose gives a sample for each of a grid of thresholds around the errors that are expected,
    so that one model holds for any.

    Args:
        poses: evidence, and the errors in map units and degrees.

    Raises:
        InputError: no pose.
    """
    if not poses:
        raise InputError("calibration: no held-out image was localized, nothing to fit on")
    rows, labels = [], []
    steps = np.geomspace(0.15, 20, 8)
    middle = np.median([[e.position_std, e.rotation_std] for e, *_ in poses], axis=0)
    for evidence, away, turn in poses:
        for by_position in steps:
            for by_rotation in steps:
                translation, rotation = middle * (by_position, by_rotation)
                rows.append(features_of(evidence, translation, rotation))
                labels.append(away < translation and turn < rotation)
    weights = _logistic(np.array(rows), np.array(labels, float))
    return Calibration(tuple(weights.tolist()), len(poses))


def _logistic(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Weights of ridge logistic regression, by Newton's method; (n, f) float64 to (f,)."""
    ridge = RIDGE * len(rows) * np.eye(rows.shape[1])
    ridge[0, 0] = 1e-9  # the first column is the constant
    weights = np.zeros(rows.shape[1])
    for _ in range(100):
        likely = 1 / (1 + np.exp(-np.clip(rows @ weights, -500, 500)))
        gradient = rows.T @ (likely - labels) + ridge @ weights
        curvature = (rows.T * (likely * (1 - likely))) @ rows + ridge
        step = np.linalg.solve(curvature, gradient)
        weights -= step * min(1.0, 5 / max(np.abs(step).max(), 1e-300))
        if np.abs(step).max() < 1e-9:
            break
    return weights
