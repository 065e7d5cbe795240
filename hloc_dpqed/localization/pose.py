"""Absolute pose from 2D-3D matches, with pycolmap."""

import copy
import hashlib
from typing import Any

import numpy as np
import pycolmap

from ..compressed_map import in_front


def query_seed(seed: int, name: str) -> int:
    """Seed of a query's RANSAC, from the run's seed and the query's name.

    A query's pose then depends neither on the order of the queries nor on parallelism.
    """
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:4], "little") & 0x7FFFFFFF


def estimation_options(ransac_thresh: float, config: dict[str, Any] | None) -> dict[str, Any]:
    """hloc's ``config``: ``estimation`` and ``refinement`` as nested dictionaries of options.

    As in hloc, an ``estimation`` entry replaces ``ransac_thresh``.
    """
    config = config or {}
    return {
        "estimation": config.get("estimation", {"ransac": {"max_error": float(ransac_thresh)}}),
        "refinement": config.get("refinement", {}),
    }


def estimate_pose(
    points2D: np.ndarray,
    points3D: np.ndarray,
    camera: pycolmap.Camera,
    options: dict[str, Any],
    seed: int,
) -> dict[str, Any] | None:
    """LO-RANSAC and refinement.

    Args:
        points2D: (n, 2) float64 pixels in COLMAP's convention.
        points3D: (n, 3) float64 map units.
        camera: intrinsics of the query.
        options: as ``estimation_options`` gives them.
        seed: of RANSAC.

    Returns:
        pycolmap's dictionary (``cam_from_world``, ``num_inliers``, ``inlier_mask``), or None where
        no pose was found.
    """
    if len(points2D) == 0:
        return None
    estimation = copy.deepcopy(options["estimation"])
    estimation.setdefault("ransac", {}).setdefault("random_seed", seed)
    return pycolmap.estimate_and_refine_absolute_pose(
        points2D,
        points3D,
        camera,
        estimation_options=estimation,
        refinement_options=options["refinement"],
    )


def estimate_pose_best_first(
    points2D: np.ndarray,
    points3D: np.ndarray,
    best: np.ndarray,
    camera: pycolmap.Camera,
    options: dict[str, Any],
    seed: int,
) -> dict[str, Any] | None:
    """RANSAC on the best matches alone, then refinement on all matches that agree with its pose.

    A keypoint that matches several points is right about one of them at most: with the best match
    of each keypoint RANSAC has half as many matches to score, and twice the share of inliers. The
    refinement then takes back the right ones among the rest. Ours.

    Args:
        points2D, points3D, camera, options, seed: as in ``estimate_pose``.
        best: (k,) rows of the matches that RANSAC looks at.

    Returns:
        As ``estimate_pose``; the inliers are counted among all matches.
    """
    first = estimate_pose(points2D[best], points3D[best], camera, options, seed)
    if first is None:
        return None
    ransac = options["estimation"].get("ransac", {})
    default = pycolmap.AbsolutePoseEstimationOptions().ransac.max_error
    threshold = ransac.get("max_error", default)
    inliers = reprojects(first["cam_from_world"], points2D, points3D, camera, threshold)
    refined = pycolmap.refine_absolute_pose(
        first["cam_from_world"], points2D, points3D, inliers, camera, options["refinement"]
    )
    if refined is None:
        return None
    return {**refined, "num_inliers": int(inliers.sum()), "inlier_mask": inliers}


def reprojects(
    cam_from_world: pycolmap.Rigid3d,
    points2D: np.ndarray,
    points3D: np.ndarray,
    camera: pycolmap.Camera,
    max_error: float,
) -> np.ndarray:
    """(n,) bool: the point lies in front of the camera and projects within ``max_error`` pixels."""
    pose = cam_from_world.matrix()
    in_camera = points3D @ pose[:, :3].T + pose[:, 3]
    if len(in_camera) == 0:
        return np.zeros(0, bool)
    projected = np.asarray(camera.img_from_cam(in_camera), np.float64)
    # Not a number where the camera model cannot project; compares as false.
    near = np.linalg.norm(projected - points2D, axis=1) <= max_error
    return near & in_front(in_camera, camera)
