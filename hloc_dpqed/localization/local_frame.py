"""A frame for solvers, around the points that they are given and in units of their spread.

Ceres stops when a step is small beside the parameters, which is centimetres where the origin is
thousands of kilometres away, or when a gradient is small, which depends on the unit.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pycolmap


@dataclass(frozen=True)
class LocalFrame:
    """A frame for solvers: a point x of the map is (x - ``origin``) / ``unit`` in it.

    Attributes:
        origin: (3,) float64, map units.
        unit: its unit in map units.
    """

    origin: np.ndarray
    unit: float

    @staticmethod
    def around(points3D: np.ndarray) -> "LocalFrame":
        """Around the median of (n, 3) points, their median distance from it as the unit."""
        if len(points3D) == 0:
            return LocalFrame(np.zeros(3), 1.0)
        origin = np.median(points3D, axis=0)
        unit = float(np.median(np.linalg.norm(points3D - origin, axis=1)))
        return LocalFrame(origin, unit if 0 < unit < np.inf else 1.0)

    def is_needed(self) -> bool:
        """Whether a solver that is given the map's own coordinates would lose digits."""
        return bool(np.abs(self.origin).max() > 100 * self.unit) or not 1e-3 < self.unit < 1e3

    def points(self, points3D: np.ndarray) -> np.ndarray:
        """(n, 3) points of the map, in this frame."""
        return (points3D - self.origin) / self.unit

    def pose_in_map(self, pose: pycolmap.Rigid3d) -> pycolmap.Rigid3d:
        """A camera's pose in this frame, in the map's."""
        # Of unit length to the last digit: the origin may be far away.
        quat = pose.rotation.quat / np.linalg.norm(pose.rotation.quat)
        rotation = pycolmap.Rotation3d(quat)
        moved = self.unit * pose.translation - rotation.matrix() @ self.origin
        return pycolmap.Rigid3d(rotation, moved)

    def pose_in_frame(self, cam_from_world: np.ndarray) -> pycolmap.Rigid3d:
        """A camera's (3, 4) pose in the map, in this frame."""
        rotation = cam_from_world[:, :3]
        moved = (cam_from_world[:, 3] + rotation @ self.origin) / self.unit
        return pycolmap.Rigid3d(np.concatenate([rotation, moved[:, None]], 1))

    def refinement(self, options: dict[str, Any]) -> dict[str, Any]:
        """pycolmap's options of refinement, a prior of the position moved into this frame."""
        options = dict(options)
        if options.get("use_position_prior"):
            prior = np.asarray(options.get("position_prior_in_world", np.zeros(3)), np.float64)
            spread = np.asarray(options.get("position_prior_covariance", np.eye(3)), np.float64)
            options["position_prior_in_world"] = (prior.ravel() - self.origin) / self.unit
            options["position_prior_covariance"] = spread / self.unit**2
        return options
