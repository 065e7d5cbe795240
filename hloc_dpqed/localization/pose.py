"""Absolute pose from 2D-3D matches, with pycolmap."""

import copy
import hashlib
from typing import Any

import numpy as np
import pycolmap


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
