"""Cameras and points: projections, centres, what lies in front."""

from typing import TYPE_CHECKING

import numpy as np
import pycolmap

if TYPE_CHECKING:
    pass


# Times the scene's size. A point so far away has no parallax left: its direction is that of one at
# a thousandth of the distance, to a fraction of a pixel.
FURTHEST = 1e6


def project_points(
    points: np.ndarray, camera: pycolmap.Camera, cam_from_world: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Project (n, 3) world points: (n, 2) COLMAP pixels, and (n,) bool whether they are visible."""
    in_camera = points @ cam_from_world[:, :3].T + cam_from_world[:, 3]
    if len(points) == 0:
        return np.zeros((0, 2)), np.zeros(0, bool)
    xy = np.asarray(camera.img_from_cam(in_camera), np.float64)
    inside = (xy >= 0).all(1) & (xy[:, 0] <= camera.width) & (xy[:, 1] <= camera.height)
    return xy, np.isfinite(xy).all(1) & in_front(in_camera, camera) & inside


def camera_centre(cam_from_world: np.ndarray) -> np.ndarray:
    """(3,) float64 position of a camera given as (3, 4) [R | t]."""
    return -cam_from_world[:, :3].T @ cam_from_world[:, 3]


def camera_centres(cam_from_world: np.ndarray) -> np.ndarray:
    """(I, 3) float64 positions of cameras given as (I, 3, 4) [R | t]."""
    return -np.einsum("nji,nj->ni", cam_from_world[:, :, :3], cam_from_world[:, :, 3])


def too_far(positions: np.ndarray, xyz: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Which positions lie outside of any reasonable scene.

    Args:
        positions: (n, 3) points or cameras.
        xyz: (P, 3) the scene's points, whose median distance from the middle of the cameras is its
            size.
        centres: (I, 3) of the cameras.

    Returns:
        (n,) bool: further than ``FURTHEST`` times the scene's size from the middle of the cameras.
    """
    if len(xyz) == 0 or len(centres) == 0:
        return np.zeros(len(positions), bool)
    middle = np.median(centres, axis=0)
    size = np.median(np.linalg.norm(xyz - middle, axis=1))
    if size == 0:
        return np.zeros(len(positions), bool)
    return np.linalg.norm(positions - middle, axis=1) > FURTHEST * size


def in_front(in_camera: np.ndarray, camera: pycolmap.Camera) -> np.ndarray:
    """(n,) bool: whether the camera looks towards the (n, 3) points, in its own coordinates.

    A panorama looks everywhere.
    """
    if camera.model.name == "EQUIRECTANGULAR":
        return np.ones(len(in_camera), bool)
    return in_camera[:, 2] > 0
